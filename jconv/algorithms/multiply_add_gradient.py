"""The kernel gradient of multiply-add: the same products, summed over all positions.

    ∂w[r, c, g, o] = Σ_{n, p}  x̃[n, r + p·stride, g, c] · g[n, p, g, o]

A reduction over the leading axes is not vectorised on CPU, so up to 16 rows are added up as written-out sums
first and the compiler reduces what is left, 15 times as fast.  Kernels of many taps are summed in a loop over
blocks of taps, which compiles and runs faster.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms.pieces import (
    CACHED,
    IN_CACHE,
    REUSED,
    kept,
    repeated,
    some_images,
    summed,
    tap_block,
    taps_from,
)
from jconv.algorithms.record import Loop, Step
from jconv.algorithms.windows import pad, padded_bytes, tap
from jconv.spec import ConvSpec

STACKED = 8  # taps side by side in one loop
ROWS = 16  # rows added up before the compiler reduces
TAPS = 36  # taps and channels of which so many sums are written out: most a second of compiling


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w: for each tap and channel its view of x times g, summed over all positions.

    x and g are read once per row of taps, so large ones are taken a few images at a time, which stay in
    cache.
    """
    part = _part(spec)
    whole, some = (one.replace(channels_first=False) for one in (spec, part))  # which is how it reads them
    return summed(lambda x, g: _of_images(x, g, part), x, g, whole, some)


def _part(spec: ConvSpec) -> ConvSpec:
    """The spec of as many images as are taken at a time: all, as a loop over some takes half as long again,
    or where these would be mapped afresh, as many as stay in cache."""
    size = spec.wide.image_bytes
    if not isinstance(size, int) or size <= REUSED:
        return spec
    return some_images(spec, size, CACHED)


def _of_images(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    x, g = x.astype(spec.accumulator), g.astype(spec.accumulator)
    block, padded = tap_block(spec, TAPS), pad(x, spec)
    if block.kernel == spec.kernel:
        return _written_out_kernel(kept(padded), g, spec)
    count = -(-spec.kernel[0] // block.kernel[0])
    beyond = (count * block.kernel[0] - spec.kernel[0]) * spec.rhs_dilation[0]  # what the last block may read
    padded = jnp.pad(padded, [(0, 0), (0, beyond), *[(0, 0)] * spec.ndim])
    blocks = lax.map(
        lambda i: _written_out_kernel(taps_from(i * block.kernel[0], padded, spec, block), g, block),
        jnp.arange(count),
    )
    return blocks.reshape(-1, *spec.w_shape[1:])[: spec.kernel[0]]


def _written_out_kernel(padded: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    g = g.reshape(*spec.y_shape[:-1], spec.groups, spec.o)
    padded = padded.reshape(*padded.shape[:-1], spec.groups, spec.c)
    pieces = _pieces(g, spec)
    along = max((d for d, size in enumerate(spec.kernel) if size > 1), default=0)
    channels = [padded[..., c] for c in range(spec.c)]
    rows = itertools.product(*map(range, spec.kernel[:along]))
    w = jnp.stack([_row_of_taps(channel, row, pieces, spec) for row in rows for channel in channels])
    w = w.reshape(*spec.kernel[:along], spec.c, spec.kernel[along], spec.out_channels)
    return jnp.swapaxes(w, -3, -2)


def _row_of_taps(
    x: jax.Array, row: Sequence[int], pieces: list[tuple[int, jax.Array]], spec: ConvSpec
) -> jax.Array:
    """∂w of the taps along one kernel axis, the later ones being of length 1: (r, g, o).

    Neighbouring taps are stacked, so that one loop reads the same rows of x and g for them while these are in
    cache.
    """
    taps = spec.kernel[len(row)]
    count = -(-taps // -(-taps // STACKED))  # stacks of nearly equal height: no tap is left alone
    parts = []
    for first in range(0, taps, count):
        some = [(*row, r, *[0] * (spec.ndim - len(row) - 1)) for r in range(first, min(first + count, taps))]
        parts.append(_side_by_side([tap(x, at, spec) for at in some], pieces, spec))
    return jnp.concatenate(parts)


def _side_by_side(views: list[jax.Array], pieces: list[tuple[int, jax.Array]], spec: ConvSpec) -> jax.Array:
    """Each view times g, summed over all positions: (views, g, o).

    The stack is written to memory before it is reduced, since otherwise the compiler does not vectorise, 25
    times as slow.  For a lone view, the stack is of two sums, each over every other piece.
    """
    halves = [pieces] if len(views) > 1 else [pieces[::2], pieces[1::2]]
    sums = jnp.stack([_summed(view, half) for view in views for half in halves if half], axis=-3)
    sums = lax.optimization_barrier(sums).sum(tuple(range(spec.ndim + 1)))
    return sums if len(views) > 1 else sums.sum(0, keepdims=True)


def _pieces(g: jax.Array, spec: ConvSpec) -> list[tuple[int, jax.Array]]:
    """g in pieces of equally many rows, and where each begins.

    The last begins early, with zeros for its rows that another piece has.  If it ended late, zeros past the
    end would meet rows of x that no output sees, and 0·NaN is NaN.
    """
    height = spec.out_spatial[0]
    rows = -(-height // rows_added(spec))
    pieces = [(at, g[:, at : at + rows]) for at in range(0, height - rows + 1, rows)]
    if missing := height % rows:
        last = jnp.pad(g[:, height - missing :], [(0, 0), (rows - missing, 0), *[(0, 0)] * (g.ndim - 2)])
        pieces.append((height - rows, last))
    return pieces


def _summed(view: jax.Array, pieces: list[tuple[int, jax.Array]]) -> jax.Array:
    """Σ over the pieces of view times g, written out: (n, rows of a piece, *p[1:], g, o).

    Each piece is cut before the axis o is added: XLA merges two slices that follow each other, but with a
    reshape between them it writes out the whole view, once per tap.
    """
    cut = ((lax.slice_in_dim(view, at, at + g.shape[1], axis=1), g) for at, g in pieces)
    return functools.reduce(lax.add, (lax.expand_dims(part, [part.ndim]) * g for part, g in cut))


def rows_added(spec: ConvSpec) -> int:
    """How many rows to add up: as even a cut of the output's rows as ROWS allows."""
    height = spec.out_spatial[0]
    return -(-height // -(-height // ROWS))


def steps(spec: ConvSpec) -> tuple[Step, ...]:
    """For each piece a copy with the padding, and one loop per stack of taps, at half the rate, as no sum is
    kept in a register."""
    part = _part(spec)
    return repeated(_steps_of_images(part), spec, part)


def _steps_of_images(spec: ConvSpec) -> tuple[Step, ...]:
    block, wide = tap_block(spec, TAPS), spec.wide
    count, run = -(-spec.kernel[0] // block.kernel[0]), 4 if spec.channels_first else spec.out_channels
    partial = block.taps * spec.c * wide.y_bytes // rows_added(spec)
    stacks = math.prod(block.kernel[:-1]) * -(-block.kernel[-1] // STACKED)
    each = Loop(2 * block.flops / stacks, wide.image_bytes + partial / stacks, run, count=stacks * count)
    return Loop(0, 2 * padded_bytes(spec), run), each, Loop(0, 2 * partial, run, count=count)


def workspace(spec: ConvSpec) -> int:
    """Bytes of the padded copy of x, where it is kept, and of the sums of rows."""
    part = _part(spec)
    if spec.has_gaps:  # zeros between the inputs are always written out
        return padded_bytes(part)
    x, y = part.wide.x_bytes, part.wide.y_bytes
    sums = tap_block(spec, TAPS).taps * spec.c * (y // rows_added(spec))
    return (x if x <= IN_CACHE else 0) + sums
