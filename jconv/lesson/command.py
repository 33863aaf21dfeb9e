"""Write the interactive lesson, for an example of your own, as one HTML page."""

import argparse
import os
import pathlib
import stat
import sys
import tempfile
from argparse import ArgumentTypeError as wrong  # noqa: N813
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from jconv.bench import options, progress
from jconv.lesson.compare import questions
from jconv.lesson.kernels import NAMED
from jconv.lesson.page import build

MOST_INPUT, MOST_KERNEL, MOST_KNOB = 12, 7, 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `main` reads."""
    add = parser.add_argument
    names = ", ".join(NAMED)
    add("--input", type=input_matrix, metavar="ROWS", help="rows of numbers, as in '1 2 0; 0 1/2 2; 2 0 1'")
    add("--kernel", type=kernel_matrix, metavar="ROWS|NAME", help=f"rows of numbers, or one of {names}")
    add("--stride", type=between(1), default=1, help=f"step between windows, 1 to {MOST_KNOB} (1)")
    add("--padding", type=between(0), default=0, help=f"zeros on every side, 0 to {MOST_KNOB} (0)")
    add("--dilation", type=between(1), default=1, help=f"distance between taps, 1 to {MOST_KNOB} (1)")
    add("--out", type=page_file, required=True, metavar="PAGE.html", help="the file to write")


def main(args: argparse.Namespace) -> int:
    """Build the page and put it in place; 0, or 2 with the reason on stderr."""
    try:
        knobs = dict(stride=args.stride, padding=args.padding, dilation=args.dilation)
        with progress.bar("asking jconv about layers", len(questions())) as advance:
            page = build(args.input, args.kernel, advance=advance, **knobs)
        write(args.out, page)
    except (ValueError, OSError) as error:
        reason = f"cannot write {args.out}: {error.strerror}" if isinstance(error, OSError) else error
        print(f"python -m jconv explain: error: {reason}", file=sys.stderr)
        return 2
    print(f"{args.out}: {len(page.encode()) / 1e3:.0f} kB, open it in any browser")
    return 0


def write(path: pathlib.Path, page: str) -> None:
    """All of the page or nothing: written beside its place, then renamed.

    A link stays a link and what it points to is written; what is there keeps its permissions; what cannot
    be replaced, a terminal or a pipe, is written to.
    """
    if path.exists() and not path.is_file():
        path.write_text(page, encoding="utf-8")
        return
    place = path.resolve()
    mode = place.stat().st_mode if place.exists() else 0o666 & ~_umask()
    handle, beside = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(page)
        os.chmod(beside, stat.S_IMODE(mode))
        os.replace(beside, place)
    except BaseException:
        os.unlink(beside)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def page_file(written: str) -> pathlib.Path:
    """A file, not a folder, in a folder that is there, both of which may be written; through links."""
    path = pathlib.Path(written)
    if path.is_dir():  # the current one where nothing is written
        raise wrong(f"{written!r} must be a file; write {str(path / 'page.html')!r}")
    folder = path.resolve().parent if path.is_symlink() else path.parent
    if not folder.is_dir():
        raise wrong(f"{written!r} must be a file in a folder that is there, and {str(folder)!r} is not")
    options.writable(written)
    return path


def input_matrix(written: str) -> np.ndarray:
    """The input as numbers."""
    return matrix(written, MOST_INPUT)


def kernel_matrix(written: str) -> np.ndarray:
    """The kernel by name or as numbers."""
    named = NAMED.get(written.lower().replace("_", "-").replace(" ", "-"))
    if named:
        return np.asarray(named, np.float32)
    if any(letter.isalpha() for letter in written.replace("e", "")):
        raise wrong(f"{written!r} is not a known kernel; write rows, or one of {', '.join(NAMED)}")
    return matrix(written, MOST_KERNEL)


def matrix(written: str, most: int) -> np.ndarray:
    """Rows by `;`, numbers by spaces or commas, fractions as they are.

    >>> matrix("1 2; 3, 9/2", 12)
    array([[1. , 2. ],
           [3. , 4.5]], dtype=float32)
    """
    try:
        rows = [[number(n) for n in row.replace(",", " ").split()] for row in written.strip(" ;").split(";")]
    except (ValueError, ZeroDivisionError) as error:
        raise wrong(f"{error}; write rows like '1 2 0; 0 1 2; 2 0 1'") from None
    lengths = sorted({len(row) for row in rows})
    if lengths == [0]:
        raise wrong(f"{written!r} has no numbers; write rows like '1 2 0; 0 1 2; 2 0 1'")
    if len(lengths) > 1:
        raise wrong(f"every row needs as many numbers as the others, got {lengths}")
    if max(len(rows), *lengths) > most:
        raise wrong(f"{len(rows)}×{lengths[0]} is too large to read; at most {most}×{most}")
    values = np.asarray(rows)
    if not (np.isfinite(values) & (abs(values) <= 1e6)).all():
        raise wrong("every number must be between -1e6 and 1e6")
    return values.astype(np.float32)


def number(written: str) -> float:
    """A decimal or a fraction, as in 1/9."""
    return float(Fraction(written)) if "/" in written else float(written)


def between(least: int) -> Callable[[str], int]:
    """A whole number from `least` to the most the page's knobs reach."""

    def whole(written: str) -> int:
        if not written.isdecimal() or not least <= int(written) <= MOST_KNOB:
            raise wrong(f"{written!r} must be a whole number from {least} to {MOST_KNOB}")
        return int(written)

    return whole
