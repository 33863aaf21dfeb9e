"""jconv in a minute: a convolution, its gradient, a batch of kernels, and algorithms by name."""

import jax
import jax.numpy as jnp
import numpy as np

import jconv
from jconv.algorithms import ALGORITHMS
from jconv.textbook.example import INPUT, SOBEL_X

rng = np.random.default_rng(0)

# As in PyTorch: x (n, c, h, w), w (o, c, r, s).
x = jnp.asarray(INPUT, jnp.float32)[None, None]
w = jnp.asarray(SOBEL_X, jnp.float32)[None, None]
print("a 5×5 input under Sobel's kernel\n", jconv.conv2d(x, w)[0, 0])

# Batches, channels, a bias; stride, padding, dilation and groups by name.
x = jnp.asarray(rng.standard_normal((8, 6, 17, 23)), jnp.float32)
w = jnp.asarray(rng.standard_normal((4, 3, 3, 5)), jnp.float32)
b = jnp.arange(4.0)
options = dict(stride=(2, 1), padding=((1, 0), (2, 2)), groups=2)
y = jconv.conv2d(x, w, b, **options)
print("\nNCHW", x.shape, "with OIHW", w.shape, "gives", y.shape)

# Channels last: the same numbers, other axes.
last = jconv.conv2d(x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), b, layout="NHWC", **options)
print("NHWC gives", last.shape, "and differs by", abs(last.transpose(0, 3, 1, 2) - y).max())


# The gradient is JAX's as usual; behind it stands a backward pass written by hand.
def loss(w):
    """Mean square of the output."""
    return (jconv.conv2d(x, w, b, **options) ** 2).mean()


gradient = jax.grad(loss)(w)
curvature = jax.jvp(jax.grad(loss), (w,), (gradient,))[1]  # forward over reverse works too
print("\ngradient", gradient.shape, "and its change along itself", curvature.shape)
better = w - 0.1 * gradient
print(f"a step against it brings the loss from {loss(w):.3f} to {loss(better):.3f}")

# vmap over kernels: ten convolutions of one input, run as one.
kernels = jnp.stack([w * scale for scale in np.linspace(0.1, 1, 10)])
many = jax.vmap(lambda w: jconv.conv2d(x, w, **options))(kernels)
print("\nten kernels under vmap give", many.shape)

# An algorithm by name runs, or says why it cannot; it never falls back in silence.
print()
for name in ALGORITHMS:
    try:
        difference = abs(jconv.conv2d(x, w, b, algorithm=name, **options) - y).max()
        print(f"{name:10s} differs from the automatic choice by {difference:.1e}")
    except ValueError as refusal:
        print(f"{name:10s} {refusal}")
