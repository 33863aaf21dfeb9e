"""One role by another: what an algorithm does not have of its own is derived from what it has.

Two facts do it.  A gradient of a convolution is a convolution (`spec.roles`), so that any forward serves all
three roles.  And the roles are linear in each operand, and each other's transposes, so that the program of
any one of them, run backwards, is another.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jconv.spec import ConvSpec, Role
from jconv.spec.roles import OPERANDS, RESULT, flips_image

Compute = Callable[[jax.Array, jax.Array, ConvSpec], jax.Array]


def by_rewriting(forward: Compute, role: Role) -> Compute:
    """A gradient by the forward of `rewritten`."""
    how = {"grad_input": _grad_input, "grad_kernel": _grad_kernel}[role]
    return functools.partial(how, forward)


def _grad_input(forward: Compute, g: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂x = conv(g, w flipped in space, c and o swapped within each group).

    Flipping the kernel is the same as flipping g before and ∂x after.  XLA flips seven times as slowly as it
    swaps channels, so whatever is smaller is flipped: the image, in the last layers of a network.
    """
    back = spec.as_grad_input()
    if not flips_image(spec):
        return forward(g, swapped_kernel(w, spec), back)
    return flipped(forward(flipped(g), channels_swapped(w, spec), back.mirrored()))


def swapped_kernel(w: jax.Array, spec: ConvSpec) -> jax.Array:
    """(r, c, g·o) → (−r, o, g·c): the kernel of grad_input."""
    return channels_swapped(lax.rev(w, tuple(range(spec.ndim))), spec)


def channels_swapped(w: jax.Array, spec: ConvSpec) -> jax.Array:
    """(r, c, g·o) → (r, o, g·c).  Without a reshape where there is one group, so that the compiler sees
    when it undoes the order of the user's axes."""
    n = spec.ndim
    if spec.groups == 1:
        return jnp.swapaxes(w, n, n + 1)
    w = w.reshape(*spec.kernel, spec.c, spec.groups, spec.o)
    return w.transpose(*range(n), n + 2, n + 1, n).reshape(*spec.kernel, spec.o, spec.in_channels)


def carried(behind: ConvSpec) -> tuple[Callable, Callable]:
    """How w, and how x and y, go over into a role of the strided convolution behind a transposed one, and
    back: its kernel is flipped, or they are."""
    return (channels_swapped, flipped) if flips_image(behind) else (swapped_kernel, lambda image: image)


def flipped(image: jax.Array) -> jax.Array:
    """x or y with every spatial axis backwards."""
    return lax.rev(image, tuple(range(1, image.ndim - 1)))


def _grad_kernel(forward: Compute, x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w = conv of x, its channels as batch, with the kernel g, its batch as channels."""
    n = spec.ndim
    space = tuple(range(1, n + 1))
    g = g.transpose(*space, 0, n + 1)
    y = forward(channels_as_batch(x, spec), g, spec.as_grad_kernel())
    return y.transpose(*space, 0, n + 1)


def channels_as_batch(x: jax.Array, spec: ConvSpec) -> jax.Array:
    """(n, h, g·c) → (c, h, g·n): the input of grad_kernel's convolution, and from there back again."""
    n = spec.ndim
    if spec.groups == 1:
        return jnp.swapaxes(x, 0, n + 1)
    x = x.reshape(spec.batch, *spec.spatial, spec.groups, spec.c)
    x = x.transpose(n + 2, *range(1, n + 1), n + 1, 0)
    return x.reshape(spec.c, *spec.spatial, spec.groups * spec.batch)


def by_transposing(program: Compute, has: Role, role: Role) -> Compute:
    """`role` by the program of the role that it `has`.

    That one has the result of `role` among its operands and is linear in it; backwards, it takes what was its
    result, which is an operand of `role`, to that.  It calls no oneDNN, which JAX cannot run backwards.
    """
    wanted, given = RESULT[role], RESULT[has]

    def backwards(a: jax.Array, b: jax.Array, spec: ConvSpec) -> jax.Array:
        wide = a.astype(spec.accumulator), b.astype(spec.accumulator)
        arrays = dict(zip(OPERANDS[role], wide, strict=True))

        def linear(value: jax.Array) -> jax.Array:
            first, second = ((arrays | {wanted: value})[name] for name in OPERANDS[has])
            return program(first, second, spec.replace(onednn=False))

        like = jax.ShapeDtypeStruct(spec.result(role)[0], spec.accumulator)
        result = jax.eval_shape(linear, like)
        cotangent = arrays[given].reshape(result.shape).astype(result.dtype)
        return jax.linear_transpose(linear, like)(cotangent)[0]

    return backwards
