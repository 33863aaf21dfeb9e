"""Multiply-add over taps and channels: no matrix product at all.

    y[n, p, g, o] = Σ_r Σ_c  x̃[n, r + p·stride, g, c] · w[r, c, g, o]      one fused loop, c unrolled

With one channel per group (depthwise) there is nothing for a GEMM to do: every value of x meets k
weights.  The sum is written out, and the compiler makes one vectorised loop of it whose inner axis is
the channels.  Cost: 2·taps·c flops per output, x read from cache.  Wins for depthwise, for groups of
two to eight channels and for images of one to three channels; loses once c can fill a GEMM.

Small kernels meet their padding without a padded copy of x: the outputs fall into *regions* that see
the same taps (for 3×3 nine of them: corners, edges, inside), each a sum of its own, and the compiler
joins them in one loop.  3×3, 144 channels, 56²: 0.16 ms instead of 0.25, PyTorch 0.13; batch 8: 1.3
instead of 2.7, PyTorch 1.5 (2026-11, jax 0.10, AMD EPYC, 2 cores).

grad_kernel sums over all positions.  A reduction over the leading axes is not vectorised on CPU
(2026-11, jax 0.10, AMD EPYC: 14.8 ms for 7×7, 96 channels, 56²), so up to 16 rows are added up as
written-out sums first and the compiler reduces what is left: 0.95 ms.  What lost there: a dot product
per tap and channel (23 ms), blocks of 8 channels as a GEMM of which the diagonal is kept (22 ms).

Kernels of many taps are not written out whole but in blocks, in a loop, so that they compile in a
second: 961 taps at once took 2.3 s, and a kernel gradient of 7×7 taps 1.5 s; that one runs the faster
for it (8×28², 192 channels: 4 ms by rows of taps, 18 in one).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithm import Algorithm, Loop, Step, always
from jconv.algorithms import regions
from jconv.algorithms.windows import pad, padded_bytes, positions, tap
from jconv.spec import ConvSpec, Ints, Role, extent, itemsize

WRITTEN_OUT = 64  # products per fused loop: 49 compile in 0.3 s
SUMMED_UP = 150  # products of a kernel gradient's loop: 7×7 compiles in 0.3 s by rows, in 1.5 s at once
IN_REGIONS = 200  # products of all regions: they compile in 0.8 s, 361 in 1.0 s, 1369 in 5 s
SMALL = 8 << 20  # bytes
LARGE = 32 << 20  # bytes
STACKED = 8  # taps side by side in one loop of a kernel gradient
ROWS = 16  # rows added up before the compiler reduces


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """The sum over taps and channels, in blocks of taps along the first kernel axis."""
    x, w = x.astype(spec.accumulator), w.astype(spec.accumulator)
    if by_region(spec):
        return _by_region(x, w, spec)
    block = _block(spec)
    if block.kernel == spec.kernel:
        return _written_out(_kept(pad(x, spec)), w, spec)
    x, height = pad(x, spec), block.kernel[0]

    def add(i: jax.Array, y: jax.Array) -> jax.Array:
        # The last block starts early rather than end late, its rows that are done already as zeros: a
        # zero tap outside the kernel would make NaNs of what no output sees.
        start = jnp.minimum(i * height, spec.kernel[0] - height)
        taps = lax.dynamic_slice_in_dim(w, start, height)
        is_new = (start + jnp.arange(height) >= i * height).reshape(-1, *[1] * (w.ndim - 1))
        return y + _written_out(_block_of(x, start, spec, block), jnp.where(is_new, taps, 0), block)

    return lax.fori_loop(0, -(-spec.kernel[0] // height), add, jnp.zeros(spec.y_shape, x.dtype))


def _kept(padded: jax.Array) -> jax.Array:
    """The padded input as a copy of its own, so that the loop has no borders to test for; a large one
    is padded inside the loop, since fresh memory costs more than the test."""
    known = isinstance(padded.size, int)  # not in an export with a symbolic batch
    small = known and padded.size * padded.dtype.itemsize <= SMALL
    return lax.optimization_barrier(padded) if small else padded


def _written_out(padded: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    return _sum_of_products([(tap(padded, at, spec), at) for at in positions(spec)], w, spec)


def _sum_of_products(views: list[tuple[jax.Array, Ints]], w: jax.Array, spec: ConvSpec) -> jax.Array:
    """Σ over taps and channels of the tap's view (n, *p, g·c) times its weights: (n, *p, g·o)."""
    w = w.reshape(*spec.kernel, spec.c, spec.groups, spec.o)
    separate = (*views[0][0].shape[:-1], spec.groups, spec.c)
    products = [view.reshape(separate)[..., c, None] * w[at][c] for view, at in views for c in range(spec.c)]
    return functools.reduce(jnp.add, products).reshape(*separate[:-2], spec.out_channels)


def by_region(spec: ConvSpec) -> bool:
    """Whether there is padding to meet, in so few regions that their products can be written out."""
    return spec.c * regions.taps(spec) <= IN_REGIONS


def written_out(spec: ConvSpec) -> float:
    """Products in the one loop that `forward` compiles to."""
    return spec.c * (regions.taps(spec) if by_region(spec) else _block(spec).taps)


def _by_region(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    def compute(region: regions.Region) -> jax.Array:
        if views := regions.views(x, region, spec):
            return _sum_of_products(views, w, spec)
        return jnp.zeros((spec.batch, *(run.count for run in region), spec.out_channels), x.dtype)

    return regions.joined(compute, spec)


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """Per tap and channel: its view of x times g, summed over all positions.

    x and g are read once per tap, so large ones are taken a few images at a time, which stay in cache:
    16 images of 112², 32 channels take 34 ms in one piece, 8 ms one by one, 21 ms in bands of rows.
    Below that the loop costs more than it gains.
    """
    images = _images_at_a_time(spec)
    if images == spec.batch:
        return _of_images(x, g, spec)
    part = spec.replace(batch=images)

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        some_x, some_g = (lax.dynamic_slice_in_dim(a, i * images, images) for a in (x, g))
        return total + _of_images(some_x, some_g, part)

    return lax.fori_loop(0, spec.batch // images, add, jnp.zeros(spec.w_shape, spec.accumulator))


def _images_at_a_time(spec: ConvSpec) -> int:
    size = (math.prod(spec.x_shape) + math.prod(spec.y_shape)) * itemsize(spec.accumulator)
    if not isinstance(size, int) or size <= LARGE:
        return spec.batch
    few = max(1, spec.batch * SMALL // size)
    return next(images for images in range(few, 0, -1) if spec.batch % images == 0)


def _of_images(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    x, g = x.astype(spec.accumulator), g.astype(spec.accumulator)
    block = _block(spec, "grad_kernel")
    if block.kernel == spec.kernel:
        return _written_out_kernel(_kept(pad(x, spec)), g, spec)
    x, count = _padded_to_blocks(x, spec, block)
    blocks = lax.map(
        lambda i: _written_out_kernel(_block_of(x, i * block.kernel[0], spec, block), g, block),
        jnp.arange(count),
    )
    return blocks.reshape(-1, *spec.w_shape[1:])[: spec.kernel[0]]


def _written_out_kernel(padded: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    g = g.reshape(*spec.y_shape[:-1], spec.groups, spec.o)
    padded = padded.reshape(*padded.shape[:-1], spec.groups, spec.c)
    pieces = _pieces(g, spec)
    rows = itertools.product(*map(range, spec.kernel[:-1]), range(spec.c))
    w = jnp.stack([_row_of_taps(padded[..., c], row, pieces, spec) for *row, c in rows])
    w = w.reshape(*spec.kernel[:-1], spec.c, spec.kernel[-1], spec.out_channels)
    return jnp.swapaxes(w, -3, -2)


def _row_of_taps(
    x: jax.Array, row: Sequence[int], pieces: list[tuple[int, jax.Array]], spec: ConvSpec
) -> jax.Array:
    """∂w of the taps along the last kernel axis: (s, g, o).

    Stacked side by side behind the positions, neighbouring taps read the same rows of x and g while these
    are in cache: 5×5, 192 channels, 28² 0.42 ms, 1.17 with a loop for each (2026-11, jax 0.10, Intel Xeon).
    """
    taps = range(spec.kernel[-1])
    parts = []
    for first in taps[::STACKED]:
        sums = [_summed(tap(x, (*row, s), spec), pieces) for s in taps[first : first + STACKED]]
        stacked = lax.optimization_barrier(jnp.stack(sums, axis=-3))
        parts.append(stacked.sum(tuple(range(spec.ndim + 1))))
    return jnp.concatenate(parts)


def _pieces(g: jax.Array, spec: ConvSpec) -> list[tuple[int, jax.Array]]:
    """g in pieces of equally many rows, and where each begins.

    The last begins early rather than end late, its rows that were there already as zeros: zeros past the
    end would make NaNs of rows of x that no output sees.
    """
    height = spec.out_spatial[0]
    rows = -(-height // _rows(spec))
    pieces = [(at, g[:, at : at + rows]) for at in range(0, height - rows + 1, rows)]
    if missing := height % rows:
        last = jnp.pad(g[:, height - missing :], [(0, 0), (rows - missing, 0), *[(0, 0)] * (g.ndim - 2)])
        pieces.append((height - rows, last))
    return pieces


def _summed(view: jax.Array, pieces: list[tuple[int, jax.Array]]) -> jax.Array:
    """Σ over the pieces of view times g, written out: (n, rows of a piece, *p[1:], g, o).

    The piece is cut before the axis o is added: XLA makes one of two slices that follow each other, but
    with a reshape between them it writes the whole view out, once per tap.
    """
    return functools.reduce(jnp.add, (view[:, at : at + g.shape[1]][..., None] * g for at, g in pieces))


def _rows(spec: ConvSpec) -> int:
    """How many rows to add up: as even a cut of the output's rows as ROWS allows."""
    height = spec.out_spatial[0]
    return -(-height // -(-height // ROWS))


# -- blocks of taps --------------------------------------------------------------------------------


def _block(spec: ConvSpec, role: Role = "forward") -> ConvSpec:
    """The part of the problem that one block of taps along the first kernel axis is."""
    inner = math.prod(spec.kernel[1:]) * spec.c
    most = WRITTEN_OUT if role == "forward" else SUMMED_UP // _rows(spec)
    taps = max(1, min(spec.kernel[0], most // inner))
    if taps * inner >= spec.taps * spec.c:
        return spec
    count = -(-spec.kernel[0] // taps)
    kernel = (-(-spec.kernel[0] // count), *spec.kernel[1:])
    sizes = zip(spec.out_spatial, spec.strides, kernel, spec.rhs_dilation, strict=True)
    spatial = tuple((p - 1) * s + extent(k, d) for p, s, k, d in sizes)
    none = ((0, 0),) * spec.ndim
    return spec.replace(kernel=kernel, spatial=spatial, padding=none, lhs_dilation=(1,) * spec.ndim)


def _padded_to_blocks(x: jax.Array, spec: ConvSpec, block: ConvSpec) -> tuple[jax.Array, int]:
    count = -(-spec.kernel[0] // block.kernel[0])
    more = (count * block.kernel[0] - spec.kernel[0]) * spec.rhs_dilation[0]
    x = pad(x, spec)
    return jnp.pad(x, [(0, 0), (0, more), *[(0, 0)] * (x.ndim - 2)]), count


def _block_of(x: jax.Array, tap: jax.Array, spec: ConvSpec, block: ConvSpec) -> jax.Array:
    """What the block that begins at a row of taps reads of the padded x."""
    return lax.dynamic_slice_in_dim(x, tap * spec.rhs_dilation[0], block.spatial[0], axis=1)


# -- the records -----------------------------------------------------------------------------------


def _rejects_depthwise(spec: ConvSpec) -> str | None:
    if spec.c != 1:
        return f"a group has {spec.c} input channels; depthwise means 1"
    return _rejects_taps(spec)


def _rejects_broadcast(spec: ConvSpec) -> str | None:
    if spec.c == 1:
        return "a group has 1 input channel: that is 'depthwise'"
    if not isinstance(spec.c, int) or spec.c > 8:
        return f"a group has {spec.c} input channels; above 8 a matrix product is faster"
    return _rejects_taps(spec)


def _rejects_taps(spec: ConvSpec) -> str | None:
    if not spec.ndim:
        return "there is no spatial axis to slide along"
    inner = math.prod(spec.kernel[1:]) * spec.c
    if inner > 2 * WRITTEN_OUT:
        return f"{inner} products per row of the kernel; at most {2 * WRITTEN_OUT} are written out"
    return None


VIEWS = 8


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    """One loop per block; in grad_kernel one per tap and channel, of which eight start like one other step.

    Against a plain multiply-add per pair of loads, a broadcast channel is loaded once for all its
    outputs (5 times the rate where these are many); grad_kernel keeps no sum in a register (half the rate).
    """
    block = _block(spec, role)
    count = -(-spec.kernel[0] // block.kernel[0])
    size, run = itemsize(spec.accumulator), spec.out_channels
    if spec.channels_first:  # the compiler reads and writes them where they lie, a channel at a time
        run = 4 if role == "grad_kernel" else 1
    x, y = math.prod(spec.x_shape) * size, math.prod(spec.y_shape) * size
    if role == "grad_kernel":
        views = block.taps * spec.c
        partial, loops = views * y // _rows(spec), -(-views // VIEWS)
        each = Loop(2 * block.flops / loops, (x + y + partial) / loops, run)
        return (*(each,) * loops, Loop(0, 2 * partial, run)) * count
    loaded_again = spec.c == 1 or spec.channels_first
    flops = block.flops * (1.0 if loaded_again else 0.3 if spec.groups == 1 else 0.8)
    if any(d != 1 for d in spec.lhs_dilation):  # neighbours in memory are not neighbours in the sum
        flops *= 1.5
    return (Loop(flops, x + (1 if count == 1 else 2) * y, run),) * count


def workspace(spec: ConvSpec, role: Role) -> int:
    """The padded copy of x, where it is kept, and the sums of rows of grad_kernel."""
    size = itemsize(spec.accumulator)
    if role == "grad_kernel":
        spec = spec.replace(batch=_images_at_a_time(spec))
    x = math.prod(spec.x_shape) * size
    if role == "forward" and by_region(spec):
        return 0
    if any(d != 1 for d in spec.lhs_dilation):  # zeros between the inputs are always written out
        return padded_bytes(spec)
    rows = math.prod(spec.y_shape) // _rows(spec) * size if role == "grad_kernel" else 0
    return (x if x <= SMALL else 0) + _block(spec, role).taps * spec.c * rows


def _multiply_add(name: str, rejects: Callable[[ConvSpec], str | None]) -> Algorithm:
    return Algorithm(name, forward, rejects, steps, workspace, grad_kernel=grad_kernel, reads_planes=always)


DEPTHWISE = _multiply_add("depthwise", _rejects_depthwise)
BROADCAST = _multiply_add("broadcast", _rejects_broadcast)
