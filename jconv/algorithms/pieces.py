"""Pieces: a convolution cut so that its temporaries stay under a limit.

    images   are independent in x and y, and ∂w is a sum over them
    rows     of the output, where one image is too large: `rows` of them read (rows − 1)·stride + window of x
    taps     of a kernel too long to be written out in one loop, which then takes a second to compile

Every algorithm that cuts its work does so here: `cut` says how, `mapped` and `summed` loop over the pieces.
A last piece that would not fit starts early instead of ending late.  What it computes twice comes out the
same in y, and is left out of ∂w.  `in_pieces` runs any algorithm some images at a time.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms.record import Algorithm, Loop, Repeated, Step, always, evaluate, refuses
from jconv.algorithms.windows import resized
from jconv.algorithms.work import steps_inside
from jconv.algorithms.work import workspace as workspace_of
from jconv.spec import ConvSpec, Role, extent

# The limits, in bytes.
CACHED = 4 << 20  # what the second-level caches of two cores hold
IN_CACHE = 8 << 20  # leaves room for the operands in a last-level cache of 32 MiB
REUSED = 24 << 20  # a buffer above 32 MiB (glibc's mmap threshold) is mapped afresh at every call on CPU


def cut(spec: ConvSpec, size: int, most: int = IN_CACHE, multiple: int = 1) -> ConvSpec:
    """The spec of one of the fewest, equal pieces whose share of `size` bytes is at most `most`: some images,
    or some rows, a multiple of `multiple`, of one."""
    if not spec.ndim or not all(isinstance(known, int) for known in (spec.batch, size)) or size <= most:
        return spec
    if most * spec.batch >= size:
        return some_images(spec, size, most)
    height = spec.out_spatial[0]
    units = -(-height // multiple)
    return piece(spec, 1, min(height, multiple * equal(units, most * spec.batch * units // size)))


def some_images(spec: ConvSpec, size: int, most: int) -> ConvSpec:
    """The spec of as many images at a time, but no less than one, whose share of `size` bytes is at most
    `most`."""
    return spec.replace(batch=equal(spec.batch, most * spec.batch // size))


def equal(total: int, most: int) -> int:
    """The size of few pieces of at most `most` that are little more than `total` together.

    >>> equal(12, 5), equal(7, 6), equal(3, 2), equal(10**6, 0)
    (4, 4, 1, 1)
    """
    fewest = -(-total // max(1, min(most, total)))
    counts = range(fewest, min(2 * fewest, fewest + 16))
    return -(-total // min(counts, key=lambda count: count * -(-total // count)))


def piece(spec: ConvSpec, images: int, rows: int) -> ConvSpec:
    """The spec that computes so many images and rows of the output.  Its input rows contain their padding;
    what computes them pads the other axes."""
    if rows == spec.out_spatial[0]:
        return spec.replace(batch=images)
    return spec.replace(
        batch=images,
        spatial=((rows - 1) * spec.strides[0] + spec.window[0], *spec.spatial[1:]),
        padding=((0, 0), *spec.padding[1:]),
        lhs_dilation=(1, *spec.lhs_dilation[1:]),
    )


def workspace(spec: ConvSpec, part: ConvSpec) -> int:
    """Bytes of one piece's x and y, which come on top of the temporaries of what computes it."""
    return 0 if part == spec else part.image_bytes


def passes(spec: ConvSpec, part: ConvSpec, at_once: int) -> int:
    """How often the bytes that a piece copies go through memory: in a loop more often, and halves most
    often, as XLA:CPU rounds every value to halves and back after each slice there."""
    if part == spec:
        return at_once
    return 16 if spec.is_half else 6


def repeated(steps: tuple[Step, ...], spec: ConvSpec, part: ConvSpec) -> tuple[Step, ...]:
    """The steps of one piece, and copying what it reads and writes, for every piece."""
    if part == spec:
        return steps
    return (Repeated((*steps, Loop(0, 2 * part.image_bytes)), math.prod(counts(spec, part))),)


def mapped(compute: Callable, x: jax.Array, spec: ConvSpec, part: ConvSpec) -> jax.Array:
    """y, every piece of which is compute(its part of x).

    Here and below the arrays are cut as the spec says they lie: in the loop a transposition would not cancel
    the door's.
    """
    if part == spec:
        return compute(x)
    x, spec = _without_gaps(x, spec, part)
    c, height = _lies(spec)
    x = jnp.moveaxis(x, -1, c)

    def one(i: jax.Array, y: jax.Array) -> jax.Array:
        n, row = _begins(i, spec, part)
        seen = jnp.moveaxis(_input(x, n, row, spec, part, height), c, -1)
        done = jnp.moveaxis(compute(seen).reshape(part.y_shape).astype(y.dtype), -1, c)
        return lax.dynamic_update_slice(y, done, [{0: n, height: row}.get(axis, 0) for axis in range(y.ndim)])

    y = jnp.moveaxis(jnp.zeros(spec.y_shape, spec.y_dtype), -1, c)
    return jnp.moveaxis(lax.fori_loop(0, math.prod(counts(spec, part)), one, y), c, -1)


def summed(compute: Callable, x: jax.Array, g: jax.Array, spec: ConvSpec, part: ConvSpec) -> jax.Array:
    """The sum over all pieces of compute(x, g), which is ∂w or something ∂w is linear in."""
    if part == spec:
        return compute(x, g)
    x, spec = _without_gaps(x, spec, part)
    c, height = _lies(spec)
    x, g = jnp.moveaxis(x, -1, c), jnp.moveaxis(g, -1, c)

    def one(i: jax.Array | int) -> jax.Array:
        n, row = _begins(i, spec, part)
        seen = lax.dynamic_slice_in_dim(g, n, part.batch)
        seen = lax.dynamic_slice_in_dim(seen, row, part.y_shape[1], height)
        seen = _not_yet_seen(jnp.moveaxis(seen, c, -1), i, spec, part)
        return compute(jnp.moveaxis(_input(x, n, row, spec, part, height), c, -1), seen)

    total = jax.eval_shape(one, 0)
    zeros = jnp.zeros(total.shape, total.dtype)
    return lax.fori_loop(0, math.prod(counts(spec, part)), lambda i, total: total + one(i), zeros)


def counts(spec: ConvSpec, part: ConvSpec) -> tuple[int, int]:
    """How many pieces the batch is cut into, and how many the rows."""
    (n, height), (images, rows) = spec.y_shape[:2], part.y_shape[:2]
    return -(-n // images), -(-height // rows)


def due(i: jax.Array | int, spec: ConvSpec, part: ConvSpec) -> tuple[jax.Array | int, jax.Array | int]:
    """The image and the output row up to which everything is done when piece i begins."""
    bands = counts(spec, part)[1]
    image, band = (i, 0) if bands == 1 else (i // bands, i % bands)
    return image * part.batch, band * part.y_shape[1]


def _begins(i: jax.Array | int, spec: ConvSpec, part: ConvSpec) -> tuple[jax.Array, jax.Array]:
    """The first image and output row of piece i: where it is due, or earlier if it would not fit there."""
    (n, row), (images, rows) = due(i, spec, part), part.y_shape[:2]
    return jnp.minimum(n, spec.batch - images), jnp.minimum(row, spec.y_shape[1] - rows)


def _lies(spec: ConvSpec) -> tuple[int, int]:
    """Which axes of x and y in memory are the channels and the rows."""
    return (1, 2) if spec.channels_first and spec.ndim else (-1, 1)


def _without_gaps(x: jax.Array, spec: ConvSpec, part: ConvSpec) -> tuple[jax.Array, ConvSpec]:
    """x and its spec, with the zeros between dilated rows written out if bands of rows are cut from them."""
    if part.lhs_dilation == spec.lhs_dilation:
        return x, spec
    x = resized(x, [(0, 0, spec.lhs_dilation[0] - 1)])
    return x, spec.replace(spatial=x.shape[1:-1], lhs_dilation=part.lhs_dilation)


def _input(
    x: jax.Array, n: jax.Array, row: jax.Array, spec: ConvSpec, part: ConvSpec, axis: int = 1
) -> jax.Array:
    """What the piece that starts at an image and an output row reads of x, along its axis of rows.
    Rows beyond x are padded to the piece as zeros, since padding x would copy all of it."""
    seen = lax.dynamic_slice_in_dim(x, n, part.batch)
    if part.y_shape[1] == spec.y_shape[1]:
        return seen
    stride, height, read = spec.strides[0], x.shape[axis], part.spatial[0]
    above = spec.padding[0][0]
    below = (spec.out_spatial[0] - 1) * stride + spec.window[0] - above - height
    first = row * stride - above
    start = jnp.clip(first, 0, max(0, height - read))
    seen = lax.dynamic_slice_in_dim(seen, start, min(read, height), axis)
    if above <= 0 and below <= 0:
        return seen
    above = max(0, above)
    seen = resized(seen, [(above, max(0, below), 0)], axis, in_order=True)
    return lax.dynamic_slice_in_dim(seen, first - start + above, read, axis)


def _not_yet_seen(g: jax.Array, i: jax.Array | int, spec: ConvSpec, part: ConvSpec) -> jax.Array:
    """g, with zeros for what earlier pieces have summed.  (If the last piece ended late, zeros past the end
    of g would meet rows of x that no output sees, and 0·NaN is NaN.)"""
    if not any(whole % cut for whole, cut in zip(spec.y_shape[:2], part.y_shape[:2], strict=True)):
        return g
    (first, top), (n, row) = due(i, spec, part), _begins(i, spec, part)
    images, rows = n + jnp.arange(part.batch), row + jnp.arange(part.y_shape[1])
    is_new = (images >= first)[:, None] & (rows >= top)
    return jnp.where(is_new.reshape(*is_new.shape, *[1] * spec.ndim), g, 0)


def in_pieces(inner: Algorithm, role: Role, images: int) -> Algorithm:
    """The algorithm that runs `inner` for one role, so many images at a time."""

    def how(a: jax.Array, b: jax.Array, spec: ConvSpec) -> jax.Array:
        part = spec.replace(batch=images)
        if role == "grad_kernel":
            wide, last = part.replace(w_dtype=spec.accumulator), spec.replace(channels_first=False)
            return summed(lambda x, g: evaluate(inner, role, x, g, wide), a, b, last, part)
        around = spec if role == "forward" else spec.as_grad_input()
        inside = around.replace(batch=images)
        return mapped(lambda a: evaluate(inner, role, a, b, part), a, around, inside)

    def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
        part = spec.replace(batch=images)
        return repeated(steps_inside(inner, role, part), spec, part)

    def workspace(spec: ConvSpec, role: Role) -> int:
        part = spec.replace(batch=images)
        return part.image_bytes + workspace_of(inner, role, part)

    own: dict[str, Any] = {"forward": inner.forward, "grad_input": None, "grad_kernel": None, role: how}
    return dataclasses.replace(
        inner, rejects=lambda spec: refuses(inner, role, spec), steps=steps, workspace=workspace,
        own=always, forms=(), **own,
    )  # fmt: skip


def tap_block(spec: ConvSpec, most: int) -> ConvSpec:
    """The spec of one block of taps along the first kernel axis, with at most `most` products per output
    but no less than a row of taps."""
    inner = math.prod(spec.kernel[1:]) * spec.c
    taps = max(1, min(spec.kernel[0], most // inner))
    if taps * inner >= spec.taps * spec.c:
        return spec
    count = -(-spec.kernel[0] // taps)
    kernel = (-(-spec.kernel[0] // count), *spec.kernel[1:])
    sizes = zip(spec.out_spatial, spec.strides, kernel, spec.rhs_dilation, strict=True)
    spatial = tuple((p - 1) * s + extent(k, d) for p, s, k, d in sizes)
    none = ((0, 0),) * spec.ndim
    return spec.replace(kernel=kernel, spatial=spatial, padding=none, lhs_dilation=(1,) * spec.ndim)


def taps_from(tap: jax.Array, x: jax.Array, spec: ConvSpec, block: ConvSpec) -> jax.Array:
    """What the block that begins at row `tap` of the kernel reads of the padded x."""
    return lax.dynamic_slice_in_dim(x, tap * spec.rhs_dilation[0], block.spatial[0], axis=1)


def kept(padded: jax.Array) -> jax.Array:
    """The padded input as a copy of its own, so that the loop has no borders to test for; a large one
    is padded inside the loop, since fresh memory costs more than the test."""
    known = isinstance(padded.size, int)  # not in an export with a symbolic batch
    small = known and padded.size * padded.dtype.itemsize <= IN_CACHE
    return lax.optimization_barrier(padded) if small else padded
