"""Race jconv against lax, and PyTorch where installed, over layers of well-known networks.

Every layer of `jconv.bench.layers` in three passes: each contestant's result is compared with lax's, then
they take turns.  Rows go to stdout as they come, a table of geometric means by family after them, and
what --csv, --json, --markdown and --chart name is written last.

    --device gpu        f32 without and with TensorFloat-32, bf16 and f16, both layouts, training batches,
                        and every algorithm by name: in under eight minutes, as many as they allow
    --models …          the rest of the line goes to the race of whole models
    --scaling …         the rest of the line goes to `python -m jconv scaling`
"""

import argparse
import functools
import importlib
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from jconv.bench import interrupts, layers, options, progress, report
from jconv.bench.contest import MODES, Entry, Result, contest
from jconv.bench.job import busy, machine
from jconv.bench.layers import FAMILIES, Layer
from jconv.spec import ROLES

HELP = "race jconv against lax and PyTorch over layers of well-known networks, family by family"
ELSEWHERE = {"models": "jconv.bench.models_race", "scaling": "jconv.bench.scaling"}
LAYOUTS = ("NHWC", "NCHW")
GPU_BUDGET = 400.0  # seconds: with the start and the last race it stays under eight minutes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to race, on what, for how long, and where to keep it."""
    add = parser.add_argument
    add("--device", choices=("cpu", "gpu"), default="cpu", help="where lax and jconv run (%(default)s)")
    add("--family", nargs="+", choices=FAMILIES, metavar="F", help=f"only these of {', '.join(FAMILIES)}")
    add("--only", default="", metavar="TEXT", help="only layers with TEXT in their name")
    add("--every", type=options.positive, default=1, metavar="K", help="only every K-th layer")
    add("--layout", choices=(*LAYOUTS, "both"), help="of the arrays (CPU: NHWC; GPU: both)")
    add("--mode", nargs="+", choices=MODES, metavar="M", help=f"of {', '.join(MODES)} (CPU: f32; GPU: all)")
    add("--batch", type=options.positive, metavar="N", help="instead of each layer's own (GPU: 32 to 128)")
    add("--algorithms", action="store_true", help="also each algorithm by name, in NHWC (GPU: always)")
    add("--rounds", type=options.positive, default=7, metavar="N", help="turns each one takes (%(default)s)")
    add("--budget", type=options.seconds, metavar="SECONDS",
        help=f"start no race after that many; families in turn (GPU: {GPU_BUDGET:g})")  # fmt: skip
    add("--seed", type=int, help="of the random arrays (another one every time)")
    add("--no-torch", action="store_true", help="leave PyTorch out even if it is installed")
    for kind in ("csv", "json", "markdown", "chart"):
        what = "draw the table, with matplotlib" if kind == "chart" else "keep every contestant's time"
        add(f"--{kind}", type=options.writable, metavar="FILE", help=what)
    for name in ELSEWHERE:
        add(f"--{name}", nargs=argparse.REMAINDER, metavar="…",
            help=f"the rest of the line goes there; --{name} --help tells more")  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Race and print; 0, 1 if a result was wrong or not kept, 2 for wrong usage, 130 if interrupted."""
    for name, module in ELSEWHERE.items():
        if getattr(args, name) is not None:
            return _elsewhere(name, module, getattr(args, name))
    try:
        if args.chart:
            report.drawable(args.chart)  # better known now than after the races
        device, platform = the_device(args.device)
        entries = all_entries(args, platform)
    except (RuntimeError, ValueError) as error:
        print(f"python -m jconv bench: error: {error}", file=sys.stderr)
        return 2
    print(f"{machine()}; on {device.device_kind}; {len(entries)} races")
    for warning in filter(None, [busy()]):
        print(warning)
    results: list[Result] = []
    try:
        with interrupts.insisting():
            for result in race_all(entries, device, args):
                results.append(result)
                print(report.row(result), flush=True)
    except KeyboardInterrupt:
        print(f"\ninterrupted after {len(results)} of {len(entries)} races", file=sys.stderr)
        _finish(results, args)
        return interrupts.INTERRUPTED
    return _finish(results, args)


def _elsewhere(name: str, module: str, rest: list[str]) -> int:
    command = importlib.import_module(module)
    parser = argparse.ArgumentParser(
        f"python -m jconv bench --{name}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # tables and paragraphs as they are written
    )
    command.add_arguments(parser)
    return command.main(parser.parse_args(rest))


def _finish(results: list[Result], args: argparse.Namespace) -> int:
    """The table, then the files; 1 if anything disagreed or could not be kept."""
    wrong = [f"{name}: {result.entry}" for result in results for name in result.wrong]
    for line in report.table(results):
        print(line)
    print(f"{len(results)} races, {len(wrong)} wrong results")
    for line in wrong:
        print(f"  wrong {line}")
    kept = [_keep(path, write, results) for path, write in _files(args) if path]
    return 0 if all(kept) and not wrong else 1


def _files(args: argparse.Namespace) -> list[tuple[str | None, Callable[[str, list[Result]], None]]]:
    about = f"jconv against lax and PyTorch on {machine()}"
    return [
        (args.csv, report.write_csv),
        (args.json, functools.partial(report.write_json, about=about)),
        (args.markdown, functools.partial(report.write_markdown, about=f"on {machine()}")),
        (args.chart, functools.partial(report.write_chart, about=about)),
    ]


def _keep(path: str, write: Callable[[str, list[Result]], None], results: list[Result]) -> bool:
    """Whether it could be written; what was measured has been printed either way."""
    try:
        write(path, results)
    except OSError as error:
        print(
            f"python -m jconv bench: error: cannot write {path!r}: {error.strerror or error}", file=sys.stderr
        )
        return False
    return True


def the_device(name: str) -> tuple[Any, str]:
    """JAX's device of that kind, and what `jconv.choose` calls its platform."""
    try:
        device = jax.devices(name)[0]
    except RuntimeError as error:
        raise RuntimeError(
            f"`--device {name}`: JAX {jax.__version__} finds no {name.upper()} here ({error}); "
            "on a machine with one, install jax with its plugin, as in  pip install 'jax[cuda13]'"
        ) from None
    if name == "cpu":
        return device, "cpu"
    return device, "cuda" if "nvidia" in device.device_kind.lower() else "rocm"


def all_entries(args: argparse.Namespace, platform: str) -> list[Entry]:
    """Every layer asked for, in each layout, mode and role, in the order they are raced."""
    chosen = [
        layer
        for layer in layers.LAYERS
        if (not args.family or layer.family in args.family) and args.only.lower() in layer.name.lower()
    ][:: args.every]
    if not chosen:
        raise ValueError(f"no layer of these families has {args.only!r} in its name")
    gpu = platform != "cpu"
    layouts = LAYOUTS if args.layout == "both" or (gpu and not args.layout) else (args.layout or LAYOUTS[0],)
    modes = args.mode or (list(MODES) if gpu else ["f32"])
    chosen = [_with_batch(layer, args.batch, gpu) for layer in chosen]
    kinds = [(layout, mode) for mode in modes for layout in layouts]
    if not (args.budget or gpu):
        pairs: Iterable[tuple[Layer, tuple[str, str]]] = ((layer, kind) for layer in chosen for kind in kinds)
    else:
        pairs = balanced(chosen, kinds)
    return [Entry(layer, role, layout, mode, platform) for layer, (layout, mode) in pairs for role in ROLES]


def balanced(chosen: list[Layer], kinds: list[tuple[str, str]]) -> Iterator[tuple[Layer, tuple[str, str]]]:
    """All pairs, so that wherever the time runs out families, layouts and modes had equal shares."""
    for turn in range(len(kinds)):
        for number, layer in enumerate(layers.round_robin(chosen)):
            yield layer, kinds[(number + turn) % len(kinds)]


def _with_batch(layer: Layer, batch: int | None, gpu: bool) -> Layer:
    batch = batch or (layers.training_batch(layer.spec) if gpu else layer.spec.batch)
    return Layer(layer.family, layer.name, layer.spec.replace(batch=batch))


def race_all(entries: list[Entry], device: Any, args: argparse.Namespace) -> Iterator[Result]:
    """The results as they come, until the budget is spent."""
    gpu = args.device == "gpu"
    budget = args.budget or (GPU_BUDGET if gpu else float("inf"))
    seeds = random.Random(args.seed)
    start = time.perf_counter()
    with progress.bar("racing", len(entries), silent=True) as advance:
        for number, entry in enumerate(entries):
            if time.perf_counter() - start > budget:
                print(f"the budget of {budget:g} s is spent after {number} of {len(entries)} races")
                return
            yield contest(entry, device, seeds.getrandbits(31), args.rounds,
                          with_torch=not args.no_torch, named=args.algorithms or gpu)  # fmt: skip
            advance(str(entry))
