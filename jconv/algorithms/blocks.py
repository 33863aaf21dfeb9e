"""Cutting a convolution into bands of output rows, so that temporaries stay under a bound.

A band of rows of the output needs a band of the input: `rows` outputs read
(rows − 1)·stride + window inputs.  The batch stays whole in every band, so that a batch split over
devices stays split; it is cut only where one row of the whole batch is too large already.

A buffer above 32 MiB is mapped afresh at every execution on CPU, 0.27 ms per MiB (2026-11, glibc's
mmap threshold); 8 MiB also leaves room for operands in a 32 MiB last-level cache.
"""

from __future__ import annotations

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
    """compute(x band) → y band, for every band, joined."""
    x, batches, bands = _cut(x, spec, part)

    def one(i: jax.Array) -> jax.Array:
        band = _input(x, i // bands, i % bands * part.out_spatial[0], spec, part)
        return compute(band).reshape(part.y_shape)

    y = lax.map(one, jnp.arange(batches * bands)).reshape(batches, bands, *part.y_shape)
    # (batches, bands, n, rows, …) → (batches·n, bands·rows, …)
    y = jnp.moveaxis(y, 1, 2).reshape(batches * part.batch, -1, *part.y_shape[2:])
    return lax.slice(y, (0,) * y.ndim, spec.y_shape)


def grad_kernel(compute: Callable, x: jax.Array, g: jax.Array, spec: ConvSpec, part: ConvSpec) -> jax.Array:
    """compute(x band, g band) → ∂w, summed over the bands."""
    x, batches, bands = _cut(x, spec, part)
    rows = part.out_spatial[0]
    g = jnp.pad(g, [(0, batches * part.batch - spec.batch), *[(0, 0)] * (g.ndim - 1)])

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        # The last band starts early rather than end late, its rows that are done already as zeros: zero
        # gradients past the end would make NaNs of rows of x that no output sees through that tap.
        first = i % bands * rows
        row = jnp.minimum(first, spec.out_spatial[0] - rows)
        piece = lax.dynamic_slice(g, (i // bands * part.batch, row, *[0] * (g.ndim - 2)), part.y_shape)
        is_new = (row + jnp.arange(rows) >= first).reshape(-1, *[1] * (g.ndim - 2))
        band = _input(x, i // bands, row, spec, part)
        return total + compute(band, jnp.where(is_new, piece, 0)).reshape(total.shape)

    return lax.fori_loop(0, batches * bands, add, jnp.zeros(spec.w_shape, spec.accumulator))


def _cut(x: jax.Array, spec: ConvSpec, part: ConvSpec) -> tuple[jax.Array, int, int]:
    """x padded to a whole number of bands, and how many there are of batches and bands."""
    batches = -(-spec.batch // part.batch)
    bands = -(-spec.out_spatial[0] // part.out_spatial[0])
    x = pad(x, spec)
    rows = (bands * part.out_spatial[0] - 1) * spec.strides[0] + spec.window[0]
    more = [(0, batches * part.batch - spec.batch), (0, rows - x.shape[1])]
    return jnp.pad(x, more + [(0, 0)] * (x.ndim - 2)), batches, bands


def _input(x: jax.Array, batch: jax.Array, row: jax.Array, spec: ConvSpec, part: ConvSpec) -> jax.Array:
    """What the band that begins at a row of the output reads."""
    start: tuple[jax.Array | int, ...] = (batch * part.batch, row * spec.strides[0], *[0] * (x.ndim - 2))
    return lax.dynamic_slice(x, start, part.x_shape)
