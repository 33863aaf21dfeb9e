"""The main job of the command line: check every algorithm on this machine, then time the ladder.

The table has one row for each step of the lesson; -v gives every algorithm a row, and says what each was
checked on.  Progress goes to stderr, the outcome to stdout.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import jax
import numpy as np

import jconv
from jconv.algorithms import ALGORITHMS, FORMS
from jconv.algorithms.record import Algorithm, refuses
from jconv.bench import ladder, options, progress
from jconv.bench.ladder import Row
from jconv.choice.winners import cores, processor
from jconv.testing import cases, check
from jconv.testing.cases import Case
from jconv.testing.check import Verdict

if TYPE_CHECKING:  # rich is in the extra [cli]: whoever imports this module need not have it
    from rich.table import Table

DESCRIPTION = """\
Check every algorithm and its gradients on this machine against NumPy in float64 and against lax, then
time the ladder of every convolution lesson: the quadruple loop, im2col by hand, a strided view with
einsum, one of jconv's jitted algorithms, the one jconv picks, lax, and PyTorch where it is installed."""
FEW = ("same", "winograd_size", "everything", "multiplier", "pointwise", "1d_causal", "3d_everything",
       "transposed_groups")  # fmt: skip
HALVES = ("same", "multiplier")
EPILOG = "Exit status: 0 if everything agreed, 1 if anything did not, 2 for wrong usage, 130 if interrupted."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the main job."""
    parser.add_argument("--rounds", type=options.positive, default=7, metavar="N",
                        help="how many times each rung is timed, in turn (default: %(default)s)")  # fmt: skip
    parser.add_argument("--algorithm", action="append", choices=ALGORITHMS, metavar="NAME",
                        help="check and time only this one; may be repeated")  # fmt: skip
    parser.add_argument("--all-cases", action="store_true", help="check every geometry jconv has, not a few")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out even if it is installed")
    parser.add_argument("-v", "--verbose", action="store_true",
                        help="a row for every algorithm, and what each refused")  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Check, time, print; 0 if everything agreed, else 1."""
    import rich.console

    out = rich.console.Console(highlight=False)
    out.print(f"[bold]jconv {jconv.__version__}[/bold] on {machine()}", soft_wrap=True)
    if (others := busy()) is not None:
        out.print(f"[yellow]{others}[/yellow]", soft_wrap=True)
    algorithms = [ALGORITHMS[name] for name in args.algorithm or ALGORITHMS]
    verdicts = run_check(cases.CASES if args.all_cases else few_cases(), algorithms)
    for line in summary(verdicts, args.verbose):
        out.print(line, soft_wrap=True)
    shown = algorithms if args.verbose or args.algorithm else [ALGORITHMS[ladder.STEP]]
    rows = run_ladder(ladder.rungs(algorithms=shown, with_torch=not args.no_torch), args.rounds)
    out.print(table(rows))
    wrong = [v for v in verdicts if not v.agrees] + [row for row in rows if not row.agrees]
    out.print(closing(len(wrong)), soft_wrap=True)
    return 1 if wrong else 0


def machine() -> str:
    """What the numbers hold for: the device, the cores this process may use, and the versions."""
    device = jax.devices()[0]
    kind = processor() if device.platform == "cpu" else device.device_kind
    versions = f"jax {jax.__version__}, NumPy {np.__version__}, Python {platform.python_version()}"
    return f"{kind}, {cores()} CPU cores; {versions}"


def busy() -> str | None:
    """A warning where other programs had the processor just before: libraries that share their work
    among threads and wait for the last of them then lose a factor of 10 and more, others hardly any."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < cores() / 2:
        return None
    return f"Other programs keep {load:.1f} of {cores()} cores busy: the times below are not to be trusted."


def few_cases() -> tuple[Case, ...]:
    """One geometry of each kind, two of them in bfloat16 as well, and for an algorithm that refuses all of
    those the first in the table that it takes."""
    chosen = list(map(cases.named, FEW))
    for case in map(cases.named, HALVES):
        chosen.append(Case(f"{case.name}_bfloat16", case.spec.with_dtype("bfloat16"), case.tags))
    for algorithm in FORMS:
        if not _taken(algorithm, chosen):
            chosen += _taken(algorithm, cases.CASES)[:1]
    return tuple(chosen)


def _taken(algorithm: Algorithm, problems: Iterable[Case]) -> list[Case]:
    return [case for case in problems if refuses(algorithm, "forward", case.spec) is None]


def run_check(problems: tuple[cases.Case, ...], algorithms: list[Algorithm]) -> list[Verdict]:
    """All verdicts; the bar moves with every case an algorithm is through with."""
    verdicts, seen = [], set()
    with progress.bar("checking the algorithms", len(problems) * len(algorithms)) as advance:
        for verdict in check.check(problems, algorithms):
            verdicts.append(verdict)
            if (key := (verdict.case, verdict.algorithm)) not in seen:
                seen.add(key)
                advance(verdict.algorithm)
    return verdicts


def run_ladder(ways: list[ladder.Rung], rounds: int) -> list[Row]:
    """The rows; the bar moves with every turn of every rung."""
    with progress.bar("timing the ladder", len(ways) * rounds) as advance:
        return ladder.climb(ways, rounds=rounds, after_each=advance)


def summary(verdicts: list[Verdict], verbose: bool = False) -> Iterator[str]:
    """One line if all is well, one for every result that is not; `verbose` names who computed and refused.

    >>> list(summary([Verdict("im2col", "same", "forward", "lax", error=1e-7, bound=1e-6)]))
    ['[green]✓[/green] 1 of 1 results agree: 1 algorithms, 1 problems, forward and gradients']
    """
    computed = [v for v in verdicts if v.refused is None]
    wrong = [v for v in computed if not v.agrees]
    names, problems = list(dict.fromkeys(v.algorithm for v in computed)), {v.case for v in computed}
    mark = "[red]✗[/red]" if wrong else "[green]✓[/green]"
    line = f"{mark} {len(computed) - len(wrong)} of {len(computed)} results agree: {len(names)} algorithms"
    yield f"{line}, {len(problems)} problems, forward and gradients"
    refused = Counter(v.algorithm for v in verdicts if v.refused is not None)
    if verbose:
        yield f"  computed by {', '.join(names)}"
        if some := [f"{name} {count}" for name, count in refused.items() if name in names]:
            yield f"  refused as not theirs, with a reason: {', '.join(some)}"
    if idle := [name for name in refused if name not in names]:
        yield f"  [yellow]not checked[/yellow], refused every problem: {', '.join(idle)}"
    for verdict in wrong:
        yield f"  [red]wrong[/red] {verdict}"


def table(rows: list[Row]) -> Table:
    """The one table: every rung, its time, and how many times faster than the loop it is."""
    import rich.box
    from rich.table import Table

    title = f"\nOne convolution, {len(rows)} ways: {ladder.LESSON}"
    result = Table(title=title, title_justify="left", title_style="", box=rich.box.SIMPLE,
                   pad_edge=False, show_edge=False)  # fmt: skip
    for heading in ("way", "what it does", "time", "speed-up", "agrees"):
        number = heading in ("time", "speed-up")
        result.add_column(heading, justify="right" if number else "left", no_wrap=heading != "what it does")
    for row in rows:
        agrees = "yes" if row.agrees else f"[red]off by {row.error:.1e}[/red]"
        result.add_row(row.name, row.what, duration(row.seconds), f"{times(row.speedup)}×", agrees)
    return result


def duration(seconds: float) -> str:
    """Three digits in the unit that suits.

    >>> duration(1.5), duration(0.0123), duration(0.0000456)
    ('1.50 s', '12.3 ms', '45.6 µs')
    """
    factor, unit = (1, "s") if seconds >= 1 else (1e3, "ms") if seconds >= 1e-3 else (1e6, "µs")
    value = seconds * factor
    return f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}"


def times(ratio: float) -> str:
    """A ratio with as many digits as it means.

    >>> times(1.0), times(43.21), times(2198.4)
    ('1.0', '43', '2198')
    """
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"


def closing(wrong: int) -> str:
    """The last lines."""
    torch = "" if importlib.util.find_spec("torch") else "\nPyTorch is not installed and took no part."
    if wrong:
        return f"\n[red]{wrong} results do not agree.[/red]{torch}"
    return f"\nEverything agreed.  Speed-ups are the loop's time over the way's.  More with -v.{torch}"
