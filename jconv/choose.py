"""Which algorithm: the cheapest by the cost model, with the reason."""

from __future__ import annotations

import dataclasses
import functools

import jax.export

from jconv import cost
from jconv.algorithm import Algorithm, refuses, steps
from jconv.algorithms import ALGORITHMS
from jconv.spec import ConvSpec, Role

TYPICAL = 16  # a size that is not known yet is taken to be this


def resolve(algorithm: str | Algorithm, role: Role, spec: ConvSpec, platform: str) -> Algorithm:
    """The record that will run: the one handed in, the one named, or the cheapest."""
    if isinstance(algorithm, Algorithm):
        return algorithm
    if algorithm != "auto":
        return ALGORITHMS[algorithm]
    return cheapest(role, with_known_sizes(spec), platform)


def with_known_sizes(spec: ConvSpec) -> ConvSpec:
    """The spec with `TYPICAL` for every size that only a run will tell (`jax.export`, symbolic shapes)."""

    def known(value: object) -> object:
        if isinstance(value, tuple):
            return tuple(map(known, value))
        return TYPICAL if jax.export.is_symbolic_dim(value) else value

    fields = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    return spec.replace(**{name: known(value) for name, value in fields.items()})


@functools.lru_cache(maxsize=4096)
def cheapest(role: Role, spec: ConvSpec, platform: str) -> Algorithm:
    """The algorithm of the least estimated time that does not refuse."""
    rates = cost.PLATFORMS.get(platform, cost.CPU)

    def estimate(algorithm: Algorithm) -> float:
        return sum(cost.seconds(step, rates) for step in steps(algorithm, role, spec))

    return min((a for a in ALGORITHMS.values() if refuses(a, role, spec) is None), key=estimate)
