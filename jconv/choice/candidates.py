"""The candidates: every algorithm asked once for one problem, and priced.

    refused    by the algorithm, by the program (oneDNN in an exported one), by the promise, for its memory
    or priced  the steps of what would run: all images at once or, for their memory, as many as fit;
               where the platform has no record of rates, nothing has a price

Of an algorithm in several forms the cheapest that is not refused stands for all.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import math
from typing import Any

import jax
import jax.export

from jconv.algorithms import ONEDNN, XLA
from jconv.algorithms.onednn import is_widened
from jconv.algorithms.pieces import equal, in_pieces
from jconv.algorithms.record import Algorithm, Native, allowed, each, forms_of, real_valued, refuses
from jconv.algorithms.work import steps, workspace
from jconv.choice import cost
from jconv.choice.rates import Platform
from jconv.runtime import verified
from jconv.spec import ConvSpec, Role

BOUND = 32 << 20  # bytes of temporaries that any algorithm may take
POLICIES = ("auto", "portable", "fastest")
TYPICAL = 16  # a size that is not known yet is taken to be this


@dataclasses.dataclass(frozen=True)
class Policy:
    """What the choice may take.

    Args:
      name: "auto", "portable" or "fastest".
      portable: why the program may not call oneDNN; None where it may.
    """

    name: str = "auto"
    portable: str | None = None

    @staticmethod
    def of(name: str, platform: str, portable: str | None = None) -> Policy:
        """The policy of that name for a program that is lowered here and now, and that may not hold calls
        of oneDNN where `portable` says why."""
        if platform != "cpu":
            why: str | None = f"oneDNN is for the CPU, not for {platform}"
        elif name == "portable":
            why = "a portable program was asked for, which does not call oneDNN"
        else:
            why = portable or verified.refusal()
        return Policy(name, why)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One algorithm for one problem.

    Args:
      algorithm: the record that would run.
      refused: why it may not, or None.
      seconds: the estimate, of one that may, where there are rates to make it.
    """

    algorithm: Algorithm
    refused: str | None = None
    seconds: float = math.inf


def with_known_sizes(spec: ConvSpec) -> ConvSpec:
    """The spec with `TYPICAL` for every size that only a run will tell (`jax.export`, symbolic shapes), or
    along an axis of x whatever the window asks for."""

    def known(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(known, value))
        return TYPICAL if jax.export.is_symbolic_dim(value) else value

    fields = {field.name: known(getattr(spec, field.name)) for field in dataclasses.fields(spec)}
    found = spec.replace(**fields)
    axes = zip(spec.spatial, found.spatial, found.window, found.padding, found.lhs_dilation, strict=True)
    space = (
        h if isinstance(given, int) else max(h, -(-(K - lo - hi) // L) + 1)
        for given, h, K, (lo, hi), L in axes
    )
    return found.replace(spatial=tuple(space))


def as_priced(spec: ConvSpec, policy: Policy, rates: Platform | None) -> ConvSpec:
    """The problem that is priced: real, and in a layout that matters only where it costs something."""
    spec = spec.replace(onednn=not policy.portable)
    return real_valued(spec if rates else spec.replace(channels_first=False))


def candidate(
    algorithm: Algorithm, role: Role, spec: ConvSpec, policy: Policy, rates: Platform | None
) -> Candidate:
    """The cheapest form of an algorithm; if each is refused, the first with its reason."""
    forms = [_asked(form, role, spec, policy, rates) for form in forms_of(algorithm)]
    return min(forms, key=lambda form: (form.refused is not None, form.seconds))


def _asked(
    algorithm: Algorithm, role: Role, spec: ConvSpec, policy: Policy, rates: Platform | None
) -> Candidate:
    """Whether it may run, on how many images at a time, and what that costs."""
    fastest = policy.name == "fastest"
    reason = (None if algorithm.portable else policy.portable) or refuses(algorithm, role, spec)
    if not reason and not (algorithm.exact or fastest):
        reason = "it mixes values: only by name, or with algorithm='fastest'"
    if not reason and not allowed(algorithm, spec, fastest):
        reason = "its rounding error is too large for this dtype and precision"
    if reason:
        return Candidate(algorithm, reason)
    fits = fitting(algorithm, role, spec)
    work, needed = steps(fits, role, spec), workspace(fits, role, spec)
    reason = _above(needed, fits, role, spec)
    natives = (step.spec for step in each(work) if isinstance(step, Native))
    if not reason and "int" in spec.accumulator and any(cost.route(native) == "naive" for native in natives):
        reason = "XLA has no convolution of these integers but a naive loop (CPU) or none (GPU)"
    if reason:
        return Candidate(fits, reason)
    seconds = cost.total(work, needed, rates) if rates else math.inf
    if is_widened(spec) and algorithm is not ONEDNN:
        seconds *= cost.HALVES
    return Candidate(fits, None, seconds)


def fitting(algorithm: Algorithm, role: Role, spec: ConvSpec) -> Algorithm:
    """The algorithm, or one that runs it on as many images at a time as there is memory for."""

    def is_too_large(one: Algorithm) -> bool:
        return _above(workspace(one, role, spec), one, role, spec) is not None

    if not is_too_large(algorithm):
        return algorithm
    pieces = functools.partial(in_pieces, algorithm, role)
    halves = [spec.batch >> times for times in range(spec.batch.bit_length() - 1, 0, -1)]
    # the more images, the more memory: found in a few tries whatever the batch
    fit = bisect.bisect_left(halves, True, key=lambda images: is_too_large(pieces(images)))
    return pieces(equal(spec.batch, halves[fit - 1])) if fit else algorithm


def _above(needed: int, algorithm: Algorithm, role: Role, spec: ConvSpec) -> str | None:
    """Why so many bytes of temporaries are too many, or None; XLA's own is exempt, as the fallback."""
    most = _most_bytes(role, spec)
    if algorithm == XLA or not isinstance(needed, int) or needed <= most:
        return None
    return f"it needs {si(needed)}B of temporaries; above {si(most)}B only by name"


def _most_bytes(role: Role, spec: ConvSpec) -> int:
    """Bytes of temporaries that "auto" allows: over 32 MiB only where XLA's own transposes x and y, too, or
    copies halves as float32."""
    transposed = 2 if spec.channels_first else 1 if role == "grad_kernel" else 0
    return BOUND + transposed * spec.image_bytes + 2 * spec.is_half * spec.bytes


def si(number: float) -> str:
    """A number with its decimal prefix: 1.23 M."""
    power = next((power for power in range(4) if number < 1000 ** (power + 1)), 4)
    return f"{number / 1000**power:.3g} {('', 'k', 'M', 'G', 'T')[power]}"
