"""How long the transforms of `fft` are, and into how many blocks they cut the image.

A circle of L points serves an image without wrapping wrongly if

    L ≥ max(P, K, D + lo, D + hi)     D, K, P extents of x, kernel and output along the dimension

(x sits at `lo`; what is read past the end wraps into the lo zeros in front).  A block of L points
yields step = L − K + 1 outputs.
"""

from __future__ import annotations

import functools
import itertools
import math

from jconv.spec import ConvSpec, Ints, extent

Lengths = tuple[Ints, Ints]  # per dimension: L, and how many outputs a block of L yields


@functools.cache
def fast_length(least: int) -> int:
    """The smallest 2^a 3^b 5^c 7^d that is at least `least`.

    >>> fast_length(71), fast_length(4095), fast_length(1)
    (72, 4096, 1)
    """
    best = 1 << max(0, least - 1).bit_length()
    for odd in _odd_products(best):
        whole = odd << max(0, (-(-least // odd) - 1).bit_length())
        best = min(best, whole) if whole >= least else best
    return best


def _odd_products(limit: int) -> list[int]:
    powers = [[b**e for e in range(math.floor(math.log(limit, b)) + 2)] for b in (3, 5, 7)]
    return [v for v in map(math.prod, itertools.product(*powers)) if v <= limit]


def dense_extents(spec: ConvSpec) -> Ints:
    """P per dimension: the output at stride 1."""
    return tuple(map(extent, spec.out_spatial, spec.strides))


@functools.lru_cache(maxsize=1024)
def whole(spec: ConvSpec) -> Lengths:
    """The lengths for one circle that holds the whole image."""
    sizes = tuple(map(extent, spec.spatial, spec.lhs_dilation))
    out = dense_extents(spec)
    needs = [
        max(P, K, D + max(lo, 0) + min(hi, 0), D + max(hi, 0) + min(lo, 0))
        for P, K, D, (lo, hi) in zip(out, spec.window, sizes, spec.padding, strict=True)
    ]
    return tuple(map(fast_length, needs)), out


@functools.lru_cache(maxsize=1024)
def overlapping(spec: ConvSpec) -> Lengths:
    """The lengths of least estimated cost; the whole image as one block is among the candidates."""
    lengths, out = whole(spec)
    options = []
    for L, P, K in zip(lengths, out, spec.window, strict=True):
        shorter = [fast_length(math.ceil(2 ** (i / 2) * K)) for i in range(2, 11)]
        options.append([(L, P), *((s, s - K + 1) for s in sorted(set(shorter)) if s < L)])
    best = min(itertools.product(*options), key=lambda blocks: _cost(blocks, spec))
    return tuple(L for L, _ in best), tuple(step for _, step in best)


def _cost(blocks: tuple[tuple[int, int], ...], spec: ConvSpec) -> float:
    """Estimated operations: 2.5 log₂ per point of a transform, 4 per point of a complex product."""
    points = math.prod(L for L, _ in blocks)
    count = math.prod(-(-P // step) for P, (_, step) in zip(dense_extents(spec), blocks, strict=True))
    images = count * (spec.batch if isinstance(spec.batch, int) else 16)  # symbolic: a guess will do
    transforms = images * (spec.in_channels + spec.out_channels) + spec.c * spec.out_channels
    return points * (2.5 * math.log2(points + 1) * transforms + 4 * images * spec.c * spec.out_channels)


def counts_of(lengths: Lengths, spec: ConvSpec) -> Ints:
    """Blocks per dimension."""
    return tuple(-(-P // step) for P, step in zip(dense_extents(spec), lengths[1], strict=True))
