"""vmap a convolution over anything, anywhere: always one convolution, chosen for the whole batch.

    python examples/vmap_batch.py

The new axis joins one letter of the problem.  Over inputs it joins the batch; over kernels the output
channels, since all kernels read the same input; over both it becomes groups, which have nothing to do
with each other.  No operand is copied, nothing loops, and the algorithm is chosen for the folded problem.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jconv
from jconv.bench.comparison import compare, conditions
from jconv.testing import tolerance

MANY, SIDE, CHANNELS = 8, 28, 32
OVER = {
    "inputs": (0, None, None),
    "kernels": (None, 0, None),
    "inputs and kernels": (0, 0, None),
    "inputs, kernels and biases": (0, 0, 0),
}


def conv(x, w, b):
    """One image under one kernel, by jconv."""
    return jconv.conv2d(x, w, b, padding=1, layout="NHWC")


def lax_conv(x, w, b):
    """The same by JAX's own convolution."""
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + b


def looped(axes, *args):
    """What vmap means: one after another, here unrolled into one program."""
    examples = [[v[i] if axis == 0 else v for v, axis in zip(args, axes, strict=True)] for i in range(MANY)]
    return jnp.stack([conv(*example) for example in examples])


def main():
    """A table for every choice of operands; then two vmaps, one in the other."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((MANY, 1, SIDE, SIDE, CHANNELS)), jnp.float32)
    w = jnp.asarray(rng.standard_normal((MANY, 3, 3, CHANNELS, CHANNELS)), jnp.float32)
    b = jnp.asarray(rng.standard_normal((MANY, CHANNELS)), jnp.float32)
    bound = tolerance("float32", 9 * CHANNELS)
    print(conditions())
    for name, axes in OVER.items():
        args = [v if axis == 0 else v[0] for v, axis in zip((x, w, b), axes, strict=True)]
        mapped = jax.vmap(conv, axes)
        ways = {
            "vmap of lax": jax.vmap(lax_conv, axes),
            "loop of jconv": functools.partial(looped, axes),
            "vmap of jconv": mapped,
        }
        print(f"\nover {name}: {jax.eval_shape(mapped, *args).shape}, one convolution")
        print(compare(ways, *args, bound=bound))

    every = [jax.vmap(jax.vmap(c, (None, 0, 0)), (0, None, None)) for c in (lax_conv, conv)]
    print(f"\nevery input under every kernel, two vmaps: {jax.eval_shape(every[1], x, w, b).shape}")
    print(compare(dict(zip(("lax", "jconv"), every, strict=True)), x, w, b, bound=bound))
    print("\nwhat runs in it, before it runs:\n")
    print(jconv.explain(every[1], x, w, b))


if __name__ == "__main__":
    main()
