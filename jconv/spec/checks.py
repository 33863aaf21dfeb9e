"""What `ConvSpec.of` takes: plain tuples of ints out, or an error that says what to write.

A size that only a run will tell (`jax.export`, symbolic shapes) passes as it is, neither compared nor
converted.
"""

import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.export
import ml_dtypes  # noqa: F401  (registers bfloat16 and the float8s with numpy; jax depends on it)
import numpy as np

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]

MOST_ENTRIES, MOST_CHARACTERS = 8, 100  # of a value that an error quotes


def integer(name: str, value: Any, least: int | None, forms: str = "an int", most: int | None = None) -> int:
    """An int from `least` to `most`; `forms` says in an error what else would have been accepted."""
    wrong = TypeError(f"`{name}` must be {forms}, got {shown(value)}")
    if isinstance(value, bool):
        raise wrong
    try:
        number = operator.index(value)
    except TypeError:
        raise wrong from None
    if least is not None and number < least:
        raise ValueError(f"`{name}`={shown(value)} must be at least {least}")
    if most is not None and number > most:
        raise ValueError(f"`{name}`={shown(value)} must be at most {most}")
    return number


def size(name: str, value: Any, least: int | None, forms: str = "an int", most: int | None = None) -> Any:
    """An int, or a size that is not known yet."""
    return value if jax.export.is_symbolic_dim(value) else integer(name, value, least, forms, most)


def channels(batch: Any, in_channels: Any, out_channels: Any, groups: Any) -> tuple[int, int, int, int]:
    """The sizes that are not of space; `groups` divides both counts of channels."""
    n, count = size("batch", batch, 0), size("groups", groups, 1)
    c, o = size("in_channels", in_channels, 0), size("out_channels", out_channels, 0)
    known = [number for number in (c, o) if isinstance(number, int)]
    if isinstance(count, int) and any(number % count for number in known):
        raise ValueError(
            f"`groups`={count} must divide `in_channels`={c} and `out_channels`={o}; "
            f"choose {divisors(math.gcd(*known))}"
        )
    return n, c, o, count


def divisors(number: int) -> str:
    """Every divisor, as an error offers them.

    >>> divisors(8), divisors(1)
    ('1, 2, 4 or 8', '1')
    """
    *most, last = [str(d) for d in range(1, number + 1) if number % d == 0]
    return f"{', '.join(most)} or {last}" if most else last


def geometry(
    spatial: Any, kernel: Any, strides: Any, padding: Any, lhs_dilation: Any, rhs_dilation: Any
) -> tuple[Ints, Ints, Ints, Pairs, Ints, Ints]:
    """The sizes of space, as many of each as the kernel has; None is the plain case."""
    kernel = _sizes("kernel", kernel, 0, "one int per spatial dimension")
    n, of_kernel = len(kernel), f"per size of `kernel`={shown(kernel)}"
    forms = f"one int {of_kernel}"
    steps = {"strides": strides, "lhs_dilation": lhs_dilation, "rhs_dilation": rhs_dilation}
    stride, lhs, rhs = (
        (1,) * n if value is None else _sizes(name, value, 1, forms, n) for name, value in steps.items()
    )
    pairs: Any = ((0, 0),) * n
    if padding is not None:
        forms_of_pairs = f"one (lo, hi) pair {of_kernel}, such as {shown(((1, 1),) * n)}"
        pairs = _entries("padding", padding, forms_of_pairs, n)
        pairs = tuple(_sizes("padding", pair, None, forms_of_pairs, 2) for pair in pairs)
    return _sizes("spatial", spatial, 0, forms, n), kernel, stride, pairs, lhs, rhs


def dtype(value: Any) -> str:
    """The name of a dtype of numbers, given by name, as NumPy's or as JAX's; one of bools counts."""
    try:
        found = None if value is None else np.dtype(value)
    except (TypeError, ValueError):
        found = None
    if found is None or not (found.kind == "b" or jax.dtypes.issubdtype(found, np.number)):
        raise TypeError(
            f"`dtype`={shown(value)} is no dtype of numbers; write 'float32', jnp.bfloat16 or another"
        )
    return found.name


def shown(value: Any) -> str:
    """A value as an error quotes it: an array by its shape alone, and whatever is long is cut.

    >>> shown((1, 2)), shown(np.ones((2, 3))), shown(tuple(range(100)))
    ('(1, 2)', 'an array of shape (2, 3)', '(0, 1, 2, 3, 4, 5, 6, 7, …)')
    """
    if isinstance(value, (np.ndarray, jax.Array)) and value.ndim:
        return f"an array of shape {value.shape}"
    if type(value) in (list, tuple):
        start, end = "[]" if isinstance(value, list) else "()"
        entries = [shown(entry) for entry in value[:MOST_ENTRIES]]
        more = ", …" if len(value) > MOST_ENTRIES else "," if len(value) == 1 and start == "(" else ""
        text = f"{start}{', '.join(entries)}{more}{end}"
    elif isinstance(value, dict) and value:
        text = f"a dict of {len(value)} entries"
    else:
        try:
            text = repr(value)
        except Exception:  # an int of too many digits, or whatever an object does
            text = f"a value of type {type(value).__name__}"
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


def in_one_line(error: Exception) -> str:
    """An error's type and the first line of its message."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def is_sequence(value: Any) -> bool:
    """Whether it holds entries to go through; strings and bytes are single values."""
    return isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (str, bytes))


def _sizes(name: str, value: Any, least: int | None, forms: str, count: int | None = None) -> Ints:
    return tuple(size(name, entry, least, forms) for entry in _entries(name, value, forms, count))


def _entries(name: str, value: Any, forms: str, count: int | None) -> Sequence[Any]:
    """What a sequence holds, and so many of it."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if not is_sequence(value):
        raise TypeError(f"`{name}` must be {forms}, got {shown(value)}")
    if count not in (None, len(value)):
        raise ValueError(f"`{name}` must be {forms}, got {shown(value)}")
    return value
