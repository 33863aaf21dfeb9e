"""Winograd: trade multiplications for additions, tile by tile.

    V[p, t, c] = B x_tile     U[p, c, o] = G w     M[p, t, o] = Σ_c V[p, t, c] U[p, c, o]     y_tile = A M
    ∂U[p, c, o] = Σ_t V[p, t, c] (Aᵀ g_tile)[p, t, o]                                        ∂w = Gᵀ ∂U

for tiles t of m outputs and m + r − 1 positions p along each dimension of r > 1 taps (`cook_toom`).  Cost:
Π (m+r−1)/m multiplications per output and pair of channels instead of Π r, 2.25 instead of 9 for F(4×4, 3×3),
in one batched product; and memory traffic, as V and M are as much larger than x and y.  Wins for 3×3, many
channels and many tiles; loses where transforming the kernel is the work (7×7 images of 512 channels), where
there are few channels, and where tiles hang over the edge.

Source: Lavin & Gray, "Fast algorithms for convolutional neural networks", 2016.
"""

import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jconv.algorithms import cook_toom, pieces
from jconv.algorithms.cook_toom import Bilinear, Matrix
from jconv.algorithms.gemm import by_columns
from jconv.algorithms.record import Algorithm, Gemm, Loop, Step
from jconv.algorithms.windows import resized
from jconv.spec import ConvSpec, Ints, Role, itemsize

Tiles = tuple[Bilinear | None, ...]  # per spatial dimension; None: one tap, not transformed
Rule = Callable[[ConvSpec], Tiles]

MAX_TAPS = 7  # per dimension; F(2, 8) already errs 8 times as much as the direct sum
TILE_AMPLIFICATION = 5.5  # of a tile "winograd" picks by itself, all dimensions together


@functools.lru_cache(maxsize=1024)
def cheapest(spec: ConvSpec) -> Tiles:
    """The tiles with, per dimension, the m of fewest products ⌈p/m⌉·(m+r−1) whose errors stay within
    TILE_AMPLIFICATION; the larger m if two tie."""
    share = TILE_AMPLIFICATION ** (1 / max(1, sum(r > 1 for r in spec.kernel)))

    def along(p: int, r: int) -> Bilinear:
        sizes = [m for m in (6, 5, 4, 3, 2) if cook_toom.amplification(cook_toom.matrices(m, r)) <= share]
        m = min(sizes or [2], key=lambda m: -(-p // m) * (m + r - 1))
        return cook_toom.matrices(m, r)

    return tuple(None if r == 1 else along(p, r) for p, r in zip(spec.out_spatial, spec.kernel, strict=True))


def fixed(m: int) -> Rule:
    """The rule that takes F(m, r) along every dimension with more than one tap."""
    return lambda spec: tuple(None if r == 1 else cook_toom.matrices(m, r) for r in spec.kernel)


def _sizes(tiles: Tiles) -> Ints:
    """m per dimension."""
    return tuple(f.m if f else 1 for f in tiles)


def _counts(tiles: Tiles, spec: ConvSpec) -> Ints:
    """Tiles per dimension, the last of which may be partial."""
    return tuple(-(-p // m) for p, m in zip(spec.out_spatial, _sizes(tiles), strict=True))


def _positions(tiles: Tiles) -> int:
    """P: products per tile."""
    return math.prod(f.n for f in tiles if f)


# The transforms, one dimension at a time, every pass one fused loop over the image.
#
# What makes them fast:
# - A barrier stands between the passes: fused, XLA computes the first again for every read of the second.
# - Positions are written behind the row they come from, (n, h, position, tile, c), and outermost only in the
#   last pass, so every loop reads long runs and a few rows that are still in cache.
# - x is padded once, before the passes: a pad per slice is written out once per row of the matrix.
# - The pass that writes last moves n: a transpose of its own would copy all of V or M.


def _combination(row: Sequence[Fraction | int], parts: Sequence[jax.Array]) -> jax.Array:
    """Σ row[k]·parts[k], where zeros and ones of the row cost nothing."""
    terms = [
        part if v == 1 else -part if v == -1 else part * jnp.asarray(float(v), part.dtype)
        for v, part in zip(row, parts, strict=True)
        if v
    ]
    return functools.reduce(lax.add, terms)


def _analysis(
    x: jax.Array, before: Sequence[int], matrices: Sequence[Matrix | None], tiles: Tiles, spec: ConvSpec
) -> jax.Array:
    """Tiles of x (n, *h, g·c), transformed: (P·g, T, c).

    Along each dimension tile t starts at t·m − before and is as long as a row of the matrix; what lies
    outside x is 0.  The last dimension goes first, so its positions end outermost.
    """
    x = x.astype(spec.accumulator)
    steps, counts, done = _sizes(tiles), _counts(tiles, spec), 0
    widths = [len(matrix[0]) if matrix else 1 for matrix in matrices]
    sizes = zip(before, counts, steps, widths, x.shape[1:-1], strict=True)
    config = [(lo, (count - 1) * m + width - lo - h, 0) for lo, count, m, width, h in sizes]
    x = lax.optimization_barrier(resized(x, config)) if any(map(any, config)) else x
    for d in reversed(range(len(steps))):
        span = (counts[d] - 1) * steps[d] + 1
        parts = [lax.slice_in_dim(x, k, k + span, steps[d], d + 1) for k in range(widths[d])]
        parts = [jnp.moveaxis(part, _row(d), [axis + done for axis in _row(d)]) for part in parts]
        if (matrix := matrices[d]) is None:
            (x,) = parts
            continue
        x = jnp.stack([_combination(row, parts) for row in matrix], done if d == 0 else d + 1 + done)
        x, done = lax.optimization_barrier(x), done + 1
    return _groups_apart(x, spec.batch * math.prod(counts), tiles, spec)


def _row(d: int) -> list[int]:
    """tiles[d], and n with the first: the axes that go behind the positions, and come back before them."""
    return [0, 1] if d == 0 else [d + 1]


def _synthesis(y: jax.Array, tiles: Tiles, spec: ConvSpec) -> jax.Array:
    """Products (P·g, T, o) back to (n, *p, g·o): the first dimension goes first."""
    if spec.groups > 1:
        y = y.reshape(_positions(tiles), spec.groups, -1, spec.o).swapaxes(1, 2)
    sizes = [f.n for f in reversed(tiles) if f]
    y = y.reshape(*sizes, spec.batch, *_counts(tiles, spec), spec.out_channels)
    left = len(sizes)
    for d, f in enumerate(tiles):
        # y: (n, *p[:d], *positions[:left], tiles[d], …, o), with n behind the positions while d = 0
        if f is None:
            y = jnp.moveaxis(y, [axis + left for axis in _row(d)], _row(d))
            continue
        left -= 1
        axis = left if d == 0 else d + 1 + left
        parts = [lax.index_in_dim(y, i, axis, False) for i in range(f.n)]
        parts = [jnp.moveaxis(part, [axis + left for axis in _row(d)], _row(d)) for part in parts]
        y = jnp.stack([_combination(row, parts) for row in f.A], d + 2)
        y = y.reshape(*y.shape[: d + 1], -1, *y.shape[d + 3 :])
        y = lax.slice_in_dim(y, 0, spec.out_spatial[d], axis=d + 1)
        y = lax.optimization_barrier(y) if left else y
    return y


def _transformed_kernel(w: jax.Array, tiles: Tiles, spec: ConvSpec) -> jax.Array:
    """U = G w: (*kernel, c, g·o) → (P·g, c, o)."""
    w = w.astype(spec.accumulator).reshape(*(r for r in spec.kernel if r > 1), spec.c, spec.out_channels)
    for done, f in enumerate(f for f in tiles if f):
        parts = [lax.index_in_dim(w, k, done, False) for k in range(f.r)]
        w = jnp.stack([_combination(row, parts) for row in f.G])
    return lax.optimization_barrier(_groups_apart(w, spec.c, tiles, spec))


def _kernel_gradient(u: jax.Array, tiles: Tiles, spec: ConvSpec) -> jax.Array:
    """∂w = Gᵀ ∂U: (P·g, c, o) → (*kernel, c, g·o), `_transformed_kernel` backwards."""
    active = [f for f in tiles if f]
    u = u.reshape(-1, spec.groups, spec.c, spec.o).swapaxes(1, 2)
    u = u.reshape(*(f.n for f in reversed(active)), spec.c, spec.out_channels)
    for done, f in reversed(list(enumerate(active))):
        parts = [lax.index_in_dim(u, p, 0, False) for p in range(f.n)]
        u = jnp.stack([_combination(column, parts) for column in zip(*f.G, strict=True)], done)
    return u.reshape(spec.w_shape)


def _groups_apart(a: jax.Array, rows: int, tiles: Tiles, spec: ConvSpec) -> jax.Array:
    """(*positions, …rows, g·channels) → (P·g, rows, channels): row-major operands for the product."""
    channels = a.shape[-1] // spec.groups
    if spec.groups > 1:
        a = a.reshape(_positions(tiles), rows, spec.groups, channels).swapaxes(1, 2)
    return lax.optimization_barrier(a.reshape(-1, rows, channels))


def _forward(x: jax.Array, w: jax.Array, tiles: Tiles, spec: ConvSpec) -> jax.Array:
    u, part = _transformed_kernel(w, tiles, spec), piece(tiles, spec)

    def compute(x: jax.Array) -> jax.Array:
        v = _analysis(x, [lo for lo, _ in part.padding], [f.B if f else None for f in tiles], tiles, part)
        m = jnp.einsum("ptc,pco->pto", v, u, precision=spec.precision, preferred_element_type=u.dtype)
        return _synthesis(lax.optimization_barrier(m), tiles, part)

    return pieces.mapped(compute, x, spec, part)


def _grad_kernel(x: jax.Array, g: jax.Array, tiles: Tiles, spec: ConvSpec) -> jax.Array:
    part, transposed = piece(tiles, spec), [tuple(zip(*f.A, strict=True)) if f else None for f in tiles]

    def compute(x: jax.Array, g: jax.Array) -> jax.Array:
        v = _analysis(x, [lo for lo, _ in part.padding], [f.B if f else None for f in tiles], tiles, part)
        return by_columns(v, _analysis(g, [0] * spec.ndim, transposed, tiles, part), spec)

    return _kernel_gradient(pieces.summed(compute, x, g, spec, part), tiles, spec)


def piece(tiles: Tiles, spec: ConvSpec) -> ConvSpec:
    """The spec of the images, or rows of tiles of one, that are computed at a time."""
    kernel, rest = _bytes(tiles, spec, "forward")
    if isinstance(rest, int) and kernel + rest <= pieces.REUSED:
        return spec
    return pieces.cut(spec, rest, pieces.IN_CACHE, _sizes(tiles)[0])


def rejects(spec: ConvSpec) -> str | None:
    wide = [(r, d) for r, d in zip(spec.kernel, spec.rhs_dilation, strict=True) if r > 1]
    if not wide:
        return "a kernel of one tap has no products to save"
    if spec.is_strided or spec.has_gaps:
        return f"tiles overlap only at stride 1 and input dilation 1, not {spec.strides}, {spec.lhs_dilation}"
    if any(d != 1 for _, d in wide):
        return f"it takes dilation 1 only, not {spec.rhs_dilation}"
    if max(spec.kernel) > MAX_TAPS:
        return f"errors grow exponentially with the taps: {MAX_TAPS} per dimension at most, not {spec.kernel}"
    if spec.is_depthwise:
        return "with one channel per group there is no sum over channels for the transforms to pay off in"
    if any(np.dtype(t).kind in "iub" for t in (spec.x_dtype, spec.w_dtype, spec.y_dtype)):
        return "the transforms need fractions, which integers do not have"
    return None


def _amplification(tiles: Tiles) -> float:
    """RMS error relative to the direct sum's; the errors of all dimensions multiply: F(2×2, 3×3) 1.7,
    F(4×4, 3×3) 4.8, F(6×6, 3×3) 21 times.

    A NaN or Inf in x spreads over every output of the tiles that read it, Inf as NaN; one in w spreads over
    the whole output channel.
    """
    return math.prod(cook_toom.amplification(f) for f in tiles if f)


def _pass_sizes(tiles: Tiles, spec: ConvSpec, channels: int) -> list[int]:
    """Elements before and after every pass of `_analysis`, of an input as large as the output."""
    sizes, shape = [spec.positions * channels], list(spec.out_spatial)
    for d, f in reversed(list(enumerate(tiles))):
        if f:
            shape[d] = _counts(tiles, spec)[d] * f.n
            sizes.append(spec.batch * math.prod(shape) * channels)
    return sizes


def _bytes(tiles: Tiles, spec: ConvSpec, role: Role) -> tuple[int, int]:
    """Bytes of temporaries of all tiles at once: (U, what grows with the batch)."""
    size = itemsize(spec.accumulator)
    before, after = (_pass_sizes(tiles, spec, channels) for channels in (spec.in_channels, spec.out_channels))
    u = size * _positions(tiles) * spec.c * spec.out_channels
    v, m = before[-1], after[-1]
    if role == "grad_kernel":
        return u, size * (v + m + max(before[-2], after[-2]))
    return u, size * max(v + before[-2], v + m, m + after[-2])


def _steps(tiles: Tiles, spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    size, count = itemsize(spec.accumulator), _positions(tiles) * spec.groups
    t = spec.batch * math.prod(_counts(tiles, spec))
    u = _bytes(tiles, spec, role)[0]
    kernel = Loop(2 * spec.parameters * _positions(tiles) ** 0.5, spec.parameters * 4 + 2 * u)
    gemm = Gemm(count, t, spec.o, spec.c)
    if role == "grad_kernel":
        gemm = Gemm(count, spec.c, spec.o, t)

    def passes(channels: int) -> list[Step]:
        """The loops of `_analysis` or, backwards, of `_synthesis`."""
        sizes, lengths = _pass_sizes(tiles, spec, channels), [f.n for f in reversed(tiles) if f]
        each = zip(sizes[:-1], sizes[1:], lengths, strict=True)
        return [Loop(n * after, size * (before + after)) for before, after, n in each]

    return (*passes(spec.in_channels), kernel, gemm, *passes(spec.out_channels))


def _workspace(tiles: Tiles, spec: ConvSpec, role: Role) -> int:
    """Bytes of one piece, and of U, or of ∂U twice (before and after a sum)."""
    part = piece(tiles, spec)
    u, rest = _bytes(tiles, part, role)
    return u * (2 if role == "grad_kernel" else 1) + rest + pieces.workspace(spec, part)


def winograd(rule: Rule) -> Algorithm:
    """The algorithm whose tiles `rule` picks.

    >>> from jconv.spec import ConvSpec
    >>> six = winograd(fixed(6))
    >>> spec = ConvSpec.of(kernel=(3, 3), spatial=(14, 14), in_channels=8, out_channels=8)
    >>> [f"F({f.m}, {f.r})" for f in cheapest(spec)]
    ['F(4, 3)', 'F(4, 3)']
    """
    return Algorithm(
        "winograd",
        forward=lambda x, w, spec: _forward(x, w, rule(spec), spec),
        rejects=rejects,
        steps=lambda spec, role: _steps(rule(spec), spec, role),
        workspace=lambda spec, role: _workspace(rule(spec), spec, role),
        grad_kernel=lambda x, g, spec: _grad_kernel(x, g, rule(spec), spec),
        exact=False,
        amplification=lambda spec: _amplification(rule(spec)),
    )


WINOGRAD = winograd(cheapest)
