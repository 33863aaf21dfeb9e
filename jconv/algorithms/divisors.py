"""Equal pieces: the divisors of a batch, found in √n steps, so that choosing does not grow with its size."""

from __future__ import annotations

import bisect
import functools
import math


@functools.lru_cache(maxsize=1024)
def divisors(n: int) -> tuple[int, ...]:
    """Every divisor of n ≥ 1, the least first.

    >>> divisors(12)
    (1, 2, 3, 4, 6, 12)
    """
    low = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return (*low, *(n // d for d in reversed(low) if d * d != n))


def largest_divisor(n: int, most: int) -> int:
    """The largest divisor of n that is at most `most`, at least 1.

    >>> largest_divisor(12, 5), largest_divisor(12, 0)
    (4, 1)
    """
    return divisors(n)[max(0, bisect.bisect_right(divisors(n), most) - 1)]
