"""Which role a convolution plays.

lax writes all three roles as a convolution: a transposed convolution has a dilated input, a kernel
gradient has a kernel as large as an image.  Both are better computed as what they are.  With B the
ordinary, strided convolution behind F,

    F dilates its input at stride 1     F(x, w)   = grad_input  of B(g = x, w̃)
    F has more taps than outputs        F(x, w)   = grad_kernel of B(x̃, g = w̃)

and the other roles of F follow, since B = F.as_grad_input() (or as_grad_kernel()) is its own inverse.
"""

from __future__ import annotations

import math

import jax

from jconv.algorithm import Algorithm
from jconv.derivatives import convolve
from jconv.roles import channels_as_batch, channels_swapped, flipped, flips_image, swapped_kernel
from jconv.spec import ConvSpec


def convolve_as_role(
    x: jax.Array, w: jax.Array, spec: ConvSpec, algorithm: str | Algorithm = "auto", *, swapped: bool = False
) -> jax.Array:
    """The forward convolution `spec`, canonical arrays, computed as the role it plays.

    `swapped` says that the user's batch axis comes after the channels, as lax writes kernel gradients and
    nobody else: more taps than outputs alone are no sign, a patch embedding has them too.
    """
    if spec.is_empty:
        return convolve("forward", x, w, spec, algorithm)
    if swapped and spec.taps > math.prod(spec.out_spatial):
        return _as_grad_kernel(x, w, spec, algorithm)
    if is_transposed(spec):
        return _as_grad_input(x, w, spec, algorithm)
    return convolve("forward", x, w, spec, algorithm)


def is_transposed(spec: ConvSpec) -> bool:
    """The input is dilated and the stride is one: the gradient of a strided convolution."""
    return any(d != 1 for d in spec.lhs_dilation) and all(s == 1 for s in spec.strides)


def _as_grad_input(x: jax.Array, w: jax.Array, spec: ConvSpec, algorithm: str | Algorithm) -> jax.Array:
    behind = spec.as_grad_input()
    if not flips_image(behind):
        return convolve("grad_input", x, swapped_kernel(w, spec), behind, algorithm)
    mirrored = behind.mirrored()
    return flipped(convolve("grad_input", flipped(x), channels_swapped(w, spec), mirrored, algorithm))


def _as_grad_kernel(x: jax.Array, w: jax.Array, spec: ConvSpec, algorithm: str | Algorithm) -> jax.Array:
    behind = spec.as_grad_kernel()
    n = spec.ndim
    x, g = channels_as_batch(x, spec), w.transpose(n, *range(n), n + 1)
    if is_transposed(behind):  # x is dilated: it is the gradient, and g the input, of a strided one
        strided = behind.as_grad_input()
        kernel = swapped_kernel(convolve("grad_kernel", g, x, strided, algorithm), strided)
    else:
        kernel = convolve("grad_kernel", x, g, behind, algorithm)
    return kernel.transpose(n, *range(n), n + 1)
