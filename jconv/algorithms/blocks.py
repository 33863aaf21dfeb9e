"""Cutting a convolution into bands of output rows, so that temporaries stay under a bound.

A band of rows of the output needs a band of the input: `rows` outputs read
(rows − 1)·stride + window inputs.  The batch stays whole in every band, so that a batch split over
devices stays split; it is cut only where one row of the whole batch is too large already.

A buffer above 32 MiB is mapped afresh at every execution on CPU, 0.27 ms per MiB (2026-11, glibc's
mmap threshold); 8 MiB also leaves room for operands in a 32 MiB last-level cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms.windows import pad
from jconv.spec import ConvSpec

BOUND = 8 << 20


def band(spec: ConvSpec, bytes_total: int, bound: int = BOUND) -> ConvSpec:
    """The largest band of rows, of as equal bands as can be, whose share of `bytes_total` fits."""
    if not spec.ndim or not all(isinstance(size, int) for size in (spec.batch, bytes_total)):
        return spec  # a size that only a run will tell
    count = -(-bytes_total // bound)
    height = spec.out_spatial[0]
    rows = -(-height // min(count, height))
    batch = spec.batch if count <= height else max(1, spec.batch * height // count)
    return spec if rows == height and batch == spec.batch else _band_of(spec, batch, rows)


def _band_of(spec: ConvSpec, batch: int, rows: int) -> ConvSpec:
    read = (rows - 1) * spec.strides[0] + spec.window[0]
    rest = [
        (p - 1) * s + K
        for p, s, K in zip(spec.out_spatial[1:], spec.strides[1:], spec.window[1:], strict=True)
    ]
    return spec.replace(
        batch=batch, spatial=(read, *rest), padding=((0, 0),) * spec.ndim, lhs_dilation=(1,) * spec.ndim
    )


def forward(compute: Callable, x: jax.Array, spec: ConvSpec, part: ConvSpec) -> jax.Array:
    """compute(x band) → y band, for every band, written where it belongs in y.

    The last band starts early rather than end late: what it computes twice comes out the same.
    """
    x = pad(x, spec)

    def one(i: jax.Array, y: jax.Array) -> jax.Array:
        n, row = begins(i, spec, part)
        band = compute(_input(x, n, row, spec, part)).reshape(part.y_shape).astype(y.dtype)
        return lax.dynamic_update_slice(y, band, (n, row, *[0] * spec.ndim))

    return lax.fori_loop(0, math.prod(counts(spec, part)), one, jnp.zeros(spec.y_shape, spec.accumulator))


def grad_kernel(compute: Callable, x: jax.Array, g: jax.Array, spec: ConvSpec, part: ConvSpec) -> jax.Array:
    """compute(x band, g band) → ∂w, summed over the bands.

    The last band starts early here too, what is done already as zeros of g: zero gradients past the end
    would make NaNs of rows of x that no output sees through that tap.
    """
    x, rows = pad(x, spec), part.out_spatial[0]

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        (first, top), (n, row) = due(i, spec, part), begins(i, spec, part)
        piece = lax.dynamic_slice(g, (n, row, *[0] * (g.ndim - 2)), part.y_shape)
        is_new = ((n + jnp.arange(part.batch)) >= first)[:, None] & ((row + jnp.arange(rows)) >= top)
        piece = jnp.where(is_new.reshape(part.batch, rows, *[1] * (g.ndim - 2)), piece, 0)
        return total + compute(_input(x, n, row, spec, part), piece).reshape(total.shape)

    return lax.fori_loop(0, math.prod(counts(spec, part)), add, jnp.zeros(spec.w_shape, spec.accumulator))


def counts(spec: ConvSpec, part: ConvSpec) -> tuple[int, int]:
    """How many parts the batch is cut into, and how many bands the rows."""
    return -(-spec.batch // part.batch), -(-spec.out_spatial[0] // part.out_spatial[0])


def due(i: jax.Array, spec: ConvSpec, part: ConvSpec) -> tuple[jax.Array, jax.Array]:
    """The image and the output row up to which everything is done when part i begins."""
    bands = counts(spec, part)[1]
    return i // bands * part.batch, i % bands * part.out_spatial[0]


def begins(i: jax.Array, spec: ConvSpec, part: ConvSpec) -> tuple[jax.Array, jax.Array]:
    """The first image and output row of part i: where it is due, the last ones early enough to fit."""
    (n, row), rows = due(i, spec, part), part.out_spatial[0]
    return jnp.minimum(n, spec.batch - part.batch), jnp.minimum(row, spec.out_spatial[0] - rows)


def _input(x: jax.Array, n: jax.Array, row: jax.Array, spec: ConvSpec, part: ConvSpec) -> jax.Array:
    """What the band that begins at a row of the output reads of the padded x."""
    return lax.dynamic_slice(x, (n, row * spec.strides[0], *[0] * (x.ndim - 2)), part.x_shape)
