"""∂w by oneDNN as a convolution whose channels are the pixels of a row.

With s for the taps of the last dimension and q for its outputs,

    x'[n, h, s·c, q] = x̃[n, h, q·stride + s·dilation, c]
    ∂w[r, s·c, o]    = Σ_{n, p, q}  x'[n, p·stride + r·dilation, s·c, q] · g[n, p, q, o]

is a convolution along the axes n, h and s·c: the channels are q → o, and the kernel is g, with n × p × 1
taps.  So x is written once for each tap of the *last* dimension, where im2col writes it once for each tap of
all, and the products run over s·c × o, which are many.  In three dimensions the images lie side by side in
the row, and the axes are d, h and s·c.  Every row of taps reads x' and g again, so many images are summed
some at a time, and a large one some rows at a time.

Wins in groups, whose channels lie apart, so that `onednn_lines` would have to bring them together, and in
bfloat16, whose kernels want many channels.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms import pieces
from jconv.algorithms.onednn_direct import direct
from jconv.algorithms.onednn_images import along, image_axis
from jconv.algorithms.record import Loop, OneDnn, Step
from jconv.algorithms.windows import framing, resized
from jconv.spec import ConvSpec, Ints

STREAMED = 36 << 20  # bytes read of x' and g, once for every row of taps, above which they are cut


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w, at once or in pieces."""
    part = _part(spec)
    return pieces.summed(functools.partial(_at_once, spec=part), x, g, spec, part)


def of_a_piece(spec: ConvSpec) -> ConvSpec:
    """The convolution that is called for each piece."""
    return as_rows(_part(spec))


def _part(spec: ConvSpec) -> ConvSpec:
    """The spec of what is multiplied at a time: all, or as many images, or rows of one, as stay in cache."""
    return pieces.cut(spec, _size(spec), pieces.IN_CACHE) if _is_streamed(spec) else spec


def _is_streamed(spec: ConvSpec) -> bool:
    """Whether so much is read that it is cut to stay in cache.  (Halves the compiler makes float32, in a loop
    all of them every time.)"""
    # every row of taps reads all of it; a volume counts once, as its bands would read many planes twice
    rows = 1 if spec.ndim > 2 else spec.kernel[0]
    return spec.x_dtype == "float32" and rows * _size(spec) > STREAMED


def _size(spec: ConvSpec) -> int:
    """Bytes of x' and g."""
    return as_rows(spec).x_bytes + spec.y_bytes


def _at_once(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    inside = as_rows(spec)
    # (n, *p, 1, q, g·o) or, in three dimensions, (*p, 1, n·q, g·o)
    kernel = (g if image_axis(spec) else jnp.moveaxis(g, 0, -3)).reshape(inside.w_shape)
    return direct(_shifted(x, spec), kernel, inside, lies=_kernel_lies(spec)).reshape(spec.w_shape)


def as_rows(spec: ConvSpec) -> ConvSpec:
    """The convolution along n, h and (s, c), or d, h and (s, c), that is the kernel's gradient."""
    image = image_axis(spec)
    row = spec.out_spatial[-1] * (1 if image else spec.batch)
    inside = spec.replace(
        batch=1,
        in_channels=spec.groups * row,
        spatial=(*spec.spatial[:-1], spec.kernel[-1] * spec.c),
        kernel=(*spec.out_spatial[:-1], 1),
        strides=(*spec.rhs_dilation[:-1], 1),
        padding=(*spec.as_grad_kernel().padding[:-1], (0, 0)),
        lhs_dilation=(1,) * spec.ndim,
        rhs_dilation=(*spec.strides[:-1], 1),
        w_dtype=spec.y_dtype,
        y_dtype=spec.accumulator,
        channels_first=False,
    )
    return along(image, inside)


def _shifted(x: jax.Array, spec: ConvSpec) -> jax.Array:
    """(1, n, *h, s·c, g·q) or, in 3-D, (1, d, h, s·c, g·n·q): x as every tap of a row sees it, cut from its
    phases in runs of q.  Taps side by side in x are phases side by side, and are cut at once."""
    lines, axis = _phases(x, spec), len(image_axis(spec)) + spec.ndim - 1
    taps, stride, dilation = spec.kernel[-1], spec.strides[-1], spec.rhs_dilation[-1]
    tap, parts = 0, []
    while tap < taps:
        start, phase = divmod(tap * dilation + _before(spec), stride)
        count = min(stride - phase, taps - tap) if dilation == 1 else 1
        part = lax.slice_in_dim(lines, phase, phase + count, axis=axis)
        parts.append(lax.slice_in_dim(part, start, start + spec.out_spatial[-1], axis=lines.ndim - 1))
        tap += count
    return jnp.concatenate(parts, axis).reshape(as_rows(spec).x_shape)


def _before(spec: ConvSpec) -> int:
    """Zeros before the padding of a row that make it a multiple of the stride.  (After it they would often be
    the only ones there, and a row that is padded at both ends is written at half the speed.)"""
    lo, hi, _ = framing(spec)[-1]
    return -(lo + spec.spatial[-1] + hi) % spec.strides[-1]


def _phases(x: jax.Array, spec: ConvSpec) -> jax.Array:
    """(n, *h, stride, c, g, i) or, in three dimensions, (*h, stride, c, g, n, i): position i·stride + phase
    of every padded row.  Padded as it lies, so that x is transposed once, if at all."""
    first, axis, stride = spec.channels_first, spec.ndim + spec.channels_first, spec.strides[-1]
    lo, hi, _ = framing(spec)[-1]
    x = jnp.moveaxis(x, -1, 1) if first else x
    x = resized(x, [(_before(spec) + lo, hi, 0)], axis, in_order=True)
    row, channels = (x.shape[axis] // stride, stride), (spec.groups, spec.c)
    x = x.reshape(spec.batch, *channels * first, *spec.spatial[:-1], *row, *channels * (not first))
    image, *rest = range(x.ndim)  # n g c *h i phase or n *h i phase g c
    group, channel, *rows, i, phase = rest if first else (*rest[-2:], *rest[:-2])
    outer, beside = ((image,), ()) if image_axis(spec) else ((), (image,))
    return x.transpose(*outer, *rows, phase, channel, group, *beside, i)


def _kernel_lies(spec: ConvSpec) -> Ints | None:
    """How the axes of that kernel lie where g is (n, g·o, *p): o comes before the pixels."""
    if not spec.channels_first or (spec.ndim == 3 and spec.batch > 1):
        return None
    image = tuple(range(len(image_axis(spec))))
    out = as_rows(spec).ndim + 1
    return *image, out, *range(len(image), out)


def steps(spec: ConvSpec) -> tuple[Step, ...]:
    """Writing x' transposed value by value, and the convolution."""
    part = _part(spec)
    moved = (Loop(0, 2 * spec.kernel_bytes, 1),) if spec.channels_first else ()
    inside = as_rows(part)
    once = Loop(0, 2 * inside.x_bytes, 2), OneDnn(inside, streamed=True), *moved
    return pieces.repeated(once, spec, part)


def workspace(spec: ConvSpec) -> int:
    """Bytes of x' and of g as oneDNN multiplies them."""
    part = _part(spec)
    return as_rows(part).x_bytes + part.y_bytes + 4 * spec.parameters + pieces.workspace(spec, part)
