"""Measuring instead of estimating: time every candidate for every convolution of a program, keep the winners.

    collect     the convolutions of a function, forward and gradients, as jconv will run them
    candidates  what `choose` would consider: whatever does not refuse, is accurate enough for "auto" and
                is estimated at no more than `within` times the best estimate
    race        all compiled as in a call, from the user's axes to them, and run once; the hopeless dropped,
                but never what was chosen before nor "xla"; then rounds in which each takes a turn in
                random order, so that a drift of the machine meets all alike; the median counts
    store       the winner, after each convolution: whoever interrupts keeps what was measured

It is cuDNN's benchmark mode, but asked for and kept.  Near ties go to what was chosen before, not to noise.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any, Unpack

import jax
import numpy as np

from jconv.algorithms import ALGORITHMS, XLA
from jconv.algorithms.record import Algorithm, run
from jconv.api import arguments
from jconv.api.options import ProblemOptions, complete, spelled_out
from jconv.calculus.primitives import OPERANDS, RESULT, ROLE_OF
from jconv.choice import winners
from jconv.choice.pick import best_form, choose
from jconv.programs.choose import Operand, is_operand, spec_of
from jconv.programs.found import Place, find, program
from jconv.spec import ROLES, ConvSpec, Role
from jconv.spec.checks import shown
from jconv.spec.layout import Perm, inverse

Problem = tuple[ConvSpec, Role]
Call = Callable[[], jax.Array]
Progress = Callable[[int, int, str], None]

HOPELESS = 3.0  # times the best: out after the first call, unless it has to be compared with
NEAR_TIE = 1.03  # a winner has to be faster than what was chosen before by more than medians differ
MEASUREMENT = 0.005  # seconds one turn should last
MOST_REPEATS = 100
HEADINGS = ("count", "role", "convolution", "before", "fastest", "gain")


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
        """The row as text, in the order of `HEADINGS`."""
        times = {name: f"{name} {seconds * 1e3:.3g} ms" for name, seconds in self.seconds.items()}
        before, fastest = (times.get(name, name) for name in (self.before, self.algorithm))
        gain = "known" if self.known else "-" if self.gain != self.gain else f"{self.gain:.2f}×"
        return f"{self.count}×", self.role, str(self.spec), before, fastest, gain


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What `tune` returns: a row per convolution; prints as a table, in a notebook as an HTML one."""

    rows: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def as_dicts(self) -> list[dict[str, Any]]:
        """One dictionary a row, in plain types."""
        return [vars(row) | {"spec": str(row.spec), "seconds": dict(row.seconds), "failed": dict(row.failed)}
                for row in self.rows]  # fmt: skip

    def __repr__(self) -> str:
        return str(self)

    @property
    def summary(self) -> str:
        """The sums over one run of the program."""
        timed = [row for row in self.rows if row.before in row.seconds]
        before = 1e3 * sum(row.count * row.seconds[row.before] for row in timed)
        after = 1e3 * sum(row.count * row.seconds[row.algorithm] for row in timed)
        changed = sum(row.before != row.algorithm for row in self.rows)
        return f"{len(self)} convolutions, {changed} changed: {before:.3g} ms before, {after:.3g} ms now"

    def __str__(self) -> str:
        lines = [HEADINGS, *(row.cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        return "\n".join([*text, self.summary])

    def _repr_html_(self) -> str:
        def tr(cells: Iterable[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = "".join(tr(row.cells(), "td") for row in self.rows)
        return f"<table><caption>{html.escape(self.summary)}</caption>{tr(HEADINGS, 'th')}{body}</table>"


@spelled_out(ProblemOptions)
def tune(
    fn_or_specs: Callable[..., Any] | ConvSpec | Operand | Iterable[ConvSpec | Problem],
    *args: Any,
    rounds: int = 7,
    within: float = 20.0,
    again: bool = False,
    progress: bool | Progress = True,
    **options: Unpack[ProblemOptions],
) -> Tuned:
    """Time the candidates for every convolution, and let "auto" take the fastest from now on.

    The winners are kept in a file (`jconv.runtime.store.path()`, set by `jconv.runtime.store.use`) for this
    device, this version of jax and exactly these sizes.  What is compiled already keeps its
    algorithm: tune first, or call `jax.clear_caches()` afterwards.

    Args:
      fn_or_specs: a function, every convolution in which is tuned (hand in the gradient to have the
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
      `Tuned`: a row per convolution.

    Raises:
      ValueError, TypeError: an argument is wrong.  RuntimeError: no candidate runs.

    >>> import jax, jax.numpy as jnp, jconv
    >>> from jconv.choice import winners
    >>> from jconv import tune
    >>> winners.use(None)  # in memory only
    >>> def layer(x, w):
    ...     return jconv.conv2d(x, w, stride=2)
    >>> x, w = jax.ShapeDtypeStruct((1, 4, 9, 9), "float32"), jax.ShapeDtypeStruct((8, 4, 1, 1), "float32")
    >>> tuned = tune(layer, x, w, rounds=1, progress=False)
    >>> [row.role for row in tuned], tuned.rows[0].algorithm in tuned.rows[0].seconds
    (['forward'], True)
    """
    if not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"`rounds`={shown(rounds)} must be an int of at least 1")
    if not isinstance(within, (int, float, np.number)) or not within >= 1:
        raise ValueError(f"`within`={shown(within)} must be a number of at least 1")
    found = collect(fn_or_specs, *args, **options)
    tell: Progress = progress if callable(progress) else _line if progress else lambda *what: None
    rows = []
    for done, ((spec, role), count) in enumerate(found.items()):
        tell(done, len(found), f"{role} of {spec}")
        rows.append(_known(spec, role, count, again) or _measured(spec, role, count, rounds, within))
    tell(len(found), len(found), "")
    return Tuned(tuple(rows))


def _line(done: int, total: int, what: str) -> None:
    """On a terminal one line that is written over, elsewhere one line each."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K[{done}/{total}] {what}" if what else "\r\x1b[K", end="", file=sys.stderr, flush=True)
    elif what:
        print(f"[{done}/{total}] {what}", file=sys.stderr, flush=True)


# -- collect ---------------------------------------------------------------------------------------


def collect(fn_or_specs: Any, *args: Any, **options: Any) -> Counter[Problem]:
    """The problems of a function, of an input with its kernel or of a list, each with how often it is run.

    >>> from jconv.spec import ConvSpec
    >>> [role for spec, role in collect(ConvSpec.of(spatial=(5,), kernel=(3,)))]
    ['forward', 'grad_input', 'grad_kernel']
    """
    if is_operand(fn_or_specs):
        options = complete("tune", ProblemOptions, options)
        if len(args) > 1:
            raise TypeError(f"tune() takes an input and its kernel by position, got {len(args) - 1} more")
        return Counter(_problem(spec_of(fn_or_specs, args[0] if args else None, options)))
    if options:
        raise TypeError(f"`{next(iter(options))}` goes with an input and a kernel, not with what came")
    if callable(fn_or_specs):
        return _found(find(program(fn_or_specs, args, {})))
    if args:
        raise TypeError("arguments go with a function; specs take none")
    specs = fn_or_specs if isinstance(fn_or_specs, Iterable) else [fn_or_specs]
    return Counter(problem for entry in specs for problem in _problem(entry))


def _problem(entry: Any) -> list[Problem]:
    if isinstance(entry, ConvSpec):
        return [problem for role in ROLES for problem in _problem((entry, role))]
    spec, role = entry if isinstance(entry, tuple) and len(entry) == 2 else (entry, None)
    if not isinstance(spec, ConvSpec) or role not in ROLES:
        raise TypeError(
            "`fn_or_specs` must be a function, ConvSpecs or (spec, role) pairs, or an input and its kernel "
            f"as `choose` takes them, got {shown(entry)}"
        )
    if spec.is_empty:
        raise ValueError(f"`fn_or_specs`: {spec} is empty, nothing to tune; take one that has outputs")
    return [(spec, role)]


def _found(places: Iterable[Place]) -> Counter[Problem]:
    """Count what "auto" will choose for, also in loops, branches and calls."""
    found: Counter[Problem] = Counter()
    for place in places:
        if place.problem and place.problem.algorithm == "auto" and not place.problem.spec.is_empty:
            found[place.problem.spec, place.problem.role] += place.count
    return found


# -- measure ---------------------------------------------------------------------------------------


def _known(spec: ConvSpec, role: Role, count: int, again: bool) -> Row | None:
    """What the cache has."""
    winner, entry = winners.winner(spec, role), winners.entry(spec, role)
    if again or winner is None or entry is None or winner not in entry["seconds"]:
        return None
    return Row(spec, role, count, winner, winner, entry["seconds"], known=True)


def _measured(spec: ConvSpec, role: Role, count: int, rounds: int, within: float) -> Row:
    choice = choose(spec, role)
    before, kept = choice.algorithm.name, {choice.algorithm.name, XLA.name}
    most = within * min(choice.seconds.values())
    names = [name for name, estimate in choice.seconds.items() if estimate <= most or name in kept]
    calls, failed = _compiled(names, role, spec)
    seconds = race(calls, rounds, failed, kept)
    if not seconds:
        raise RuntimeError(f"nothing could run {role} of {spec}: {failed}")
    fastest = next(iter(seconds))
    if seconds.get(before, float("inf")) <= NEAR_TIE * seconds[fastest]:
        fastest = before
    winners.keep(spec, role, None, seconds, fastest)
    return Row(spec, role, count, before, fastest, seconds, failed)


def _compiled(names: Iterable[str], role: Role, spec: ConvSpec) -> tuple[dict[str, Call], dict[str, str]]:
    """A compiled call of each candidate on random operands, and why others do not compile."""
    operands = [_random(name, spec) for name in OPERANDS[role]]
    calls: dict[str, Call] = {}
    failed: dict[str, str] = {}
    for name in names:
        form = best_form(ALGORITHMS[name], role, spec, jax.default_backend())
        fn = functools.partial(_as_called, form, role, spec)
        try:
            calls[name] = functools.partial(jax.jit(fn).lower(*operands).compile(), *operands)
        except Exception as error:  # whatever it is, another candidate may do
            failed[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return calls, failed


def _axes(spec: ConvSpec) -> dict[str, Perm]:
    """How the axes of each array in a call become the canonical ones."""
    layout = arguments.layout("NCHW" if spec.channels_first else "NHWC", spec.ndim)
    return {"x": layout.x, "w": layout.w, "y": layout.y_in}


def _as_called(algorithm: Algorithm, role: Role, spec: ConvSpec, *arrays: jax.Array) -> jax.Array:
    """`run` as the door calls it: an algorithm may take the arrays as they lie or pay for turning them, and
    which of the two it is shows only where the compiler sees it together with the turning."""
    axes = _axes(spec)
    a, b = (array.transpose(axes[name]) for name, array in zip(OPERANDS[role], arrays, strict=True))
    return run(algorithm, role, a, b, spec).transpose(inverse(axes[RESULT[role]]))


def _random(name: str, spec: ConvSpec) -> jax.Array:
    """An operand as a call lays it out: noise, for zeros and small integers may be faster than data."""
    canonical, named = spec.result(ROLE_OF[name])
    shape, dtype = tuple(canonical[axis] for axis in inverse(_axes(spec)[name])), np.dtype(named)
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, shape) if dtype.kind in "iub" else rng.standard_normal(shape, np.float32)
    array = jax.device_put(values.astype(dtype))
    if array.dtype != dtype:
        raise ValueError(f"{dtype} needs 64-bit types: jax.config.update('jax_enable_x64', True)")
    return array


def race(
    calls: Mapping[str, Call], rounds: int, failed: dict[str, str], kept: Container[str] = ()
) -> dict[str, float]:
    """Median seconds per call of the hopeful and the `kept`, the least first; adds to `failed`."""
    once = {}
    for name, call in calls.items():
        try:
            seconds_of(call, 1)
            once[name] = seconds_of(call, 1)
        except jax.errors.JaxRuntimeError as error:  # out of memory, perhaps
            failed[name] = str(error).partition("\n")[0]
    most = HOPELESS * min(once.values(), default=0.0)
    racers = [name for name in once if once[name] <= most or name in kept]
    repeats = {n: max(1, min(MOST_REPEATS, round(MEASUREMENT / max(once[n], 1e-9)))) for n in racers}
    turns: dict[str, list[float]] = {name: [] for name in racers}
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(racers)
        for name in racers:
            turns[name].append(seconds_of(calls[name], repeats[name]))
    medians = {name: statistics.median(times) for name, times in turns.items()}
    return dict(sorted(medians.items(), key=lambda item: item[1]))


def seconds_of(call: Call, repeats: int) -> float:
    """Seconds per call now, each call until its result is there."""
    start = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(call())
    return (time.perf_counter() - start) / repeats
