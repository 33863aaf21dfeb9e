"""An image too large for one device, cut over eight: forward and gradients, halos and nothing else.

    python examples/sharded_image.py

Three layers over a 1024×1024 image with 16 channels need more memory than the budget of one device
stated below.  Cut into eight bands of 128 rows they fit: each device holds an eighth of every
activation and, during a convolution, the one row of each neighbour that a 3×3 kernel reads.
Eight CPU devices are simulated, so this runs on a laptop.
"""

import functools
import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jconv
import jconv.sharding

BUDGET = 128  # MiB per device
SIDE, CHANNELS, LAYERS, BANDS = 1024, 16, 3, 8
MIB = 2**20


def loss(conv, kernels, x):
    """A few 3×3 layers and a mean."""
    for w in kernels:
        x = jax.nn.relu(conv(x, w, padding=1, layout="NHWC", algorithm="xla"))
    return (x**2).sum() / (SIDE * SIDE)


def temporaries(step, *arrays):
    """MiB that one device needs besides its arguments and results, from the compiled program."""
    return step.lower(*arrays).compile().memory_analysis().temp_size_in_bytes / MIB


mesh = jax.make_mesh((BANDS,), ("bands",), axis_types=(AxisType.Auto,))
bands = P(None, "bands")


@functools.partial(jax.shard_map, mesh=mesh, in_specs=(P(), bands), out_specs=P())
def banded_loss(kernels, x):
    """The same of an image cut into bands: only the convolution and the last sum know of it."""
    conv = functools.partial(jconv.sharding.conv, spatial_axes=("bands", None))
    return jax.lax.psum(loss(conv, kernels, x), "bands")


def main():
    """Compile both ways, compare what they need, and run the one that fits."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, SIDE, SIDE, CHANNELS), dtype="float32")
    kernels = [rng.standard_normal((3, 3, CHANNELS, CHANNELS), dtype="float32") / 12 for _ in range(LAYERS)]

    on_one = jax.jit(jax.grad(functools.partial(loss, jconv.conv2d), (0, 1)))
    whole = temporaries(on_one, kernels, x)
    cut_x = jax.device_put(x, NamedSharding(mesh, bands))
    step = jax.jit(jax.grad(banded_loss, (0, 1)))
    cut = temporaries(step, kernels, cut_x)
    print(f"one device     {whole:6.1f} MiB of temporaries, budget {BUDGET} MiB: does not fit")
    print(f"eight devices  {cut:6.1f} MiB each, {cut / whole:.3f} of the whole; 1/8 is 0.125, the rest halo")
    assert cut < BUDGET < whole

    spec = jconv.ConvSpec.of(
        spatial=(SIDE, SIDE), kernel=(3, 3), padding=((1, 1), (1, 1)), in_channels=CHANNELS
    )
    sent = jconv.sharding.halo_bytes(spec, (BANDS, 1))
    print(f"sent per layer {sent / 2**10:6.0f} KiB over {BANDS - 1} borders, each way a row of {SIDE} pixels")

    gradients, of_x = step(kernels, cut_x)
    print("gradient of the image:", of_x.sharding.spec, "· of a kernel:", gradients[0].shape, "everywhere")
    alone, _ = on_one(kernels, jnp.asarray(x))
    difference = max(float(abs(a - b).max()) for a, b in zip(gradients, alone, strict=True))
    print(f"largest difference to the kernel gradients of one device: {difference:.1e}")


if __name__ == "__main__":
    main()
