"""Measure each algorithm's rounding error against float64 as the sums grow longer.

Random normal operands, rounded to the dtype; the reference is the definition in float64 on the rounded
operands (`jconv.testing.cases.reference`), so what is seen is the algorithm's own error.  Not every algorithm
takes every convolution: each is measured on the first family below that it takes at most lengths.

    dense        3×3, the channels grow                        K = 9·c
    1×1          the channels grow                             K = c
    depthwise    4 channels, the kernel grows                  K = r²
    groups       4 groups of 2 → 2, the kernel grows           K = 2·r²
    patches      3×3 at stride 3, the channels grow            K = 9·c
    strided      6×6 at stride 2, the channels grow            K = 36·c
    transposed   6×6, input dilation 2, the channels grow      K = 9·c
    transposed depthwise   4 channels, the kernel grows        K = r²/4
    volumes      3×3×3, the channels grow                      K = 27·c
    valid        the kernel as large as the image              K = 2·r²

The error is max|result − reference| / max|reference|; "× xla" compares the root mean squares of the
errors of the two on the same problem, at the longest sum that both take.
"""

import argparse
import csv
import dataclasses
import datetime
import functools
import io
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np

from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import Algorithm, evaluate, forms_of, own, refuses
from jconv.bench import options
from jconv.bench.job import machine
from jconv.spec import ConvSpec, Ints, Role
from jconv.spec.roles import rewritten
from jconv.spec.tolerance import tolerance
from jconv.testing import cases

LENGTHS = (9, 72, 576, 4608)
DTYPES = ("float32", "bfloat16", "float16")
MEASURED = "Measured on "  # what stands before it in a file stays


def dense(length: int) -> ConvSpec:
    """3×3 with as many channels as make sums of `length`."""
    return ConvSpec.of(
        batch=2,
        spatial=(13, 11),
        kernel=(3, 3),
        in_channels=length // 9,
        out_channels=16,
        padding=((1, 1),) * 2,
    )


def grouped(length: int, channels: int = 1, groups: int = 4, more: int = 5) -> ConvSpec:
    """`channels` in and out of every group, and a kernel that makes sums of about `length`."""
    r, total = max(1, math.isqrt(length // channels)), channels * groups
    space = (r + more, r + more + 2)
    return ConvSpec.of(
        batch=2, spatial=space, kernel=(r, r), in_channels=total, out_channels=total, groups=groups
    )


def volume(length: int) -> ConvSpec:
    """3×3×3 with as many channels as make sums of about `length`."""
    return ConvSpec.of(
        spatial=(4, 7, 6), kernel=(3, 3, 3), in_channels=max(1, length // 27), out_channels=16,
        padding=((1, 1),) * 3,
    )  # fmt: skip


def dilated(spec: ConvSpec, kernel: Ints) -> ConvSpec:
    """With zeros between the inputs, and as large a kernel as brings the products back."""
    twice = (2,) * len(kernel)
    return spec.replace(kernel=kernel, lhs_dilation=twice, padding=tuple((k // 2, k // 2) for k in kernel))


FAMILIES: Mapping[str, Callable[[int], ConvSpec]] = {
    "dense": dense,
    "1×1": lambda length: dense(9 * length).replace(kernel=(1, 1), padding=((0, 0),) * 2),
    "depthwise": grouped,
    "groups": lambda length: grouped(length, 2),
    "patches": lambda length: dense(length).replace(strides=(3, 3)),
    "strided": lambda length: dense(max(9, length // 4)).replace(kernel=(6, 6), strides=(2, 2)),
    "transposed patches": lambda length: dense(length).replace(strides=(3, 3)).as_grad_input(),
    "transposed": lambda length: dilated(dense(length), (6, 6)),
    "transposed depthwise": lambda length: dilated(grouped(length), (2 * math.isqrt(length),) * 2),
    "volumes": volume,
    "valid": lambda length: grouped(length, 2, 1, more=1),
    "colours": lambda length: grouped(length, 3, 1),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One error.

    Args:
      algorithm, family, role, dtype, length: of what; `length` is the number of products in a sum.
      error: max|result − reference| / max|reference|.
      rms: root mean square of result − reference, over that of the reference.
      bound: what `jconv.testing.tolerance` allows the algorithm.
    """

    algorithm: str
    family: str
    role: Role
    dtype: str
    length: int
    error: float
    rms: float
    bound: float


def family_of(algorithm: Algorithm, lengths: Iterable[int] = LENGTHS, role: Role = "forward") -> str:
    """The first of the families that the algorithm takes at most lengths."""

    def taken(name: str) -> int:
        return sum(refuses(algorithm, role, FAMILIES[name](length)) is None for length in lengths)

    return max(FAMILIES, key=taken)


def measure(
    algorithm: Algorithm, family: str, dtype: str, length: int, role: Role = "forward"
) -> Cell | None:
    """The error of one algorithm on one problem; None where it refuses it.

    >>> from jconv.algorithms import SHIFT
    >>> cell = measure(SHIFT, "dense", "float32", 72)
    >>> 0 < cell.error < cell.bound < 1e-4
    True
    """
    spec = FAMILIES[family](length).with_dtype(dtype)
    if refuses(algorithm, role, spec) is not None:
        return None
    operands, reference = _problem(family, dtype, length, role)
    program = jax.jit(functools.partial(evaluate, algorithm, role, spec=spec))
    result = np.asarray(program(*operands), np.float64)
    off = result - reference
    bound = tolerance(dtype, cases.reduction(role, spec), amplification(algorithm, role, spec))
    rms = math.sqrt(np.mean(off**2) / np.mean(reference**2))
    return Cell(written(algorithm), family, role, dtype, length, cases.error(result, reference), rms, bound)


def amplification(algorithm: Algorithm, role: Role, spec: ConvSpec) -> float:
    """What the algorithm documents, of the spec that it computes `role` by."""
    return algorithm.amplification(spec if own(algorithm, role, spec) else rewritten(spec, role))


@functools.lru_cache(maxsize=64)
def _problem(family: str, dtype: str, length: int, role: Role) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    spec = FAMILIES[family](length).with_dtype(dtype)
    operands = cases.operands(role, cases.normal(spec))
    return operands, cases.reference(role, *operands, spec)


def written(algorithm: Algorithm) -> str:
    """Its name, and which form of it."""
    return f"{algorithm.name}, {algorithm.variant}" if algorithm.variant else algorithm.name


def sweep(
    algorithms: Iterable[Algorithm], dtypes: Iterable[str] = DTYPES, lengths: Iterable[int] = LENGTHS
) -> Iterator[Cell]:
    """Every cell of the table, dtype by dtype."""
    for dtype in dtypes:
        for algorithm in algorithms:
            family = family_of(algorithm, lengths)
            cells = (measure(algorithm, family, dtype, length) for length in lengths)
            yield from (cell for cell in cells if cell is not None)


def markdown(cells: Iterable[Cell]) -> str:
    """A table per dtype, with the machine and the date."""
    cells = list(cells)
    dtypes = dict.fromkeys(cell.dtype for cell in cells)
    parts = [f"{MEASURED}{machine()}, {datetime.date.today():%Y-%m-%d}, by `python -m jconv accuracy`."]
    return "\n\n".join([*parts, *(_table([c for c in cells if c.dtype == dtype]) for dtype in dtypes)]) + "\n"


def _table(cells: list[Cell]) -> str:
    lengths = sorted({cell.length for cell in cells})
    lines = [["algorithm", "on", *(f"K = {length}" for length in lengths), "× xla"]]
    for algorithm in dict.fromkeys(cell.algorithm for cell in cells):
        own = {cell.length: cell for cell in cells if cell.algorithm == algorithm}
        errors = [_error(own[length]) if length in own else "refused" for length in lengths]
        longest = own[max(own)]
        lines.append([f"`{algorithm}`", longest.family, *errors, f"{_against_xla(longest):.1f}"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([f"## {cells[0].dtype}", "", rows[0], rule, *rows[1:]])


def _error(cell: Cell) -> str:
    return f"{cell.error:.1e}" + ("" if cell.error <= cell.bound else f" over {cell.bound:.1e}!")


def _against_xla(cell: Cell) -> float:
    xla = measure(ALGORITHMS["xla"], cell.family, cell.dtype, cell.length)
    return cell.rms / xla.rms if xla and xla.rms else math.nan


def as_csv(cells: Iterable[Cell]) -> str:
    """A line per cell, its fields as columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in dataclasses.fields(Cell)])
    writer.writerows(dataclasses.astuple(cell) for cell in cells)
    return text.getvalue()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `main` reads."""
    parser.add_argument("algorithms", nargs="*", metavar="ALGORITHM", help="names; without any, all")
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES, help="(all three)")
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="also write the tables there, below what introduces them",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write one line per number there")


def main(args: argparse.Namespace) -> int:
    """Measure and print; 0, 1 if an algorithm is off by more than it documents, 2 for wrong usage."""
    unknown = [name for name in args.algorithms if name not in ALGORITHMS]
    if unknown:
        print(f"no algorithm {unknown[0]!r}; there are {', '.join(ALGORITHMS)}", file=sys.stderr)
        return 2
    try:
        for path in filter(None, (args.markdown, args.csv)):
            options.writable(str(path))  # better known now than after the measurement
    except argparse.ArgumentTypeError as error:
        return _refused(error)
    asked = [ALGORITHMS[name] for name in args.algorithms] or ALGORITHMS.values()
    chosen = [form for algorithm in asked for form in forms_of(algorithm)]
    cells = []
    for cell in sweep(chosen, args.dtypes):
        cells.append(cell)
        print(
            f"\r\x1b[K{cell.dtype} {cell.algorithm}" if sys.stderr.isatty() else "", end="", file=sys.stderr
        )
    text = markdown(cells)
    print(text)
    try:
        if args.markdown:
            kept = args.markdown.read_text(encoding="utf-8") if args.markdown.exists() else ""
            args.markdown.write_text(kept.partition(MEASURED)[0] + text, encoding="utf-8")
        if args.csv:
            args.csv.write_text(as_csv(cells), encoding="utf-8")
    except OSError as error:
        return _refused(error)
    return int(any(cell.error > cell.bound for cell in cells))


def _refused(error: Exception) -> int:
    print(f"python -m jconv accuracy: error: {error}", file=sys.stderr)
    return 2
