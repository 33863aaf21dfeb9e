"""Regions: outputs that see the same taps, so that padding needs no padded copy.

Along one axis tap r of output p reads x[p·stride + r·rhs_dilation − lo], which is inside x for the outputs
of one interval of p.  The ends of these intervals cut the axis into runs; one run per axis makes
a region (for 3×3 with padding 1 nine of them: corners, edges, inside).  In a region every tap is a plain
slice of x, and the compiler joins the regions' sums in one loop.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable

import jax
from jax import lax

from jconv.algorithms.windows import spaced
from jconv.spec import ConvSpec, Ints


@dataclasses.dataclass(frozen=True)
class Run:
    """Along one axis: `count` neighbouring outputs that see `taps`, the first of which reads x at `start`."""

    count: int
    taps: range
    start: int


Region = tuple[Run, ...]


def runs(spec: ConvSpec, axis: int) -> list[Run]:
    """The outputs along an axis, cut where the taps that fall inside x change."""
    stride, dilation, lo = spec.strides[axis], spec.rhs_dilation[axis], spec.padding[axis][0]
    size, outs = spec.spatial[axis], spec.out_spatial[axis]
    seen = [
        (-(-(lo - r * dilation) // stride), (size - 1 + lo - r * dilation) // stride + 1)
        for r in range(spec.kernel[axis])
    ]  # first and end (not included) of the outputs for which tap r is inside x
    cuts = sorted({0, outs, *(min(max(end, 0), outs) for pair in seen for end in pair)})
    found = []
    for p, stop in itertools.pairwise(cuts):
        inside = [r for r, (first, end) in enumerate(seen) if first <= p < end]
        first = inside[0] if inside else 0
        found.append(Run(stop - p, range(first, first + len(inside)), p * stride + first * dilation - lo))
    return found


@functools.lru_cache(maxsize=1024)
def taps(spec: ConvSpec) -> float:
    """The number of taps of all regions together; infinite if nothing is padded or the input is dilated."""
    known = all(isinstance(size, int) for size in (*spec.spatial, *spec.out_spatial))
    if not known or any(d != 1 for d in spec.lhs_dilation) or not any(map(any, spec.padding)):
        return math.inf
    return math.prod(sum(len(run.taps) for run in runs(spec, axis)) for axis in range(spec.ndim))


def joined(compute: Callable[[Region], jax.Array], spec: ConvSpec) -> jax.Array:
    """The arrays compute(region), (n, *counts, …), of all regions, joined along one axis after the other."""

    def along(chosen: Region) -> jax.Array:
        axis = len(chosen)
        if axis == spec.ndim:
            return compute(chosen)
        return lax.concatenate([along((*chosen, run)) for run in runs(spec, axis)], axis + 1)

    return along(())


def views(x: jax.Array, region: Region, spec: ConvSpec) -> list[tuple[jax.Array, Ints]]:
    """Every tap the region sees, and what it sees of x."""
    return [(_seen(x, at, region, spec), at) for at in itertools.product(*(run.taps for run in region))]


def _seen(x: jax.Array, at: Ints, region: Region, spec: ConvSpec) -> jax.Array:
    for d, (r, run) in enumerate(zip(at, region, strict=True)):
        start = run.start + (r - run.taps.start) * spec.rhs_dilation[d]
        x = spaced(x, start, run.count, spec.strides[d], d + 1)
    return x
