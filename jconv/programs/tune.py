"""Measuring instead of estimating: time every candidate for every convolution of a program, keep the winners.

    collect     the convolutions of a function, forward and gradients, as jconv will run them
    candidates  what `choose` would consider, estimated at no more than `within` times the best
    race        in turns (`measure.race`), what was chosen before and "xla" always among them
    store       the winner, after each convolution: whoever interrupts keeps what was measured

It is cuDNN's benchmark mode, but asked for and kept.  Near ties go to what was chosen before, not to noise.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from types import EllipsisType
from typing import Any, Unpack

import numpy as np

from jconv.algorithms import XLA
from jconv.api.options import ProblemOptions, spelled_out
from jconv.choice import winners
from jconv.choice.pick import choose
from jconv.programs.calibrate import calibrate
from jconv.programs.choose import Asked, Problem, no_options, stated
from jconv.programs.found import find, program
from jconv.programs.measure import compiled, race
from jconv.programs.table import Rows
from jconv.spec import ConvSpec, Role
from jconv.spec.checks import shown

Progress = Callable[[int, int, str], None]

NEAR_TIE = 1.03  # a winner has to be faster than what was chosen before by more than medians differ
OWN = ("rounds", "within", "again", "progress")  # options of `tune` that tell no convolution


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured of one convolution.

    Args:
      spec, role: the problem.
      count: how often the program runs it.
      before: what `choose` answered so far.
      algorithm: the winner, which it answers from now on.
      seconds: median time per call of each candidate that stayed in the race, the least first.
      failed: candidates that did not compile or run, and why.
      known: True where the cache had it already and nothing was measured.
    """

    spec: ConvSpec
    role: Role
    count: int
    before: str
    algorithm: str
    seconds: Mapping[str, float]
    failed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    known: bool = False

    @property
    def gain(self) -> float:
        """How many times faster the winner is than what was chosen before; `nan` where that did not run."""
        return self.seconds.get(self.before, float("nan")) / self.seconds[self.algorithm]

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of `Tuned.headings`."""
        times = {name: f"{name} {seconds * 1e3:.3g} ms" for name, seconds in self.seconds.items()}
        before, fastest = (times.get(name, name) for name in (self.before, self.algorithm))
        gain = "known" if self.known else "-" if self.gain != self.gain else f"{self.gain:.2f}×"
        return f"{self.count}×", self.role, str(self.spec), before, fastest, gain


@dataclasses.dataclass(frozen=True, repr=False)
class Tuned(Rows):
    """What `tune` returns: a row per convolution; prints as a table, in a notebook as an HTML one.

    Args:
      rows: what was measured of each.
      factors: of `tune()`: how many times as long as on record each kind of work takes on this machine.
    """

    headings = ("count", "role", "convolution", "before", "fastest", "gain")
    rows: tuple[Row, ...]
    factors: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def as_dicts(self) -> list[dict[str, Any]]:
        """One dictionary a row, in plain types."""
        return [vars(row) | {"spec": str(row.spec), "seconds": dict(row.seconds), "failed": dict(row.failed)}
                for row in self.rows]  # fmt: skip

    @property
    def summary(self) -> str:
        """The sums over one run of the program, or the factors."""
        if self.factors:
            times = ", ".join(f"{kind} {by:.2f}×" for kind, by in self.factors.items())
            return f"as long as on record: {times}"
        timed = [row for row in self.rows if row.before in row.seconds]
        before = 1e3 * sum(row.count * row.seconds[row.before] for row in timed)
        after = 1e3 * sum(row.count * row.seconds[row.algorithm] for row in timed)
        changed = sum(row.before != row.algorithm for row in self.rows)
        return f"{len(self)} convolutions, {changed} changed: {before:.3g} ms before, {after:.3g} ms now"


@spelled_out(ProblemOptions)
def tune(
    fn_or_specs: Asked | EllipsisType = ...,
    *args: Any,
    rounds: int = 7,
    within: float = 20.0,
    again: bool = False,
    progress: bool | Progress = True,
    **options: Unpack[ProblemOptions],
) -> Tuned:
    """Time the candidates for every convolution, and let "auto" take the fastest from now on.

    Without arguments nothing is timed but a dozen small convolutions, in a second or two: by how much this
    machine differs from the one whose rates "auto" estimates with (`Tuned.factors`).  The winners are kept in
    a file (`jconv.runtime.store.path()`, set by `jconv.runtime.store.use`) for this device, this version of
    jax and exactly these sizes.  What is compiled already keeps its algorithm until `jax.clear_caches()`.

    Args:
      fn_or_specs: nothing; a function, every convolution in which is tuned (hand in the gradient to have the
        backward pass tuned, too); or an input as `choose` takes it, a `ConvSpec` or several of them, of
        which all three roles are; or `(spec, role)` pairs.
      *args: the arguments of the function, for which `jax.ShapeDtypeStruct` does for an array; or the
        kernel that goes with an input.
      rounds: how many times each candidate takes its turn.
      within: candidates that are estimated at more than this many times the best are not tried.
      again: also measure what the cache has already.
      progress: True tells on stderr how far it is, False nothing; or a function of (done, total, what).
      stride, padding, …, dtype: beside an input and a kernel, as in `choose` and as in `conv2d`.

    Returns:
      `Tuned`: a row per convolution, and the factors of this machine where nothing was asked for.

    Raises:
      ValueError, TypeError: an argument is wrong.  RuntimeError: no candidate runs.

    >>> import jconv
    >>> from jconv.runtime import store
    >>> store.use(None)  # in memory only
    >>> tuned = jconv.tune((1, 4, 9, 9), (8, 4, 1, 1), stride=2, rounds=1, progress=False)
    >>> [row.role for row in tuned], tuned.rows[0].algorithm in tuned.rows[0].seconds
    (['forward', 'grad_input', 'grad_kernel'], True)
    """
    _check_own(rounds, within, again, progress)
    tell: Progress = progress if callable(progress) else _line if progress else lambda *what: None
    if fn_or_specs is ... and not args and not options:
        return Tuned((), calibrate(tell=tell))
    found = collect(fn_or_specs, *args, **options)
    rows = []
    for done, ((spec, role), count) in enumerate(found.items()):
        tell(done, len(found), f"{role} of {spec}")
        rows.append(_known(spec, role, count, again) or _measured(spec, role, count, rounds, within))
    tell(len(found), len(found), "")
    return Tuned(tuple(rows))


def _check_own(rounds: Any, within: Any, again: Any, progress: Any) -> None:
    """The options of `tune` that tell no convolution."""
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"`rounds`={shown(rounds)} must be an int of at least 1")
    if isinstance(within, bool) or not isinstance(within, (int, float, np.number)) or not within >= 1:
        raise ValueError(f"`within`={shown(within)} must be a number of at least 1")
    for name, value, more in (("again", again, ""), ("progress", progress, " or a function")):
        if not isinstance(value, (bool, np.bool_)) and not (more and callable(value)):
            raise TypeError(f"`{name}` must be True or False{more}, got {shown(value)}")


def _line(done: int, total: int, what: str) -> None:
    """On a terminal one line that is written over, elsewhere one line each."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K[{done}/{total}] {what}" if what else "\r\x1b[K", end="", file=sys.stderr, flush=True)
    elif what:
        print(f"[{done}/{total}] {what}", file=sys.stderr, flush=True)


def collect(fn_or_specs: Any, *args: Any, **options: Any) -> Counter[Problem]:
    """The problems of a function, of an input with its kernel or of a list, each with how often it is run.

    >>> from jconv.spec import ConvSpec
    >>> [role for spec, role in collect(ConvSpec.of(spatial=(5,), kernel=(3,)))]
    ['forward', 'grad_input', 'grad_kernel']
    """
    if not callable(fn_or_specs):
        return Counter(stated("tune", fn_or_specs, args, options, OWN))
    no_options("tune", options, "a function", OWN)
    found: Counter[Problem] = Counter()
    for place in find(program(fn_or_specs, args, {})):
        problem = place.problem
        if problem and problem.algorithm == "auto" and not problem.spec.is_empty:
            found[problem.spec, problem.role] += place.count
    return found


def _known(spec: ConvSpec, role: Role, count: int, again: bool) -> Row | None:
    """What the cache has."""
    winner, seconds = winners.winner(spec, role), winners.entry(spec, role).get("seconds", {})
    if again or winner is None or winner not in seconds:
        return None
    return Row(spec, role, count, winner, winner, seconds, known=True)


def _measured(spec: ConvSpec, role: Role, count: int, rounds: int, within: float) -> Row:
    choice = choose(spec, role)
    before, kept = choice.algorithm.name, {choice.algorithm.name, XLA.name}
    most = within * min(choice.seconds.values())
    names = [name for name, estimate in choice.seconds.items() if estimate <= most or name in kept]
    calls, failed = compiled(names, role, spec)
    seconds = race(calls, rounds, failed, kept)
    if not seconds:
        raise RuntimeError(f"nothing could run {role} of {spec}: {failed}")
    fastest = next(iter(seconds))
    if seconds.get(before, float("inf")) <= NEAR_TIE * seconds[fastest]:
        fastest = before
    winners.keep(spec, role, None, seconds, fastest)
    return Row(spec, role, count, before, fastest, seconds, failed)
