"""A long sum of products as a few sums side by side.

Added up one after the other, every multiply-add waits four cycles for the last one.  The compiler keeps the
order of a sum as it is written, so it is written as sums that need not wait for each other.  In ms, with one
sum and with four (2026-11, jax 0.10, Intel Xeon, 2 cores):

    multiply_add, 49 products  31×31 in blocks, 32 channels on 64²    5.5   4.5
    multiply_add, 72           3×3, 256 channels in 32 groups, 2×28²  2.1   1.8
    multiply_add, 27           3×3 of stride 2, 3→32 on 8×224²        2.7   1.9
    planes, 49                 7×7, 96 channels on 56²                1.1   0.8

Two and three gain less, six no more, and of nine products the processor overlaps several sums by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

CHAINS = 4
SHORTEST = 6  # terms of a chain
GAIN = 0.75  # the time of a sum in CHAINS chains, in that of one


def share(terms: float) -> float:
    """The time that a sum of so many terms takes, in that of one chain."""
    return GAIN if terms >= CHAINS * SHORTEST else 1.0


def added(terms: Sequence[jax.Array]) -> jax.Array:
    """The sum of all terms."""
    count = max(1, min(CHAINS, len(terms) // SHORTEST))
    chains = [functools.reduce(jnp.add, terms[first::count]) for first in range(count)]
    return functools.reduce(jnp.add, chains)
