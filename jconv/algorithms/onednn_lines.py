"""∂w by oneDNN as a convolution of x as it lies, whose images are the channels.

A row of an image lies in memory as one line of pixels times channels, and along that line a tap to the right
is c values further on.  So

    ∂w[r, s·c, o] = Σ_{n, p, q}  x̃[n, p·stride + r·dilation, (q·stride)·c + s·c] · g[n, p, q, o]

is a convolution along the lines: n are the channels, and g is the kernel, whose taps q are stride·c values
apart.  Nothing of x is written a second time.  Taps that are dilated along a line are not side by side in
it; then c is an axis of its own.

Cost: the direct sum, and copying g into the order in which oneDNN multiplies.  Wins where rows and columns
of taps times channels fill the registers; loses for images of one channel and for many channels of few
pixels, where ∂w, which comes with o first unless there is one image, is as large as x.
"""

import functools
import operator

import jax
import jax.numpy as jnp

from jconv.algorithms import pieces
from jconv.algorithms.onednn_direct import direct, outside
from jconv.algorithms.record import Loop, OneDnn, Step
from jconv.algorithms.windows import framing
from jconv.spec import ConvSpec


def applies(spec: ConvSpec) -> bool:
    """Whether it takes the spec: float32, all channels in one group, an axis for what is dilated.  (In one
    dimension products are as fast, and for long kernels XLA's own is twice as fast.)"""
    fits = spec.ndim > 1 and spec.ndim + _is_apart(spec) <= 3
    if spec.x_dtype != "float32" or spec.groups > 1 or not fits:
        return False
    return outside(as_lines(_part(spec))) is None


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w, at once or in pieces."""
    part = _part(spec)
    return pieces.summed(functools.partial(_at_once, spec=part), x, g, spec, part)


def _part(spec: ConvSpec) -> ConvSpec:
    """The spec of as many images, or rows of one, as oneDNN copies into memory that stays mapped."""
    return pieces.cut(spec, max(spec.x_bytes, spec.y_bytes), pieces.REUSED)


def _at_once(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    inside = as_lines(spec)
    lines = jnp.moveaxis(x.reshape(1, spec.batch, *inside.spatial), 1, -1)
    kernel = jnp.moveaxis(g.reshape(spec.batch, *inside.kernel, spec.o), 0, -2)
    return direct(lines, kernel, inside, lies=_lies(spec)).reshape(spec.w_shape)


def _is_apart(spec: ConvSpec) -> bool:
    """Whether the channels are an axis of their own."""
    return spec.rhs_dilation[-1] > 1


def _lies(spec: ConvSpec) -> tuple[int, ...]:
    """How the axes of that kernel (*p, n, o) lie where g is (n, *p, o) or (n, o, *p)."""
    *p, n, o = range(as_lines(spec).ndim + 2)
    return (n, o, *p) if spec.channels_first else (n, *p, o)


def as_lines(spec: ConvSpec) -> ConvSpec:
    """The convolution along the lines; of one image the channels lie last and first alike."""
    own = (1,) * _is_apart(spec)
    side = (*[1] * (spec.ndim - 1), 1 if own else spec.c)  # values from one position to the next
    padding = ((lo * m, hi * m) for (lo, hi, _), m in zip(framing(spec), side, strict=True))
    return spec.replace(
        batch=1,
        in_channels=spec.batch,
        spatial=(*map(operator.mul, spec.spatial, side), *(spec.c for _ in own)),
        kernel=(*spec.out_spatial, *own),
        strides=(*spec.rhs_dilation, *own),
        padding=(*padding, *((0, 0) for _ in own)),
        lhs_dilation=(1,) * (spec.ndim + len(own)),
        rhs_dilation=(*map(operator.mul, spec.strides, side), *own),
        w_dtype=spec.y_dtype,
        y_dtype=spec.accumulator,
        channels_first=spec.batch > 1,
    )


def steps(spec: ConvSpec) -> tuple[Step, ...]:
    """The convolution, and bringing ∂w into the order of the kernel."""
    part = _part(spec)
    inside = as_lines(part)
    moved = (Loop(0, 2 * spec.kernel_bytes, 1),) if inside.channels_first or spec.channels_first else ()
    return pieces.repeated((OneDnn(inside, streamed=True), *moved), spec, part)


def workspace(spec: ConvSpec) -> int:
    """Bytes of g and, of several images, of x as oneDNN multiplies them."""
    part = _part(spec)
    copied = part.y_bytes + part.x_bytes * (part.batch > 1)
    return copied + 4 * spec.parameters + pieces.workspace(spec, part)
