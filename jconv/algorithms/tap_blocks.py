"""Blocks of taps: a kernel of many taps is used some rows at a time, so that it compiles in a second.

Written out, every tap is a slice and a product in the compiler's loop.
"""

from __future__ import annotations

import math

import jax
from jax import lax

from jconv.spec import ConvSpec, extent

KEPT = 8 << 20  # bytes up to which a padded copy is kept


def tap_block(spec: ConvSpec, most: int) -> ConvSpec:
    """The spec of one block of taps along the first kernel axis, with at most `most` products per output
    but no less than a row of taps."""
    inner = math.prod(spec.kernel[1:]) * spec.c
    taps = max(1, min(spec.kernel[0], most // inner))
    if taps * inner >= spec.taps * spec.c:
        return spec
    count = -(-spec.kernel[0] // taps)
    kernel = (-(-spec.kernel[0] // count), *spec.kernel[1:])
    sizes = zip(spec.out_spatial, spec.strides, kernel, spec.rhs_dilation, strict=True)
    spatial = tuple((p - 1) * s + extent(k, d) for p, s, k, d in sizes)
    none = ((0, 0),) * spec.ndim
    return spec.replace(kernel=kernel, spatial=spatial, padding=none, lhs_dilation=(1,) * spec.ndim)


def taps_from(tap: jax.Array, x: jax.Array, spec: ConvSpec, block: ConvSpec) -> jax.Array:
    """What the block that begins at row `tap` of the kernel reads of the padded x."""
    return lax.dynamic_slice_in_dim(x, tap * spec.rhs_dilation[0], block.spatial[0], axis=1)


def kept(padded: jax.Array) -> jax.Array:
    """The padded input as a copy of its own, so that the loop has no borders to test for; a large one
    is padded inside the loop, since fresh memory costs more than the test."""
    known = isinstance(padded.size, int)  # not in an export with a symbolic batch
    small = known and padded.size * padded.dtype.itemsize <= KEPT
    return lax.optimization_barrier(padded) if small else padded
