"""The transforms of `winograd`: one dimension at a time, every pass one fused loop over the image.

What makes them fast:

- A barrier stands between the passes: fused, XLA computes the first again for every read of the second.
- Positions are written behind the row they come from, (n, h, position, tile, c), and outermost only in the
  last pass, so every loop reads long runs and a few rows that are still in cache.
- x is padded once, before the passes: a pad per slice is written out once per row of the matrix.
- The pass that writes last moves n: a transpose of its own would copy all of V or M.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jconv.algorithms.cook_toom import Bilinear, Matrix
from jconv.spec import ConvSpec, Ints

Tiles = tuple[Bilinear | None, ...]  # per spatial dimension; None: one tap, not transformed


def sizes_of(tiles: Tiles) -> Ints:
    """m per dimension."""
    return tuple(f.m if f else 1 for f in tiles)


def counts_of(tiles: Tiles, spec: ConvSpec) -> Ints:
    """Tiles per dimension, the last of which may be partial."""
    return tuple(-(-p // m) for p, m in zip(spec.out_spatial, sizes_of(tiles), strict=True))


def positions_of(tiles: Tiles) -> int:
    """P: products per tile."""
    return math.prod(f.n for f in tiles if f)


def dtype_of(spec: ConvSpec) -> np.dtype:
    return np.dtype(spec.accumulator)


def combination(row: Sequence, parts: Sequence[jax.Array]) -> jax.Array:
    """Σ row[k]·parts[k], where zeros and ones of the row cost nothing."""
    terms = [_times(v, part) for v, part in zip(row, parts, strict=True) if v]
    return functools.reduce(lax.add, terms)


def _times(value: Fraction | int, part: jax.Array) -> jax.Array:
    if value in (1, -1):
        return part if value == 1 else -part
    return part * jnp.asarray(float(value), part.dtype)


def analysis(
    x: jax.Array, steps: Ints, before: Ints, counts: Ints, matrices: Sequence[Matrix | None]
) -> jax.Array:
    """Tiles of x (n, *h, c), transformed: (*positions, n, *tiles, c).

    Along each dimension tile t starts at t·step − before and is as long as a row of the matrix; what
    lies outside x is 0.  The last dimension goes first, so its positions end outermost.
    """
    widths = [len(matrix[0]) if matrix else 1 for matrix in matrices]
    x, done = _framed(x, steps, before, counts, widths), 0
    for d in reversed(range(len(steps))):
        matrix = matrices[d] or ((1,),)
        parts = [_every(x, d + 1, k, steps[d], counts[d]) for k in range(widths[d])]
        parts = [part.transpose(_to_back(part.ndim, d, done)) for part in parts]
        if matrices[d] is None:
            (x,) = parts
            continue
        x = jnp.stack([combination(row, parts) for row in matrix], done if d == 0 else d + 1 + done)
        x, done = lax.optimization_barrier(x), done + 1
    return x


def _framed(x: jax.Array, steps: Ints, before: Ints, counts: Ints, widths: Sequence[int]) -> jax.Array:
    """x with the zeros around it that the tiles read, or cut to what they read."""
    ends = [(count - 1) * step + width for count, step, width in zip(counts, steps, widths, strict=True)]
    sizes = zip(before, ends, x.shape[1:-1], strict=True)
    config = [(0, 0, 0), *((lo, end - lo - have, 0) for lo, end, have in sizes), (0, 0, 0)]
    if not any(map(any, config)):
        return x
    return lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), config))


def _every(x: jax.Array, axis: int, start: int, step: int, count: int) -> jax.Array:
    """x[start], x[start + step], … along an axis."""
    return lax.slice_in_dim(x, start, start + (count - 1) * step + 1, step, axis)


def _to_back(ndim: int, d: int, done: int) -> list[int]:
    """The axis order that brings axis d + 1, for d = 0 also n, behind the `done` position axes."""
    last = [0, 1] if d == 0 else [d + 1]
    first = [axis for axis in range(d + 2 + done) if axis not in last]
    return first + last + [*range(d + 2 + done, ndim)]


def synthesis(y: jax.Array, tiles: Tiles, spec: ConvSpec) -> jax.Array:
    """Products (*positions, n, *tiles, o) back to (n, *p, o): the first dimension goes first."""
    left = sum(f is not None for f in tiles)
    for d, f in enumerate(tiles):
        # y: (n, *p[:d], *positions[:left], tiles[d], …, o), with n behind the positions while d = 0
        if f is None:
            y = y.transpose(_to_front(y.ndim, d, left))
            continue
        left -= 1
        axis = left if d == 0 else d + 1 + left
        parts = [lax.index_in_dim(y, i, axis, False) for i in range(f.n)]
        parts = [part.transpose(_to_front(part.ndim, d, left)) for part in parts]
        y = jnp.stack([combination(row, parts) for row in f.A], d + 2)
        y = y.reshape(*y.shape[: d + 1], -1, *y.shape[d + 3 :])
        y = lax.slice_in_dim(y, 0, spec.out_spatial[d], axis=d + 1)
        y = lax.optimization_barrier(y) if left else y
    return y


def _to_front(ndim: int, d: int, left: int) -> list[int]:
    """The axis order that brings tiles[d], for d = 0 also n, in front of `left` position axes."""
    first = [left, left + 1] if d == 0 else [*range(d + 1), d + 1 + left]
    return first + [axis for axis in range(ndim) if axis not in first]


def transformed_kernel(w: jax.Array, tiles: Tiles, spec: ConvSpec) -> jax.Array:
    """U = G w: (*kernel, c, g·o) → (P·g, c, o)."""
    w = w.astype(dtype_of(spec)).reshape(*(r for r in spec.kernel if r > 1), spec.c, spec.out_channels)
    for done, f in enumerate(f for f in tiles if f):
        parts = [lax.index_in_dim(w, k, done, False) for k in range(f.r)]
        w = jnp.stack([combination(row, parts) for row in f.G])
    return lax.optimization_barrier(groups_apart(w, spec.c, tiles, spec))


def kernel_gradient(u: jax.Array, tiles: Tiles, spec: ConvSpec) -> jax.Array:
    """∂w = Gᵀ ∂U: (P·g, c, o) → (*kernel, c, g·o), `transformed_kernel` backwards."""
    active = [f for f in tiles if f]
    u = u.reshape(-1, spec.groups, spec.c, spec.o).swapaxes(1, 2)
    u = u.reshape(*(f.n for f in reversed(active)), spec.c, spec.out_channels)
    for done, f in reversed(list(enumerate(active))):
        parts = [lax.index_in_dim(u, p, 0, False) for p in range(f.n)]
        u = jnp.stack([combination(column, parts) for column in zip(*f.G, strict=True)], done)
    return u.reshape(spec.w_shape)


def groups_apart(a: jax.Array, rows: int, tiles: Tiles, spec: ConvSpec) -> jax.Array:
    """(*positions, …rows, g·channels) → (P·g, rows, channels): row-major operands for the GEMM."""
    channels = a.shape[-1] // spec.groups
    if spec.groups > 1:
        a = a.reshape(positions_of(tiles), rows, spec.groups, channels).swapaxes(1, 2)
    return lax.optimization_barrier(a.reshape(-1, rows, channels))
