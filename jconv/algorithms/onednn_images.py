"""∂w of a depthwise convolution by oneDNN: the depthwise convolution of x with g.

The images are an axis of space, where there is room for one.  Where channels come first, the channels of all
images lie one after the other and are taken for channels.  A stride dilates g, at which oneDNN is slow in
three dimensions, such as two and the images; so there the taps r ≡ a (mod stride), which see every stride-th
row from the a-th on, are a call of their own.
"""

from __future__ import annotations

import functools
import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms import pieces
from jconv.algorithms.onednn_direct import direct
from jconv.algorithms.record import Loop, OneDnn, Repeated, Step
from jconv.algorithms.windows import pad, resized
from jconv.spec import ConvSpec, Ints

MOST_CALLS = 16
CODE = 52  # bytes of machine code that oneDNN writes for every tap and output, as it unrolls all loops
MOST_CODE = 24 << 20


def applies(spec: ConvSpec) -> bool:
    """Whether a kernel's gradient is computed so."""
    apart = all(s == 1 or d == 1 for s, d in zip(spec.strides, spec.rhs_dilation, strict=True))
    few = math.prod(spec.strides) <= MOST_CALLS
    return spec.is_depthwise and apart and (_is_folded(spec) or (few and (spec.ndim < 3 or spec.batch == 1)))


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w, the images being channels of one, an axis of space, or one alone."""
    if _is_folded(spec):
        apart = grad_kernel(_beside(x), _beside(g), _folded(spec))
        return apart.reshape(*spec.kernel, spec.batch, -1).sum(-2).reshape(spec.w_shape)
    part = _part(spec)
    return pieces.summed(functools.partial(_at_once, spec=part), x, g, spec, part)


def _part(spec: ConvSpec) -> ConvSpec:
    """The spec of as many images or rows of g as MOST_CODE allows."""
    return pieces.cut(spec, CODE * spec.taps * spec.positions, MOST_CODE)


def _at_once(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    kernel = g.reshape(*image_axis(spec), *spec.out_spatial, 1, spec.out_channels)
    if spec.batch == 1:
        back = spec.as_grad_kernel().replace(y_dtype=spec.accumulator)
        return direct(x, kernel, back).reshape(spec.w_shape)
    padded, parts = pad(x, spec), []
    for start in itertools.product(*map(range, map(min, spec.strides, spec.kernel))):
        part = one_phase(spec, start)
        stop = [a + (h - 1) * s + 1 for a, h, s in zip(start, part.spatial[1:], spec.strides, strict=True)]
        seen = lax.slice(padded, (0, *start, 0), (spec.batch, *stop, spec.in_channels), (1, *spec.strides, 1))
        parts.append(_put_between(direct(seen[None], kernel, part), start, spec))
    return functools.reduce(jnp.add, parts)


def image_axis(spec: ConvSpec) -> Ints:
    """The images as an axis of space, where there is room for one."""
    return (spec.batch,) if spec.ndim < 3 and spec.batch > 1 else ()


def _is_folded(spec: ConvSpec) -> bool:
    """Whether the images are channels of one, not an axis of space."""
    return spec.channels_first and spec.batch > 1


def _folded(spec: ConvSpec) -> ConvSpec:
    """The spec of one image with the channels of all."""
    channels = spec.batch * spec.in_channels
    return spec.replace(batch=1, in_channels=channels, out_channels=channels, groups=channels)


def _beside(image: jax.Array) -> jax.Array:
    """(n, *h, c) → (1, *h, n·c), which moves nothing where channels come first."""
    n, *space, c = image.shape
    return jnp.moveaxis(jnp.moveaxis(image, -1, 1).reshape(1, n * c, *space), 1, -1)


def one_phase(spec: ConvSpec, start: Ints) -> ConvSpec:
    """The convolution of one phase of x with g, whose result is every stride-th tap from `start` on."""
    image = image_axis(spec)
    one = (1,) * (len(image) + spec.ndim)
    taps = [-(-(k - a) // s) for k, a, s in zip(spec.kernel, start, spec.strides, strict=True)]
    size = [p + (t - 1) * d for p, t, d in zip(spec.out_spatial, taps, spec.rhs_dilation, strict=True)]
    return spec.replace(
        batch=1, spatial=(*image, *size), kernel=(*image, *spec.out_spatial), padding=((0, 0),) * len(one),
        strides=(*one[: len(image)], *spec.rhs_dilation), lhs_dilation=one, rhs_dilation=one,
        w_dtype=spec.y_dtype, y_dtype=spec.accumulator,
    )  # fmt: skip


def _put_between(taps: jax.Array, start: Ints, spec: ConvSpec) -> jax.Array:
    """Every stride-th tap from `start` on, with zeros for the others: shaped as w."""
    found = taps.shape[-1 - spec.ndim : -1]
    sides = [
        (a, k - a - (t - 1) * s - 1, s - 1)
        for a, k, t, s in zip(start, spec.kernel, found, spec.strides, strict=True)
    ]
    return resized(taps.reshape(*found, 1, spec.out_channels), sides, 0)


def steps(spec: ConvSpec) -> tuple[Step, ...]:
    """For each piece as many calls as phases, each of a part of the taps; and padding x."""
    if _is_folded(spec):
        return steps(_folded(spec))
    part = _part(spec)
    return (Repeated(_steps_at_once(part), math.prod(pieces.counts(spec, part))),)


def _steps_at_once(spec: ConvSpec) -> tuple[Step, ...]:
    if spec.batch == 1:
        return (OneDnn(spec.as_grad_kernel()),)
    whole = OneDnn(one_phase(spec.replace(strides=(1,) * spec.ndim), (0,) * spec.ndim))
    begun = (Loop(0, 0),) * (math.prod(spec.strides) - 1)
    return whole, *begun, Loop(0, 2 * spec.x_bytes)


def workspace(spec: ConvSpec) -> int:
    """Bytes of one piece: x padded and its phases, and g."""
    if _is_folded(spec):
        return workspace(_folded(spec))
    part = _part(spec)
    copied = 2 * part.x_bytes * (part.batch > 1 and spec.is_strided)
    return copied + part.y_bytes + 4 * spec.parameters + pieces.workspace(spec, part)
