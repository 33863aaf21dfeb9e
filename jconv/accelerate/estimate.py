"""What jconv will choose for a convolution, and how long it and lax's own are estimated to take."""

from __future__ import annotations

from typing import NamedTuple

from jconv.algorithm import Algorithm
from jconv.algorithms import XLA
from jconv.choice import choose, resolve
from jconv.spec import ConvSpec, Role


class Estimate(NamedTuple):
    """The algorithm, why it and not another, and seconds per call of it and of lax."""

    algorithm: str
    reason: str
    seconds: float | None
    lax_seconds: float | None


def estimate(role: Role, spec: ConvSpec, platform: str, algorithm: str | Algorithm = "auto") -> Estimate:
    """What will run, as far as the cost model has a time for it."""
    choice = choose(spec, role, platform)
    name = resolve(algorithm, role, spec, platform)[0].name
    reason = choice.reason if algorithm == "auto" else "asked for by name"
    return Estimate(name, reason, choice.seconds.get(name), choice.seconds.get(XLA.name))
