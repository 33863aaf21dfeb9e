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
from collections.abc import Callable

import jax

from jconv.algorithms.derived import channels_as_batch, channels_swapped, flipped, swapped_kernel
from jconv.algorithms.record import Algorithm
from jconv.calculus.primitives import convolve
from jconv.spec import ConvSpec, Role
from jconv.spec.roles import canonical, flips_image, is_transposed

Named = str | Algorithm | Callable[[ConvSpec], str | Algorithm]  # or what finds it for the spec of the role


def convolve_as_role(
    x: jax.Array, w: jax.Array, spec: ConvSpec, algorithm: Named = "auto", *, swapped: bool = False
) -> jax.Array:
    """The forward convolution `spec`, canonical arrays, computed as the role it plays.

    `swapped` says that the user's batch axis comes after the channels, as lax writes kernel gradients and
    nobody else: more taps than outputs alone are no sign, a patch embedding has them too.
    """
    if spec.is_empty:
        return _by("forward", x, w, spec, algorithm)
    if swapped and spec.taps > math.prod(spec.out_spatial):
        return _as_grad_kernel(x, w, spec, algorithm)
    if is_transposed(spec):
        return _as_grad_input(x, w, spec, algorithm)
    return _by("forward", x, w, spec, algorithm)


def _as_grad_input(x: jax.Array, w: jax.Array, spec: ConvSpec, algorithm: Named) -> jax.Array:
    posed, role = canonical(spec, "forward")
    if not flips_image(posed):
        return _by(role, x, swapped_kernel(w, spec), posed, algorithm)
    return flipped(_by(role, flipped(x), channels_swapped(w, spec), posed, algorithm))


def _as_grad_kernel(x: jax.Array, w: jax.Array, spec: ConvSpec, algorithm: Named) -> jax.Array:
    behind = spec.as_grad_kernel()
    n = spec.ndim
    x, g = channels_as_batch(x, spec), w.transpose(n, *range(n), n + 1)
    if is_transposed(behind):  # x is dilated: it is the gradient, and g the input, of a strided one
        strided = behind.as_grad_input()
        kernel = swapped_kernel(_by("grad_kernel", g, x, strided, algorithm), strided)
    else:
        kernel = _by("grad_kernel", x, g, behind, algorithm)
    return kernel.transpose(n, *range(n), n + 1)


def _by(role: Role, a: jax.Array, b: jax.Array, spec: ConvSpec, algorithm: Named) -> jax.Array:
    return convolve(role, a, b, spec, algorithm(spec) if callable(algorithm) else algorithm)


def batch_groups_to_channels(x: jax.Array, groups: int) -> jax.Array:
    """(b·n, *h, c) → (n, *h, b·c): batch groups are feature groups of a regrouped input."""
    bn, *spatial, c = x.shape
    x = x.reshape(groups, bn // groups, *spatial, c)
    x = x.transpose(*range(1, x.ndim - 1), 0, x.ndim - 1)
    return x.reshape(bn // groups, *spatial, groups * c)
