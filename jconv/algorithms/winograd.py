"""Winograd: trade multiplications for additions, tile by tile.

    y = A ((G w) ⊙ (B d))        per tile of m outputs and per dimension; matrices in `cook_toom`

With the sum over channels inside, ⊙ becomes one matrix product per position p of the transformed
tile, all of them one batched GEMM over the T tiles of the image and the batch:

    V[p, t, c] = B x_tile      U[p, c, o] = G w      M[p, t, o] = Σ_c V[p, t, c] U[p, c, o]      y_tile = A M

Multiplications per output and channel pair: Π (m+r−1)/m instead of Π r; F(4×4, 3×3) does 2.25 instead
of 9.  The price is memory traffic: V and M are 2.25 times x and y.  So it wins for 3×3, many
channels and many tiles (batch ≥ 8), and loses where transforming the kernel is the work (7×7 images of
512 channels), where there are few channels, and where tiles hang over the edge.  A dimension with one
tap is not transformed.  grad_input is the rewritten forward; grad_kernel is the same three matrices
transposed, from the same tiles:

    ∂U[p, c, o] = Σ_t V[p, t, c] (Aᵀ g_tile)[p, t, o]                   ∂w = Gᵀ ∂U

**Errors** grow by `cook_toom.amplification` per dimension (2-D: F(2,3) 1.7, F(4,3) 4.8, F(6,3) 21 times
the direct sum's RMS error in float32).  A NaN or Inf in x spreads over every output of the tiles
that read it, Inf as NaN; one in w spreads over the whole output channel.  Halves are computed in float32.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jconv.algorithms import bands, cook_toom
from jconv.algorithms.cook_toom import Bilinear
from jconv.algorithms.divisors import largest_divisor
from jconv.algorithms.gemm import by_columns
from jconv.algorithms.record import Algorithm, Gemm, Loop, Step
from jconv.algorithms.winograd_passes import (
    Tiles,
    analysis,
    counts_of,
    dtype_of,
    groups_apart,
    kernel_gradient,
    positions_of,
    sizes_of,
    synthesis,
    transformed_kernel,
)  # fmt: skip
from jconv.spec import ConvSpec, Role

Rule = Callable[[ConvSpec], Tiles]

MAX_TAPS = 7  # per dimension; F(2, 8) already errs 8 times as much as the direct sum
MAX_AMPLIFICATION = 5.5  # of a tile "winograd" picks by itself, all dimensions together


# -- which tile ------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def cheapest(spec: ConvSpec) -> Tiles:
    """The tiles with, per dimension, the m of fewest products ⌈p/m⌉·(m+r−1) whose errors stay within
    MAX_AMPLIFICATION; the larger m if two tie."""
    share = MAX_AMPLIFICATION ** (1 / max(1, sum(r > 1 for r in spec.kernel)))
    return tuple(
        None if r == 1 else _cheapest_along(p, r, share)
        for p, r in zip(spec.out_spatial, spec.kernel, strict=True)
    )


def _cheapest_along(p: int, r: int, share: float) -> Bilinear:
    sizes = [m for m in (6, 5, 4, 3, 2) if cook_toom.amplification(cook_toom.matrices(m, r)) <= share]
    m = min(sizes or [2], key=lambda m: -(-p // m) * (m + r - 1))
    return cook_toom.matrices(m, r)


def fixed(m: int) -> Rule:
    """The rule that takes F(m, r) along every dimension with more than one tap."""
    return lambda spec: tuple(None if r == 1 else cook_toom.matrices(m, r) for r in spec.kernel)


# -- forward and grad_kernel of one block ----------------------------------------------------------


def _rows(tiles: Tiles, spec: ConvSpec) -> int:
    """T: tiles in the batch."""
    return spec.batch * math.prod(counts_of(tiles, spec))


def _tiles_of_x(x: jax.Array, tiles: Tiles, spec: ConvSpec) -> jax.Array:
    """V = B x: (P·g, T, c)."""
    before = tuple(lo for lo, _ in spec.padding)
    matrices = [f.B if f else None for f in tiles]
    v = analysis(x.astype(dtype_of(spec)), sizes_of(tiles), before, counts_of(tiles, spec), matrices)
    return groups_apart(v, _rows(tiles, spec), tiles, spec)


def _tiles_of_g(g: jax.Array, tiles: Tiles, spec: ConvSpec) -> jax.Array:
    """Aᵀ g: (P·g, T, o)."""
    matrices = [tuple(zip(*f.A, strict=True)) if f else None for f in tiles]
    g = g.astype(dtype_of(spec))
    g = analysis(g, sizes_of(tiles), (0,) * spec.ndim, counts_of(tiles, spec), matrices)
    return groups_apart(g, _rows(tiles, spec), tiles, spec)


def _block_forward(x: jax.Array, u: jax.Array, tiles: Tiles, spec: ConvSpec) -> jax.Array:
    v = _tiles_of_x(x, tiles, spec)
    m = jnp.einsum("ptc,pco->pto", v, u, precision=spec.precision, preferred_element_type=u.dtype)
    m = lax.optimization_barrier(m)
    if spec.groups > 1:
        m = m.reshape(positions_of(tiles), spec.groups, -1, spec.o).swapaxes(1, 2)
    sizes = [f.n for f in reversed(tiles) if f]
    m = m.reshape(*sizes, spec.batch, *counts_of(tiles, spec), spec.out_channels)
    return synthesis(m, tiles, spec).astype(spec.y_dtype)


def _block_grad_kernel(x: jax.Array, g: jax.Array, tiles: Tiles, spec: ConvSpec) -> jax.Array:
    v, g = _tiles_of_x(x, tiles, spec), _tiles_of_g(g, tiles, spec)
    return by_columns(v, g, spec)


# -- blocks: temporaries stay below the size that is mapped afresh at every call -------------------

MiB = 2**20
WHOLE = 16 * MiB  # up to here in one piece
LARGE_IMAGE = 1.3e6  # bytes of a result that no longer stays in a core's cache
BLOCK = 12 * MiB  # above WHOLE, the size of a block


def workspace_of(tiles: Tiles, spec: ConvSpec, role: Role) -> tuple[int, int]:
    """Bytes of temporaries of all tiles at once: (U, what grows with the batch)."""
    size = dtype_of(spec).itemsize
    before, after = (_pass_sizes(tiles, spec, channels) for channels in (spec.in_channels, spec.out_channels))
    u = size * positions_of(tiles) * spec.c * spec.out_channels
    v, m = before[-1], after[-1]
    if role == "grad_kernel":
        return u, size * (v + m + max(before[-2], after[-2]))
    return u, size * max(v + before[-2], v + m, m + after[-2])


def _pass_sizes(tiles: Tiles, spec: ConvSpec, channels: int) -> list[int]:
    """Elements before and after every pass of `analysis`, of an input as large as the output."""
    sizes = [spec.positions * channels]
    shape = list(spec.out_spatial)
    for d, f in reversed(list(enumerate(tiles))):
        if f:
            shape[d] = counts_of(tiles, spec)[d] * f.n
            sizes.append(spec.batch * math.prod(shape) * channels)
    return sizes


def block(tiles: Tiles, spec: ConvSpec, role: Role) -> ConvSpec:
    """The spec of the images and rows of output that are computed at a time."""
    return bands.band_of(spec, *_images_and_rows(tiles, spec, role))


def _images_and_rows(tiles: Tiles, spec: ConvSpec, role: Role) -> tuple[int, int]:
    if not all(isinstance(size, int) for size in (spec.batch, *spec.spatial)):
        return spec.batch, spec.out_spatial[0]  # sizes that are known only at run time
    kernel, rest = workspace_of(tiles, spec, role)
    rows = spec.out_spatial[0]
    if kernel + rest <= WHOLE:
        return _halves(tiles, spec) if _transposes_large_images(spec, role) else (spec.batch, rows)
    image = -(-rest // spec.batch)
    if image <= BLOCK:
        return _balanced(spec.batch, BLOCK // image), rows
    m = sizes_of(tiles)[0]
    count = counts_of(tiles, spec)[0]
    return 1, min(rows, m * _balanced(count, max(1, BLOCK * count // image)))


def _transposes_large_images(spec: ConvSpec, role: Role) -> bool:
    """Whether the result is transposed to channels first and an image of it falls out of a core's cache.  The
    compiler merges that transpose with the last pass, which then reads its tiles once per channel; in two
    blocks the transpose is a loop of its own."""
    image = math.prod(spec.y_shape[1:]) * dtype_of(spec).itemsize
    return spec.channels_first and role != "grad_kernel" and image >= LARGE_IMAGE


def _halves(tiles: Tiles, spec: ConvSpec) -> tuple[int, int]:
    if spec.batch > 1:
        return -(-spec.batch // 2), spec.out_spatial[0]
    return 1, min(spec.out_spatial[0], sizes_of(tiles)[0] * -(-counts_of(tiles, spec)[0] // 2))


def _balanced(total: int, most: int) -> int:
    """Size of the pieces of `total`: a divisor of it in (most // 2, most], else that of the fewest pieces."""
    size = largest_divisor(total, most)
    return size if size > most // 2 else -(-total // -(-total // min(total, most)))


def _forward(x: jax.Array, w: jax.Array, tiles: Tiles, spec: ConvSpec) -> jax.Array:
    u, part = transformed_kernel(w, tiles, spec), block(tiles, spec, "forward")
    return bands.forward(lambda x: _block_forward(x, u, tiles, part), x, spec, part)


def _grad_kernel(x: jax.Array, g: jax.Array, tiles: Tiles, spec: ConvSpec) -> jax.Array:
    part = block(tiles, spec, "grad_kernel")
    total = bands.grad_kernel(lambda x, g: _block_grad_kernel(x, g, tiles, part), x, g, spec, part)
    return kernel_gradient(total, tiles, spec)


# -- the records -----------------------------------------------------------------------------------


def rejects(spec: ConvSpec) -> str | None:
    wide = [(r, d) for r, d in zip(spec.kernel, spec.rhs_dilation, strict=True) if r > 1]
    if not wide:
        return "a kernel of one tap has no products to save"
    if any(s != 1 for s in spec.strides) or any(d != 1 for d in spec.lhs_dilation):
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


def amplification(tiles: Tiles) -> float:
    """RMS error relative to the direct sum's; the errors of all dimensions multiply."""
    return math.prod(cook_toom.amplification(f) for f in tiles if f)


def _passes(tiles: Tiles, spec: ConvSpec, channels: int) -> list[Step]:
    """The loops of `analysis` or, backwards, of `synthesis`."""
    sizes = _pass_sizes(tiles, spec, channels)
    lengths = [f.n for f in reversed(tiles) if f]
    bytes_ = dtype_of(spec).itemsize
    return [
        Loop(n * after, bytes_ * (before + after))
        for before, after, n in zip(sizes[:-1], sizes[1:], lengths, strict=True)
    ]


def steps_of(tiles: Tiles, spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    count, t = positions_of(tiles) * spec.groups, _rows(tiles, spec)
    u = workspace_of(tiles, spec, role)[0]
    kernel = Loop(2 * spec.parameters * positions_of(tiles) ** 0.5, spec.parameters * 4 + 2 * u)
    gemm = Gemm(count, t, spec.o, spec.c)
    if role == "grad_kernel":
        gemm = Gemm(count, spec.c, spec.o, t, transposed=True)
    ins, outs = (_passes(tiles, spec, c) for c in (spec.in_channels, spec.out_channels))
    return (*ins, kernel, gemm, *outs)


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
        steps=lambda spec, role: steps_of(rule(spec), spec, role),
        workspace=lambda spec, role: _workspace(rule(spec), spec, role),
        grad_kernel=lambda x, g, spec: _grad_kernel(x, g, rule(spec), spec),
        exact=False,
        amplification=lambda spec: amplification(rule(spec)),
    )


def _workspace(tiles: Tiles, spec: ConvSpec, role: Role) -> int:
    """Bytes of one block, and of U, or of ∂U twice (before and after a sum)."""
    part = block(tiles, spec, role)
    u, rest = workspace_of(tiles, part, role)
    return u * (2 if role == "grad_kernel" else 1) + rest + bands.workspace(spec, part)


WINOGRAD = winograd(cheapest)
