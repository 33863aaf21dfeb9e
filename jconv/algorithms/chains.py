"""A long sum of products as a few sums side by side.

Added up one after the other, every multiply-add waits four cycles for the last one, and the compiler keeps
the order of a sum as it is written.  Of nine products the processor overlaps several sums by itself.
"""

import functools
from collections.abc import Sequence

import jax
from jax import lax

CHAINS = 4
SHORTEST = 6  # terms of a chain
GAIN = 0.75  # the time of a sum in CHAINS chains, in that of one


def share(terms: float) -> float:
    """The time that a sum of so many terms takes, in that of one chain."""
    return GAIN if terms >= CHAINS * SHORTEST else 1.0


def added(terms: Sequence[jax.Array]) -> jax.Array:
    """The sum of all terms."""
    count = max(1, min(CHAINS, len(terms) // SHORTEST))
    return functools.reduce(lax.add, (functools.reduce(lax.add, terms[i::count]) for i in range(count)))
