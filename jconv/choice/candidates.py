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
from collections.abc import Iterable

from jconv.algorithms import XLA
from jconv.algorithms.pieces import equal, in_pieces
from jconv.algorithms.record import Algorithm, Native, Step, allowed, each, forms_of, refuses
from jconv.algorithms.work import steps, workspace
from jconv.choice import cost
from jconv.choice.rates import Platform
from jconv.runtime import verified
from jconv.spec import ConvSpec, Role

BOUND = 32 << 20  # bytes of temporaries that any algorithm may take
POLICIES = ("auto", "portable", "fastest")


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
      images: at a time, where all would need too much memory.
    """

    algorithm: Algorithm
    refused: str | None = None
    seconds: float = math.inf
    images: int | None = None


def candidate(
    algorithm: Algorithm, role: Role, spec: ConvSpec, policy: Policy, rates: Platform | None
) -> Candidate:
    """The cheapest form of an algorithm; if each is refused, the first with its reason."""
    forms = [_asked(form, role, spec, policy, rates) for form in forms_of(algorithm)]
    return min(forms, key=lambda form: (form.refused is not None, form.seconds))


def _asked(
    algorithm: Algorithm, role: Role, spec: ConvSpec, policy: Policy, rates: Platform | None
) -> Candidate:
    refused = None if algorithm.portable else policy.portable
    if reason := refused or refuses(algorithm, role, spec) or _mixes(algorithm, spec, policy):
        return Candidate(algorithm, reason)
    fits, images = fitting(algorithm, role, spec)
    work, needed = steps(fits, role, spec), workspace(fits, role, spec)
    if reason := _above(needed, fits, role, spec) or _is_naive(work, spec):
        return Candidate(fits, reason)
    seconds = cost.total(work, needed, rates) if rates else math.inf
    return Candidate(fits, None, seconds, images)


def _mixes(algorithm: Algorithm, spec: ConvSpec, policy: Policy) -> str | None:
    fastest = policy.name == "fastest"
    if not algorithm.exact and not fastest:
        return "it mixes values: only by name, or with algorithm='fastest'"
    if not allowed(algorithm, spec, fastest):
        return "its rounding error is too large for this dtype and precision"
    return None


def _is_naive(work: Iterable[Step], spec: ConvSpec) -> str | None:
    natives = (step.spec for step in each(work) if isinstance(step, Native))
    if "int" in spec.accumulator and any(cost.route(native) == "naive" for native in natives):
        return "XLA has no convolution of these integers but a naive loop (CPU) or none (GPU)"
    return None


# -- memory ----------------------------------------------------------------------------------------


def fitting(algorithm: Algorithm, role: Role, spec: ConvSpec) -> tuple[Algorithm, int | None]:
    """The algorithm, or one that runs it on as many images at a time as there is memory for, and how many."""
    if not _too_large(algorithm, role, spec):
        return algorithm, None
    pieces = functools.partial(in_pieces, algorithm, role)
    halves = [spec.batch >> times for times in range(spec.batch.bit_length() - 1, 0, -1)]
    # the more images, the more memory: found in a few tries whatever the batch
    fit = bisect.bisect_left(halves, True, key=lambda n: _too_large(pieces(n), role, spec))
    images = equal(spec.batch, halves[fit - 1]) if fit else None
    return (pieces(images), images) if images else (algorithm, None)


def _too_large(algorithm: Algorithm, role: Role, spec: ConvSpec) -> bool:
    return _above(workspace(algorithm, role, spec), algorithm, role, spec) is not None


def _above(needed: int, algorithm: Algorithm, role: Role, spec: ConvSpec) -> str | None:
    """Why so many bytes of temporaries are too many, or None; XLA's own is exempt, as the fallback."""
    most = _most_bytes(role, spec)
    if algorithm == XLA or not isinstance(needed, int) or needed <= most:
        return None
    return f"it needs {si(needed)}B of temporaries; above {si(most)}B only by name"


def _most_bytes(role: Role, spec: ConvSpec) -> int:
    """Bytes of temporaries that "auto" allows: over 32 MiB only where XLA's own transposes x and y, too."""
    transposed = 2 if spec.channels_first else 1 if role == "grad_kernel" else 0
    return BOUND + transposed * spec.image_bytes


def si(number: float) -> str:
    """A number with its decimal prefix: 1.23 M."""
    for unit in ("", "k", "M", "G", "T"):
        if number < 1000 or unit == "T":
            return f"{number:.3g} {unit}"
        number /= 1000
    raise AssertionError
