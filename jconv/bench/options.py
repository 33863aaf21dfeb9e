"""What an option of the command line may be: what was typed in, its value or a refusal that says why out."""

import argparse
import contextlib
import errno
import math
import os


def positive(text: str) -> int:
    """A whole number of at least 1.

    >>> positive("8")
    8
    """
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return value


def seconds(text: str) -> float:
    """A number of seconds above 0."""
    return _above_0(text, "a number of seconds above 0")


def budget(text: str) -> float:
    """Seconds; 0 for none at all."""
    return 0.0 if text == "0" else _above_0(text, "a number of seconds, or 0")


def rate(text: str) -> float:
    """A finite number above 0: something is divided by it."""
    value = _above_0(text, form := "a finite number above 0")
    if math.isinf(value):
        raise argparse.ArgumentTypeError(f"must be {form}, got {text!r}")
    return value


def _above_0(text: str, form: str) -> float:
    with contextlib.suppress(ValueError):
        if (value := float(text)) > 0:
            return value
    raise argparse.ArgumentTypeError(f"must be {form}, got {text!r}")


def writable(path: str) -> str:
    """A file that can be written, known before the work whose result goes there."""
    folder = os.path.dirname(path) or "."
    reason = None
    if not path or not os.path.isdir(folder):
        reason = errno.ENOENT
    elif os.path.isdir(path):
        reason = errno.EISDIR
    elif not os.access(path if os.path.exists(path) else folder, os.W_OK):
        reason = errno.EACCES
    if reason:
        why = f"{os.strerror(reason)}; name a file in a folder that is there"
        raise argparse.ArgumentTypeError(f"cannot write {path!r}: {why}")
    return path
