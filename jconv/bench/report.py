"""What a bench leaves behind: rows, the table by family, CSV, JSON and a chart."""

import csv
import dataclasses
import datetime
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from jconv.bench.contest import Result

OTHERS = ("lax", "PyTorch")
PASSES = {"forward": "forward", "grad_input": "grad input", "grad_kernel": "grad kernel"}


def row(result: Result) -> str:
    """A race in a line."""
    entry = result.entry
    times = "  ".join(f"{name} {_ms(result.seconds.get(name))}" for name in ("jconv", *OTHERS))
    faster = "  ".join(f"{result.ratios[name]:7.2f}× {name}" for name in OTHERS if name in result.ratios)
    trouble = "".join(f"  {name} FAILED: {why}" for name, why in result.failed.items())
    trouble += "".join(
        f"  {name} WRONG by {result.errors[name]:.1e}, {result.bounds[name]:.1e} allowed"
        for name in result.wrong if name in result.errors
    )  # fmt: skip
    what = f"{entry.layer.family:12s} {entry.layer.name:27s} {entry.role:11s} {entry.layout} {entry.mode:4s}"
    return f"{what}  {times}  {faster}  by {result.chosen}{trouble}"


def _ms(seconds: float | None) -> str:
    return f"{1e3 * seconds:9.3f} ms" if seconds is not None else f"{'-':>9s}   "


def geometric_mean(values: Iterable[float]) -> float:
    """NaN for none.

    >>> geometric_mean([1.0, 4.0])
    2.0
    """
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def ratios(results: Sequence[Result], other: str, **chosen: str) -> list[float]:
    """The ratios of `other` to jconv where family, role or mode are as said."""
    return [
        result.ratios[other]
        for result in results
        if other in result.ratios
        and all(_field(result, name) == value for name, value in chosen.items())
    ]  # fmt: skip


def _field(result: Result, name: str) -> str:
    return result.entry.layer.family if name == "family" else getattr(result.entry, name)


def table(results: Sequence[Result]) -> Iterator[str]:
    """How many times faster than each other contestant jconv is, by family and pass; the worst last."""
    modes = list(dict.fromkeys(result.entry.mode for result in results))
    for other in OTHERS:
        for mode in modes if ratios(results, other) else []:
            of_mode = [result for result in results if result.entry.mode == mode]
            if ratios(of_mode, other):
                yield from _one_table(of_mode, other, mode)


def _one_table(results: Sequence[Result], other: str, mode: str) -> Iterator[str]:
    yield f"\nTimes faster than {other}, {mode}, geometric means"
    headings = " ".join(f"{name:>12s}" for name in [*PASSES.values(), "all", "worst"])
    yield f"{'family':13s} {'races':>5s} {headings}"
    means = []
    for family in dict.fromkeys(result.entry.layer.family for result in results):
        if every := ratios(results, other, family=family):
            means.append(geometric_mean(every))
            by_pass = [geometric_mean(ratios(results, other, family=family, role=role)) for role in PASSES]
            yield f"{family:13s} {len(every):5d} " + " ".join(map(_ratio, [*by_pass, means[-1], min(every)]))
    every = ratios(results, other)
    by_pass = [geometric_mean(ratios(results, other, role=role)) for role in PASSES]
    cells = [*by_pass, geometric_mean(means), min(every)]
    yield f"{'all families':13s} {len(every):5d} " + " ".join(map(_ratio, cells))


def _ratio(value: float) -> str:
    return f"{'-':>12s}" if math.isnan(value) else f"{value:11.2f}×"


def lines(results: Iterable[Result]) -> Iterator[dict[str, Any]]:
    """One object per race and contestant: what a fit of constants, or a spreadsheet, wants."""
    for result in results:
        entry = result.entry
        for name in [*result.seconds, *result.failed]:
            yield {
                "family": entry.layer.family, "layer": entry.layer.name, "role": entry.role,
                "layout": entry.layout, "mode": entry.mode, "platform": entry.platform,
                "batch": entry.spec.batch, "spec": str(entry.spec), "contestant": name,
                "seconds": result.seconds.get(name), "times_jconv": result.ratios.get(name),
                "error": result.errors.get(name), "bound": result.bounds.get(name),
                "failed": result.failed.get(name), "chosen": result.chosen,
                "flops": entry.spec.flops, "bytes": entry.spec.bytes,
            }  # fmt: skip


def write_csv(path: str, results: Sequence[Result]) -> None:
    """`lines` as a table."""
    rows = list(lines(results))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: str, results: Sequence[Result], about: str) -> None:
    """`lines` with the machine, and every problem as its numbers."""
    specs = {str(result.entry.spec): result.entry.spec for result in results}
    content = {
        "machine": about,
        "specs": {name: dataclasses.asdict(spec) for name, spec in specs.items()},
        "times": list(lines(results)),
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, default=str)


def write_markdown(path: str, results: Sequence[Result], about: str) -> None:
    """A row per race: milliseconds of everybody, the fastest first."""
    head = f"Milliseconds, {about}, {datetime.date.today():%Y-%m-%d}."
    rows = [head, "", "| layer | pass | fastest first |", "|---|---|---|"]
    for result in results:
        layer, spec = result.entry.layer, result.entry.spec
        times = sorted(result.seconds.items(), key=lambda item: item[1])
        told = ", ".join(f"{name} {1e3 * seconds:.3g}" for name, seconds in times)
        rows.append(f"| {layer.name}: {spec} | {PASSES[result.entry.role]} | {told} |")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(rows) + "\n")


def drawable(path: str) -> None:
    """Whether `write_chart` can draw such a file.

    Raises:
      ModuleNotFoundError: there is no matplotlib.
      ValueError: matplotlib draws no files with that ending.
    """
    import matplotlib.figure

    known = matplotlib.figure.Figure().canvas.get_supported_filetypes()
    ending = os.path.splitext(path)[1].removeprefix(".").lower()
    if ending not in known:
        raise ValueError(f"`--chart` cannot draw {path!r}; end its name with .{', .'.join(sorted(known))}")


def write_chart(path: str, results: Sequence[Result], about: str) -> None:
    """Bars: geometric mean by family against each other contestant; needs matplotlib."""
    import matplotlib.figure
    import matplotlib.ticker

    others = [other for other in OTHERS if ratios(results, other)]
    families = list(dict.fromkeys(result.entry.layer.family for result in results))
    figure = matplotlib.figure.Figure(figsize=(8, 1.5 + 0.5 * len(families)), layout="constrained")
    axes = figure.subplots()
    for number, other in enumerate(others):
        means = [geometric_mean(ratios(results, other, family=family)) for family in families]
        height = 0.8 / len(others)
        at = [y + number * height for y in range(len(families))]
        bars = axes.barh(at, means, height, label=f"over {other}")
        axes.bar_label(bars, [f"{mean:.1f}×" for mean in means], padding=2)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g×"))
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([y + 0.4 - 0.4 / max(len(others), 1) for y in range(len(families))], families)
    axes.invert_yaxis()
    axes.set_xlabel("times faster, geometric mean over layers and passes")
    axes.set_title(about, fontsize=8)
    if others:
        axes.legend()
    figure.savefig(path, dpi=150)
