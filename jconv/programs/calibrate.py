"""A handful of factors by which this machine differs from the record of rates.

    kind            what is timed                          what it scales
    products        a 1×1 convolution                      matrix products
    loops           a depthwise convolution                multiply-adds and copies
    convolutions    XLA's own, 3×3                         every route of its compiler
    onednn          the same by oneDNN, where it runs      oneDNN's convolutions

Each factor is the measured time in that of the estimate, the median over a few sizes.
"""

import functools
import statistics
from collections.abc import Callable, Mapping

import jax

from jconv.algorithms import ALGORITHMS
from jconv.choice import rates, winners
from jconv.choice.candidates import Policy, candidate
from jconv.programs.measure import compiled, race
from jconv.spec import ConvSpec

_of = functools.partial(ConvSpec.of, padding=((1, 1), (1, 1)), kernel=(3, 3))
DENSE = tuple(_of(spatial=(h, h), in_channels=c, out_channels=c) for h, c in ((56, 64), (28, 128), (14, 256)))
PROBES: Mapping[str, tuple[str, tuple[ConvSpec, ...]]] = {
    "products": ("pointwise", tuple(
        ConvSpec.of(batch=2, spatial=(h, h), kernel=(1, 1), in_channels=c, out_channels=c)
        for h, c in ((56, 64), (28, 256), (14, 512)))),
    "loops": ("depthwise", tuple(
        _of(batch=2, spatial=(h, h), in_channels=c, out_channels=c, groups=c)
        for h, c in ((56, 96), (28, 192), (14, 384)))),
    "convolutions": ("xla", DENSE),
    "onednn": ("onednn", DENSE),
}  # fmt: skip
ROUNDS = 7
MOST = 5.0  # times faster or slower: beyond, the machine was busy, or the record says nothing of it


def calibrate(
    platform: str | None = None, tell: Callable[[int, int, str], None] = lambda *what: None
) -> dict[str, float]:
    """The factor of each kind of work that runs here, kept beside the winners; above 1 it is slower than
    the record says.  `tell` is a function of (done, total, what)."""
    platform = platform or jax.default_backend()
    record = rates.of(platform)
    if record is None:
        raise ValueError(f"no rates were measured on {platform}, so there are none to scale; tune a function")
    factors, policy = {}, Policy.of("auto", platform)
    for done, (kind, (name, specs)) in enumerate(PROBES.items()):
        tell(done, len(PROBES), kind)
        asked = [(spec, candidate(ALGORITHMS[name], "forward", spec, policy, record)) for spec in specs]
        if ratios := [_seconds(name, spec) / one.seconds for spec, one in asked if not one.refused]:
            factors[kind] = min(MOST, max(1 / MOST, statistics.median(ratios)))
    tell(len(PROBES), len(PROBES), "")
    winners.keep_factors(platform, factors)
    return factors


def _seconds(name: str, spec: ConvSpec) -> float:
    calls, failed = compiled([name], "forward", spec)
    return race(calls, ROUNDS, failed)[name]
