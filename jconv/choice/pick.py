"""Which algorithm: candidates, their prices, the pick, and the reason.

    1. Whoever names an algorithm gets it, or an error with its reason.
    2. "auto" passes over every algorithm that refuses the problem, that mixes values by a transform (so does
       "fastest" at precision HIGHEST and where the error would reach ten times the direct sum's), that takes
       too much memory even for one image at a time, or that computes integers by XLA's naive loop.
    3. If this convolution was tuned on this kind of device, the measured winner is taken.
    4. Otherwise the least estimate wins, if it beats XLA's own convolution by more than the model is usually
       wrong (`preferred`).
    5. Where no rates were measured (a GPU, a TPU) there are no estimates, and XLA's own is taken.

**The promise.**  What a direct sum gives without being asked, "auto" and "portable" give, too, in every role
and dtype, under vmap and grad, because they take only algorithms whose record says `exact`:

    an output depends on its window alone  a NaN, an Inf or a huge value reaches only the outputs whose
                                           windows hold it, never another group or member of a vmap
    zeros stay zeros                       a window whose products are all 0 gives exactly 0
    no sum of terms ≥ 0 is negative        so logarithms and roots of counts and likelihoods are numbers
    whole numbers are exact                as long as their sums fit the accumulator
    the error is the window's own          at most about K roundoffs of Σ|x·w| over its K products

The zeros of a padding belong to the windows, as in lax: a NaN in a kernel meets them, and so does one in an
image whose kernel's gradient is taken, where it may reach every tap of its channels.  "fastest" gives the
promise up for what a norm-wise error allows: Winograd and the FFT mix the values of a tile or of an image.

On one kind of machine the same call always gets the same answer.  The choice is made at lowering, when
vmap and grad have already rewritten the problem.
"""

import dataclasses
import functools
import html
import math
from collections.abc import Mapping
from typing import Any

import jax

from jconv.algorithms import ALGORITHMS, DEPTHWISE, ONEDNN, POINTWISE, XLA
from jconv.algorithms.record import Algorithm, forms_of, refuses
from jconv.choice import cost, winners
from jconv.choice.candidates import POLICIES, Candidate, Policy, as_priced, candidate, si, with_known_sizes
from jconv.choice.cost import duration
from jconv.choice.rates import Factors
from jconv.choice.rates import of as rates_of
from jconv.choice.winners import Measured
from jconv.spec import ConvSpec, Role

NO_RATES = "nothing was measured on this platform"


@dataclasses.dataclass(frozen=True)
class Choice:
    """What `choose` answers.

    Args:
      algorithm: the record that will run.
      reason: a sentence with numbers.
      rejected: every other algorithm's name, and why it was not taken.
      seconds: estimated time per algorithm that could run, the least first; infinite where no rates were
        measured to estimate it.
      spec, role, platform: what was asked.
      measured: seconds per algorithm that `jconv.tune` measured here; empty where it measured nothing.
    """

    algorithm: Algorithm
    reason: str
    rejected: Mapping[str, str]
    seconds: Mapping[str, float]
    spec: ConvSpec
    role: Role
    platform: str
    measured: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON or a data frame."""
        plain = dict(algorithm=self.algorithm.name, spec=str(self.spec), seconds=dict(self.seconds))
        return vars(self) | plain | {"rejected": dict(self.rejected), "measured": dict(self.measured)}

    def __str__(self) -> str:
        width = max(map(len, self.rejected), default=0)
        lines = [f"{self.role} of {self.spec} on {self.platform}", self.reason]
        return "\n".join([*lines, *(f"  not {name:{width}}  {why}" for name, why in self.rejected.items())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = (f"<tr><td>{name}</td><td>{html.escape(why)}</td></tr>" for name, why in self.rejected.items())
        head = "<tr><th>not taken</th><th>because</th></tr>"
        return f"<p><b>{self.algorithm.name}</b>: {self.reason}</p><table>{head}{''.join(rows)}</table>"


def choose(
    spec: ConvSpec,
    role: Role = "forward",
    platform: str | None = None,
    algorithm: str = "auto",
    portable: str | None = None,
) -> Choice:
    """The algorithm that "auto", "portable" or "fastest" runs, the reason, and why not each other one; where
    `portable` says why, none that calls oneDNN.

    >>> from jconv.spec import ConvSpec
    >>> spec = ConvSpec.of(spatial=(56, 56), kernel=(3, 3), in_channels=64, out_channels=64, groups=64)
    >>> choose(spec, platform="cpu", algorithm="portable").algorithm.name
    'depthwise'
    """
    platform = platform or jax.default_backend()
    policy, known = Policy.of(algorithm, platform, portable), with_known_sizes(spec)
    measured, factors = winners.measured(known, role, platform), winners.factors(platform)
    choice = _choose(known, role, platform, policy, measured, factors)
    if not spec.is_known and (why := refuses(choice.algorithm, role, spec)):
        reason = f"{XLA.name}: {choice.algorithm.name}, which would be faster, refuses: {why}"
        return dataclasses.replace(choice, algorithm=XLA, reason=reason)
    return choice


@functools.lru_cache(maxsize=4096)
def _choose(
    spec: ConvSpec, role: Role, platform: str, policy: Policy, measured: Measured = (), factors: Factors = ()
) -> Choice:
    """Candidates, their prices, the pick."""
    if spec.is_empty:  # costs may divide by its sizes
        return Choice(XLA, "nothing to compute: an array is empty", {}, {}, spec, role, platform)
    rates = rates_of(platform, factors)
    priced = as_priced(spec, policy, rates)
    found = {name: candidate(a, role, priced, policy, rates) for name, a in ALGORITHMS.items()}
    able = {name: one.seconds for name, one in found.items() if not one.refused}
    seconds = dict(sorted(able.items(), key=lambda item: item[1]))
    times = dict(measured) if measured and measured[0][0] in seconds else {}
    if times:
        best, how = measured[0][0], "measured to be the fastest here"
    elif rates:
        best = preferred(seconds, spec.flops)
        how = _versus(best, seconds)
    else:  # no rates, no opinion: XLA's own, unless it cannot do it
        best, how = (XLA.name if XLA.name in seconds else next(iter(seconds))), NO_RATES
    reason, taken = f"{_told(found[best], priced, times)}; {how}", found[best]
    others = (one for name, one in found.items() if name != best)
    rejected = {one.algorithm.name: one.refused or _slower(one, taken, times) for one in others}
    return Choice(taken.algorithm, reason, rejected, seconds, spec, role, platform, times)


def preferred(seconds: Mapping[str, float], flops: float = math.inf) -> str:
    """The algorithm with the least estimate or, of those that tie with it, the first exact one; in the place
    of XLA's own only what beats it by more than the model is usually wrong."""
    best, is_tiny = next(iter(seconds)), flops < cost.TINY
    if best == ONEDNN.name and not is_tiny:  # whose times are estimated better than those of XLA's many ways
        return best
    native = seconds.get(XLA.name, math.inf)
    if native < cost.MARGIN * seconds[best] + cost.SLACK * (4 if is_tiny else 1):
        product = seconds.get(POINTWISE.name, math.inf)  # XLA's own for a 1×1 kernel, but as plain as can be
        return POINTWISE.name if product < cost.MARGIN * native else XLA.name
    called = seconds.get(ONEDNN.name, math.inf) < cost.MARGIN * seconds[best] + 2 * cost.SLACK
    if best == DEPTHWISE.name and called and not is_tiny:  # a loop takes ten times as long to compile
        return ONEDNN.name
    tied = (name for name, time in seconds.items() if time < cost.MARGIN * seconds[best])
    return next((name for name in tied if ALGORITHMS[name].exact), best)


def _told(taken: Candidate, spec: ConvSpec, measured: Mapping[str, float]) -> str:
    name, variant = taken.algorithm.name, taken.algorithm.variant
    told = f"{name}{f' ({variant})' if variant else ''}: {si(spec.flops)}FLOP over {si(spec.bytes)}B"
    if name in measured:
        told += f" in {duration(measured[name])}"
    elif taken.seconds < math.inf:
        told += f" in an estimated {duration(taken.seconds)}"
    if taken.algorithm not in forms_of(ALGORITHMS[name]):  # but one that runs it in pieces
        told += "; some images at a time, for the memory that all would take"
    return told


def _versus(best: str, seconds: Mapping[str, float]) -> str:
    other = next((name for name in seconds if name != best), None)
    if other is None:
        return "nothing else can do it"
    if seconds[other] < seconds[best]:
        time = duration(seconds[other])
        return f"{other}, estimated at {time}, is not faster by more than the estimates err"
    return f"next is {other} at {duration(seconds[other])}"


def _slower(one: Candidate, best: Candidate, measured: Mapping[str, float]) -> str:
    name = one.algorithm.name
    if name in measured:
        return f"{duration(measured[name])}, {measured[name] / measured[best.algorithm.name]:.1f}× as long"
    if measured:
        return "not measured"
    if one.seconds == math.inf:
        return f"{NO_RATES}; name it, or let jconv.tune measure it"
    return f"about {duration(one.seconds)}, {one.seconds / best.seconds:.1f}× as long"


def resolve(
    algorithm: str | Algorithm, role: Role, spec: ConvSpec, platform: str, portable: str | None = None
) -> tuple[Algorithm, ConvSpec]:
    """The record that will run, and the spec that says whether its products may be oneDNN's.

    Raises:
      ValueError: the algorithm that was named is not for this platform, or not for a portable program.
    """
    name = algorithm if isinstance(algorithm, str) and algorithm in POLICIES else "auto"
    policy = Policy.of(name, platform, portable)
    record = algorithm if isinstance(algorithm, Algorithm) else ALGORITHMS.get(algorithm)
    if record is None:
        record = choose(spec, role, platform, name, portable).algorithm
    elif not record.portable and policy.portable:
        raise ValueError(f"`algorithm`={record.name!r} refuses: {policy.portable}; choose 'auto'")
    if record.forms and not spec.is_empty:  # of a named one the cheapest form, as far as one can be priced
        rates, anything = rates_of(platform, winners.factors(platform)), Policy("fastest", policy.portable)
        found = candidate(record, role, as_priced(with_known_sizes(spec), anything, rates), anything, rates)
        # priced as if the sizes were known
        if not found.refused and (spec.is_known or not refuses(found.algorithm, role, spec)):
            record = found.algorithm
    return record, spec.replace(onednn=not policy.portable)
