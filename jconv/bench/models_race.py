"""Race whole models, accelerated against plain, and against the same architecture in PyTorch.

Needs the extra [models]: Flax, Equinox, Haiku, Keras and optax.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax

import jconv
from jconv.bench import models_torch, options, progress
from jconv.bench.models import MODELS, Built, Model, keras_applications
from jconv.bench.timing import race

PASSES = ("forward", "train")  # train: loss, and the gradient of every parameter
HEADINGS = ("model", "library", "pass", "batch", "plain ms", "jconv ms", "faster", "PyTorch ms", "of PyTorch")


@dataclasses.dataclass(frozen=True)
class Result:
    """One line: seconds, and their quotients (see `jconv.bench.timing`)."""

    model: str
    library: str
    what: str
    batch: int
    plain: float
    fast: float
    faster: float  # plain / jconv
    torch: float | None = None
    of_torch: float | None = None  # PyTorch / jconv: 1 is as fast

    def cells(self) -> tuple[str, ...]:
        """The line as text."""
        ms = (f"{1e3 * s:.1f}" if s is not None else "-" for s in (self.plain, self.fast, self.torch))
        plain, fast, torch = ms
        share = f"{self.of_torch:.2f}" if self.of_torch is not None else "-"
        about = (self.model, self.library, self.what, str(self.batch))
        return (*about, plain, fast, f"{self.faster:.2f}×", torch, share)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which models, batches and passes, and for how long."""
    parser.add_argument("names", nargs="*", metavar="MODEL", help=f"some of {', '.join(map(str, MODELS))}")
    parser.add_argument("--batch", type=options.positive, nargs="+", default=[1, 8], metavar="N",
                        help="batch sizes")  # fmt: skip
    parser.add_argument("--only", choices=PASSES, help="only this pass")
    parser.add_argument("--rounds", type=options.positive, default=5, help="rounds of every race")
    parser.add_argument("--reduced", action="store_true", help="the small variants that the tests run")
    parser.add_argument("--no-torch", action="store_true", help="without PyTorch")


def main(args: argparse.Namespace) -> int:
    """Print the table line by line, as each race is over."""
    wanted = {name.lower() for name in args.names}
    unknown = wanted - {model.name.lower() for model in MODELS}
    if unknown:
        names = ", ".join(map(str, MODELS))
        print(f"no such model: {', '.join(sorted(unknown))}; there are {names}", file=sys.stderr)
        return 2
    chosen = [model for model in MODELS if not wanted or model.name.lower() in wanted]
    if missing := [model for model in chosen if not model.is_here()]:
        names = ", ".join(sorted({model.library for model in missing}))
        print(f"{names} is not installed; pip install 'jconv[models]'", file=sys.stderr)
        return 2
    try:
        if any(model.library == "keras" for model in chosen):
            keras_applications()  # a backend other than JAX is better known now than after the races
    except RuntimeError as error:
        print(f"python -m jconv bench --models: error: {error}", file=sys.stderr)
        return 2
    widths = [max(len(heading), 10) for heading in HEADINGS]
    widths[0] = max(len(model.name) for model in MODELS)
    print(_line(HEADINGS, widths), flush=True)
    races = len(chosen) * len(args.batch) * (1 if args.only else len(PASSES))
    with progress.bar("racing", races, silent=True) as advance:
        for model in chosen:
            for result in results(model, args):
                print(_line(result.cells(), widths), flush=True)
                advance(f"after {model}, {result.what}, batch {result.batch}")
    return 0


def results(model: Model, args: argparse.Namespace) -> Iterator[Result]:
    """Every batch size and pass of one model."""
    built = model.build(not args.reduced)
    for batch in args.batch:
        with_torch = not (args.no_torch or args.reduced)
        torch = models_torch.calls(model.name, batch) if with_torch else {}
        for what in [args.only] if args.only else PASSES:
            yield one(model, built, what, batch, args.rounds, torch.get(what))


def one(
    model: Model, built: Built, what: str, batch: int, rounds: int, torch: Callable[[], Any] | None = None
) -> Result:
    """One race."""
    fun = built.apply if what == "forward" else jax.value_and_grad(built.loss, has_aux=True)
    x = built.inputs(batch)
    plain, fast = jax.jit(fun), jax.jit(jconv.accelerate(fun))
    calls = {"plain": lambda: plain(built.params, x), "jconv": lambda: fast(built.params, x)}
    times = race(calls | ({"torch": torch} if torch else {}), rounds)
    line = Result(
        model.name, model.library, what, batch,
        times.median("plain"), times.median("jconv"), times.ratio("plain", "jconv"),
    )  # fmt: skip
    if torch is None:
        return line
    return dataclasses.replace(line, torch=times.median("torch"), of_torch=times.ratio("torch", "jconv"))


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
