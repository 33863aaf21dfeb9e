"""Regions: outputs that see the same taps, so that padding needs no padded copy.

Along one axis tap r of output p reads x[p·stride + r·rhs_dilation − lo], which is inside x for the outputs
of one interval of p.  The ends of these intervals cut the axis into runs; one run per axis makes
a region (for 3×3 with padding 1 nine of them: corners, edges, inside).  In a region every tap is a plain
slice of x, and the compiler joins the regions' sums in one loop.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator

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


def runs(spec: ConvSpec, axis: int) -> Iterator[Run]:
    """The outputs along an axis, cut where the taps that fall inside x change.

    Tap r of output p is inside x for 0 ≤ p·stride + r·dilation − lo < size.  These r are an interval whose
    ends both fall as p grows, so the next cut follows from the present one, whatever the number of taps.
    """
    stride, dilation, lo = spec.strides[axis], spec.rhs_dilation[axis], spec.padding[axis][0]
    last, outs, k = spec.spatial[axis] - 1 + lo, spec.out_spatial[axis], spec.kernel[axis]
    p = 0
    while p < outs:
        first = min(max(-((p * stride - lo) // dilation), 0), k)
        end = min(max((last - p * stride) // dilation + 1, 0), k)
        enters = -(((first - 1) * dilation - lo) // stride) if first else outs  # tap first − 1
        leaves = (last - (end - 1) * dilation) // stride + 1 if end else outs  # tap end − 1
        stop = min(enters, leaves, outs)
        seen = range(first, end) if first < end else range(0)
        yield Run(stop - p, seen, p * stride + seen.start * dilation - lo)
        p = stop


@functools.lru_cache(maxsize=1024)
def taps(spec: ConvSpec, most: int) -> float:
    """The number of taps of all regions together.  Infinite if nothing is padded, if the input is dilated, or
    above `most`, where the count ends."""
    known = all(isinstance(size, int) for size in (*spec.spatial, *spec.out_spatial))
    if not known or spec.has_gaps or not any(map(any, spec.padding)):
        return math.inf
    count = 1.0
    for axis in range(spec.ndim):
        along = 0
        for run in runs(spec, axis):
            along += len(run.taps)
            if along > most:
                return math.inf
        count *= along
    return count if count <= most else math.inf


def are_many(spec: ConvSpec, axis: int) -> bool:
    """Whether an axis has more than two runs."""
    return len(list(itertools.islice(runs(spec, axis), 3))) > 2


def joined(compute: Callable[[Region], jax.Array], spec: ConvSpec) -> jax.Array:
    """The arrays compute(region), (n, *counts, …), of all regions, joined along one axis after the other."""

    def along(chosen: Region) -> jax.Array:
        axis = len(chosen)
        if axis == spec.ndim:
            return compute(chosen)
        return lax.concatenate([along((*chosen, run)) for run in runs(spec, axis)], axis + 1)

    return along(())


def views(x: jax.Array, region: Region, spec: ConvSpec) -> list[tuple[jax.Array, Ints]]:
    """What every tap that the region sees sees of x, and the tap."""

    counts = [run.count for run in region]

    def seen(at: Ints) -> jax.Array:
        along = zip(at, region, spec.rhs_dilation, strict=True)
        starts = [run.start + (r - run.taps.start) * dilation for r, run, dilation in along]
        return spaced(x, starts, counts, spec.strides)

    return [(seen(at), at) for at in itertools.product(*(run.taps for run in region))]
