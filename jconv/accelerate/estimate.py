"""What jconv will choose for a convolution, and how long it and lax's own are estimated to take."""

from __future__ import annotations

from typing import NamedTuple

from jconv import cost
from jconv.algorithm import Algorithm, steps
from jconv.algorithms import ALGORITHMS
from jconv.choose import resolve
from jconv.spec import ConvSpec, Role


class Estimate(NamedTuple):
    """The algorithm, why it and not another, and seconds per call of it and of lax."""

    algorithm: str
    reason: str
    seconds: float
    lax_seconds: float


def estimate(role: Role, spec: ConvSpec, platform: str, algorithm: str | Algorithm = "auto") -> Estimate:
    """What the choice at lowering will be."""
    chosen = resolve(algorithm, role, spec, platform)
    return Estimate(
        chosen.name,
        "least estimated time" if algorithm == "auto" else "asked for by name",
        seconds(chosen, role, spec, platform),
        seconds(ALGORITHMS["xla"], role, spec, platform),
    )


def seconds(algorithm: Algorithm, role: Role, spec: ConvSpec, platform: str) -> float:
    """Estimated time of one call."""
    rates = cost.PLATFORMS.get(platform, cost.CPU)
    return sum(cost.seconds(step, rates) for step in steps(algorithm, role, spec))
