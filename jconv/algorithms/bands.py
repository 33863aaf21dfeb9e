"""Cutting a convolution into bands of output rows, so that temporaries stay under a bound.

A band of rows of the output needs a band of the input: `rows` outputs read
(rows − 1)·stride + window inputs.  The batch stays whole in every band, so that a batch split over
devices stays split; it is cut only where one row of the whole batch is too large already.

A buffer above 32 MiB (glibc's mmap threshold) is mapped afresh at every execution on CPU; 8 MiB also leaves
room for operands in a 32 MiB last-level cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jconv.spec import ConvSpec

BOUND = 8 << 20


def band(spec: ConvSpec, bytes_total: int, bound: int = BOUND) -> ConvSpec:
    """The spec of one of the fewest, equal bands of output rows whose share of `bytes_total` fits `bound`."""
    if not spec.ndim or not all(isinstance(size, int) for size in (spec.batch, bytes_total)):
        return spec  # a size that is known only at run time
    count = -(-bytes_total // bound)
    height = spec.out_spatial[0]
    batch = spec.batch if count <= height else max(1, spec.batch * height // count)
    return band_of(spec, batch, -(-height // min(count, height)))


def band_of(spec: ConvSpec, batch: int, rows: int) -> ConvSpec:
    """The spec that computes so many images and rows of the output.  Its input rows contain their padding;
    what computes them pads the other axes."""
    if rows == spec.out_spatial[0]:
        return spec if batch == spec.batch else spec.replace(batch=batch)
    return spec.replace(
        batch=batch,
        spatial=((rows - 1) * spec.strides[0] + spec.window[0], *spec.spatial[1:]),
        padding=((0, 0), *spec.padding[1:]),
        lhs_dilation=(1, *spec.lhs_dilation[1:]),
    )


def forward(compute: Callable, x: jax.Array, spec: ConvSpec, part: ConvSpec) -> jax.Array:
    """y, every band of which is compute(x band).

    The last band starts early instead of ending late: the rows it computes twice come out the same.
    """
    if part is spec:
        return compute(x)
    x, spec = _without_gaps(x, spec, part)

    def one(i: jax.Array, y: jax.Array) -> jax.Array:
        n, row = begins(i, spec, part)
        band = compute(_input(x, n, row, spec, part)).reshape(part.y_shape).astype(y.dtype)
        return lax.dynamic_update_slice(y, band, (n, row, *[0] * spec.ndim))

    return lax.fori_loop(0, math.prod(counts(spec, part)), one, jnp.zeros(spec.y_shape, spec.y_dtype))


def grad_kernel(compute: Callable, x: jax.Array, g: jax.Array, spec: ConvSpec, part: ConvSpec) -> jax.Array:
    """The sum over all bands of compute(x band, g band), which is ∂w or something ∂w is linear in.

    The arrays are cut as they lie: in the loop a transposition would not cancel that of the door.
    """
    if part is spec:
        return compute(x, g)
    x, spec = _without_gaps(x, spec, part)
    lies = 1 if spec.channels_first else spec.ndim + 1
    x, g = jnp.moveaxis(x, -1, lies), jnp.moveaxis(g, -1, lies)

    def one(i: jax.Array | int) -> jax.Array:
        n, row = begins(i, spec, part)
        piece = lax.dynamic_slice_in_dim(g, n, part.batch, 0)
        piece = lax.dynamic_slice_in_dim(piece, row, part.out_spatial[0], 2 if lies == 1 else 1)
        piece = _not_yet_seen(jnp.moveaxis(piece, lies, -1), i, spec, part)
        return compute(jnp.moveaxis(_input(x, n, row, spec, part, 2 if lies == 1 else 1), lies, -1), piece)

    total = jax.eval_shape(one, 0)
    zeros = jnp.zeros(total.shape, total.dtype)
    return lax.fori_loop(0, math.prod(counts(spec, part)), lambda i, total: total + one(i), zeros)


def counts(spec: ConvSpec, part: ConvSpec) -> tuple[int, int]:
    """How many parts the batch is cut into, and how many bands the rows."""
    return -(-spec.batch // part.batch), -(-spec.out_spatial[0] // part.out_spatial[0])


def due(i: jax.Array | int, spec: ConvSpec, part: ConvSpec) -> tuple[jax.Array | int, jax.Array | int]:
    """The image and the output row up to which everything is done when part i begins."""
    bands = counts(spec, part)[1]
    return i // bands * part.batch, i % bands * part.out_spatial[0]


def begins(i: jax.Array | int, spec: ConvSpec, part: ConvSpec) -> tuple[jax.Array, jax.Array]:
    """The first image and output row of part i: where it is due, or earlier if it would not fit there."""
    (n, row), rows = due(i, spec, part), part.out_spatial[0]
    return jnp.minimum(n, spec.batch - part.batch), jnp.minimum(row, spec.out_spatial[0] - rows)


def workspace(spec: ConvSpec, part: ConvSpec) -> int:
    """Bytes of one band's x and y, which come on top of the temporaries of what computes it."""
    return 0 if part is spec else part.image_bytes


# -- what a band reads -----------------------------------------------------------------------------


def _without_gaps(x: jax.Array, spec: ConvSpec, part: ConvSpec) -> tuple[jax.Array, ConvSpec]:
    """x and its spec, with the zeros between dilated rows written out if bands of rows are cut from them."""
    if part.lhs_dilation == spec.lhs_dilation:
        return x, spec
    gaps = [(0, 0, d - 1 if axis == 1 else 0) for axis, d in enumerate((1, *spec.lhs_dilation, 1))]
    x = lax.pad(x, jnp.zeros((), x.dtype), gaps)
    return x, spec.replace(spatial=x.shape[1:-1], lhs_dilation=part.lhs_dilation)


def _input(
    x: jax.Array, n: jax.Array, row: jax.Array, spec: ConvSpec, part: ConvSpec, axis: int = 1
) -> jax.Array:
    """The rows of x that the band starting at an output row reads, along its axis of rows.  Rows beyond x are
    padded to the band as zeros, since padding x would copy all of it."""
    band = lax.dynamic_slice_in_dim(x, n, part.batch)
    if part.out_spatial[0] == spec.out_spatial[0]:
        return band
    stride, height, read = spec.strides[0], x.shape[axis], part.spatial[0]
    above = spec.padding[0][0]
    below = (spec.out_spatial[0] - 1) * stride + spec.window[0] - above - height
    first = row * stride - above
    start = jnp.clip(first, 0, max(0, height - read))
    band = lax.dynamic_slice_in_dim(band, start, min(read, height), axis)
    if above <= 0 and below <= 0:
        return band
    above = max(0, above)
    around = [(above, max(0, below), 0) if at == axis else (0, 0, 0) for at in range(x.ndim)]
    band = lax.pad(band, jnp.zeros((), x.dtype), around)
    return lax.dynamic_slice_in_dim(band, first - start + above, read, axis)


def _not_yet_seen(g: jax.Array, i: jax.Array | int, spec: ConvSpec, part: ConvSpec) -> jax.Array:
    """g, with zeros for the rows that earlier bands have summed, since the last band starts early here too.
    (If it ended late, zeros past the end of g would meet rows of x that no output sees, and 0·NaN is NaN.)"""
    if not any(whole % cut for whole, cut in zip(spec.y_shape[:2], part.y_shape[:2], strict=True)):
        return g
    (first, top), (n, row) = due(i, spec, part), begins(i, spec, part)
    images, rows = n + jnp.arange(part.batch), row + jnp.arange(part.out_spatial[0])
    is_new = (images >= first)[:, None] & (rows >= top)
    return jnp.where(is_new.reshape(*is_new.shape, *[1] * spec.ndim), g, 0)
