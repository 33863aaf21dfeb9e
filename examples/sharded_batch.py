"""Data-parallel training on eight devices: shard the batch, change nothing else.

    python examples/sharded_batch.py

`jax.jit` follows the shardings of its arguments.  Convolutions of a cut batch send nothing; the
gradient of each kernel is summed over the devices, which is all that the compiled step sends.  The
same lines then run with sharding in types, where the sharding of every result is known while tracing.
Eight CPU devices are simulated, so this runs on a laptop.
"""

import collections
import os
import re

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jconv


def network(kernels, x):
    """Depthwise separable: a 3×3 convolution per channel, then one across channels; twice; and a mean."""
    for depthwise, pointwise in kernels:
        x = jconv.conv2d(x, depthwise, padding=1, groups=x.shape[-1], layout="NHWC")
        x = jax.nn.relu(jconv.conv2d(x, pointwise, layout="NHWC"))
    return x.mean((1, 2))


def loss(kernels, x, labels):
    """Cross-entropy."""
    logits = jax.nn.log_softmax(network(kernels, x))
    return -(logits * labels).sum(-1).mean()


def train_step(kernels, x, labels):
    """The loss and the kernels one step of gradient descent later."""
    value, gradients = jax.value_and_grad(loss)(kernels, x, labels)
    return value, jax.tree.map(lambda w, g: w - 0.3 * g, kernels, gradients)


def problem(rng):
    """Images whose class is the channel that is brightest, and small random kernels."""
    labels = np.eye(8, dtype="float32")[rng.integers(0, 8, 64)]
    x = rng.standard_normal((64, 12, 12, 8)) + 2 * labels[:, None, None]
    random = rng.standard_normal
    kernels = [(random((3, 3, 1, 8)) / 3, random((1, 1, 8, 8)) / 2) for _ in range(2)]
    return jax.tree.map(lambda v: jnp.asarray(v, "float32"), (kernels, x, labels))


def main():
    """Train on one device and on eight, and say what was sent."""
    kernels, x, labels = problem(np.random.default_rng(0))
    alone, _ = jax.jit(train_step)(kernels, x, labels)

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    cut = NamedSharding(mesh, P("data"))
    x, labels = jax.device_put((x, labels), cut)
    step = jax.jit(train_step).lower(kernels, x, labels).compile()
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    sent = collections.Counter(re.findall(rf" ({kinds})\(", step.as_text()))
    print("collectives in the compiled step:", dict(sent))
    trained = jax.device_put(kernels, NamedSharding(mesh, P()))
    losses = []
    for _ in range(20):
        value, trained = step(trained, x, labels)
        losses.append(float(value))
    print(f"loss on one device {alone:.6f}, on eight {losses[0]:.6f}; after 20 steps {losses[-1]:.6f}")
    assert set(sent) == {"all-reduce"}
    assert abs(alone - losses[0]) < 1e-5
    assert losses[-1] < losses[0]

    typed = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(typed):
        x, labels = jax.device_put((x, labels), P("data"))
        kernels = jax.device_put(kernels, P())
        print("with sharding in types the output is", jax.eval_shape(network, kernels, x).sharding.spec)
        print(f"and the loss {jax.jit(train_step)(kernels, x, labels)[0]:.6f}")


if __name__ == "__main__":
    main()
