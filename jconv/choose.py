"""Which algorithm: the cheapest by the cost model, with the reason."""

from __future__ import annotations

import functools

from jconv import cost
from jconv.algorithm import Algorithm, refuses, steps
from jconv.algorithms import ALGORITHMS
from jconv.spec import ConvSpec, Role


def resolve(algorithm: str | Algorithm, role: Role, spec: ConvSpec, platform: str) -> Algorithm:
    """The record that will run: the one handed in, the one named, or the cheapest."""
    if isinstance(algorithm, Algorithm):
        return algorithm
    if algorithm != "auto":
        return ALGORITHMS[algorithm]
    return cheapest(role, spec, platform)


@functools.lru_cache(maxsize=4096)
def cheapest(role: Role, spec: ConvSpec, platform: str) -> Algorithm:
    """The algorithm of the least estimated time that does not refuse."""
    rates = cost.PLATFORMS.get(platform, cost.CPU)

    def estimate(algorithm: Algorithm) -> float:
        return sum(cost.seconds(step, rates) for step in steps(algorithm, role, spec))

    return min((a for a in ALGORITHMS.values() if refuses(a, role, spec) is None), key=estimate)
