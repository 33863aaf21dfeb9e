"""Measure which algorithm is fastest on this machine, for a program or for one convolution.

Without either: by how much this machine differs from the one whose rates "auto" estimates with.
"""

import argparse
import contextlib
import importlib
import importlib.util
import json
import runpy
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from jconv.api.problem import hashable, understand
from jconv.bench import fitting, options
from jconv.programs.tune import Progress, Tuned, tune
from jconv.runtime import store
from jconv.spec import ROLES, ConvSpec

FORWARD = ROLES[:1]
MEASURED = "measured.jsonl"
PLAIN = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "dtype": "float32"}  # where not given
OF_ONE = ("x", "w", *PLAIN, "forward_only")  # what a program says itself
OF_TUNING = ("cache", "again", "json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `main` reads."""
    add = parser.add_argument
    program = "module or file.py, and in it a function without arguments that returns (fn, *args)"
    add("program", nargs="?", metavar="MODULE:FUNCTION", help=f"{program}: fn(*args) is tuned")
    add("--x", type=sizes, metavar="N,C,H,W", help="instead: the input of one convolution, channels first")
    add("--w", type=sizes, metavar="O,C,R,S", help="its kernel, 1 to 3 dimensions")
    add("--stride", type=sizes, metavar="S", help="one, or one per dimension, with commas (1)")
    add("--padding", type=padding, metavar="P", help="likewise, or 'same', 'valid', 'causal' (0)")
    add("--dilation", type=sizes, metavar="D", help="likewise (1)")
    add("--groups", type=int, metavar="G", help="(1)")
    add("--dtype", help="(float32)")
    add("--forward-only", action="store_true", default=None, help="leave the gradients of the one out")
    add("--cache", metavar="FILE", help=f"keep the winners there instead of {store.default_path()}")
    add("--again", action="store_true", help="also measure what is in the cache already")
    add("--rounds", type=options.positive, default=7, metavar="N", help="turns each candidate takes (7)")
    add("--fit", action="store_true", help="instead: measure many problems and fit the record of rates")
    add("--measured", type=options.writable, metavar="FILE", help=f"of --fit: its times, kept ({MEASURED})")
    add("--budget", type=options.budget, metavar="SECONDS", help="of --fit: measure no longer than that")
    add("--json", action="store_true", help="print the times as JSON, not as a table")


def main(args: argparse.Namespace) -> int:
    """Tune and print; 0, 1 if the winners could not be kept, 2 with the reason on stderr for wrong usage."""
    try:
        if args.fit:
            return fitting.main(for_fit(args))
        if given := [name for name in ("measured", "budget") if getattr(args, name) is not None]:
            raise ValueError(f"--{given[0]} goes with --fit; add that or leave it out")
        what = problem(args)
        if args.cache:
            store.use(args.cache)
        with warnings.catch_warnings(record=True) as caught, _bar() as progress:
            warnings.simplefilter("always", RuntimeWarning)
            tuned = tune(*what, rounds=args.rounds, again=args.again, progress=progress)
    except (ValueError, TypeError, OSError, ImportError, KeyError) as error:
        print(f"python -m jconv tune: error: {error}", file=sys.stderr)
        return 2
    print(as_json(tuned) if args.json else tuned)
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        print(message, file=sys.stderr)
    if caught:
        return 1
    print(f"kept in {store.path()}", file=sys.stderr)
    return 0


def as_json(tuned: Tuned) -> str:
    """The rows as a list of objects."""
    return json.dumps(tuned.as_dicts(), indent=1)


def for_fit(args: argparse.Namespace) -> argparse.Namespace:
    """The same with the defaults of --fit, whose problems are its own."""
    if given := [name for name in ("program", *OF_ONE, *OF_TUNING) if getattr(args, name)]:
        name = args.program or f"--{given[0].replace('_', '-')}"
        raise ValueError(f"--fit measures problems of its own; leave out {name}")
    unsaid = {"measured": MEASURED, "budget": float("inf")}
    return argparse.Namespace(**vars(args) | {k: v for k, v in unsaid.items() if getattr(args, k) is None})


def problem(args: argparse.Namespace) -> tuple[Any, ...]:
    """The arguments of `tune`: none, a function with its own, or the roles of one spec."""
    of_one = [f"--{name.replace('_', '-')}" for name in OF_ONE if getattr(args, name) is not None]
    if args.program and of_one:
        raise ValueError(
            f"{args.program} brings its own convolutions; leave out {', '.join(of_one)}, "
            "or name one convolution by --x and --w instead"
        )
    if args.program:
        return called(args.program)
    if not of_one:
        return ()
    if not (args.x and args.w):
        raise ValueError("name a program as MODULE:FUNCTION, or one convolution by --x and --w")
    spec = one_spec(args)
    if spec.is_empty:
        raise ValueError("the convolution of --x with --w is empty, nothing to tune; no size may be 0")
    return ([(spec, role) for role in (FORWARD if args.forward_only else ROLES)],)


def one_spec(args: argparse.Namespace) -> ConvSpec:
    """The convolution of --x with --w, checked as `conv2d` checks its arguments."""
    ndim = len(args.w) - 2
    given = {name: default if getattr(args, name) is None else getattr(args, name)
             for name, default in PLAIN.items()}  # fmt: skip
    knobs = {name: given[name] for name in ("stride", "padding", "dilation", "groups")} | dict(
        padding_mode="zeros", layout=None, algorithm="auto", precision=None, preferred_element_type=None
    )
    return understand(ndim, "forward", args.x, args.w, given["dtype"], hashable(knobs)).spec


def called(target: str) -> tuple[Any, ...]:
    """What the user's function returns: (fn, *args)."""
    where, _, name = target.rpartition(":")
    if not where:
        raise ValueError(f"{target!r} must be MODULE:FUNCTION or FILE.py:FUNCTION")
    names = runpy.run_path(where) if where.endswith(".py") else vars(importlib.import_module(where))
    if not callable(names.get(name)):
        raise ValueError(f"{where} has no function {name!r}")
    result = names[name]()
    if not (isinstance(result, tuple) and result and callable(result[0])):
        raise ValueError(f"{target} must return (fn, *args), got {type(result).__name__}")
    return result


def sizes(written: str) -> tuple[int, ...]:
    """Whole numbers with commas between.

    >>> sizes("8,64,56,56")
    (8, 64, 56, 56)
    """
    try:
        return tuple(int(part) for part in written.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{written!r} must be whole numbers, as in 8,64,56,56") from None


def padding(written: str) -> str | tuple[int, ...]:
    """A name or whole numbers."""
    return written if written.isalpha() or "_" in written else sizes(written)


@contextlib.contextmanager
def _bar() -> Iterator[bool | Progress]:
    """rich's progress bar on a terminal, if it is installed; else the line that `tune` writes itself."""
    if not (sys.stderr.isatty() and importlib.util.find_spec("rich")):
        yield True
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as bar:
        task = bar.add_task("tracing")
        tell: Callable[[int, int, str], None] = lambda done, total, what: bar.update(  # noqa: E731
            task, completed=done, total=total, description=what
        )
        yield tell
