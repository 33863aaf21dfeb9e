"""How large the result of a transposed convolution is.

It *is* grad_input of an ordinary one, of the *matching* convolution that takes an input as large as the
result and gives an output as large as x.  With K = dilation·(k − 1) + 1 and p rows of x the result has

    h = (p − 1)·stride − lo − hi + K + output_padding

rows, of which the matching convolution, its `hi` being smaller by output_padding, makes exactly p:

    (h + lo + (hi − output_padding) − K) / stride + 1 = p

So output_padding only says which of the inputs that give p rows is meant.

Source: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016, chapter 4.
"""

from collections.abc import Sequence
from typing import Any

from jconv.api import arguments
from jconv.spec import Ints
from jconv.spec.checks import Pairs, is_sequence, shown
from jconv.spec.layout import Layout

NAMES = ("same", "same_lower", "valid")


def sizes(
    knob: dict[str, Any], layout: Layout, spatial: Sequence[int], windows: Ints, strides: Ints, dilation: Ints
) -> tuple[Pairs, Ints, list[int]]:
    """What is cut off, (lo, hi) per dimension, what output_padding adds, and the size of the result."""
    full = [(p - 1) * s + K for p, s, K in zip(spatial, strides, windows, strict=True)]
    steps = [p * s for p, s in zip(spatial, strides, strict=True)]
    added = _output_padding(knob["output_padding"], strides, dilation)
    value = knob["padding"]
    name = arguments.padding_name(value, NAMES) if isinstance(value, str) else None
    if (wanted := knob["output_size"]) is None:
        pairs = _cut(name, full, steps) if name else _pairs(value, len(full))
    elif any(added):
        raise ValueError("`output_padding` and `output_size` say the same thing twice; leave one of them out")
    else:
        size = _output_size(wanted, layout)
        if name in ("same", "same_lower"):
            _check_size(size, [end - s + 1 for end, s in zip(steps, strides, strict=True)], strides)
            pairs = _cut(name, full, size)
        else:
            pairs = ((0, 0),) * len(full) if name else _pairs(value, len(full))
            least = [most - lo - hi for most, (lo, hi) in zip(full, pairs, strict=True)]
            _check_size(size, least, strides)
            added = tuple(one - start for one, start in zip(size, least, strict=True))
    result = [most - lo - hi + more for most, (lo, hi), more in zip(full, pairs, added, strict=True)]
    if any(isinstance(size, int) and size < 1 for size in result):
        raise ValueError(
            f"`padding`={pairs} cuts off everything: the result would be {tuple(result)}; take less"
        )
    return pairs, added, result


def _cut(name: str, full: Sequence[int], size: Sequence[int]) -> Pairs:
    """Of the full result, as much is cut off as leaves `size`; "valid" only adds what is missing."""
    pairs = []
    for total in (most - wanted for most, wanted in zip(full, size, strict=True)):
        missing = isinstance(total, int) and total < 0
        if name == "valid":
            total = min(total, 0)
        lo = 0 if missing or name == "valid" else total // 2 if name == "same" else total - total // 2
        pairs.append((lo, total - lo))
    return tuple(pairs)


def _pairs(value: Any, ndim: int) -> Pairs:
    """Negative pairs extend the result; negative ints, which PyTorch has too, are a mistake."""
    pairs = arguments.pairs_of_ints(value, ndim)
    flat = not is_sequence(value) or not any(map(is_sequence, value))
    if flat and min(map(min, pairs)) < 0:
        raise ValueError(
            f"`padding`={shown(value)} must be at least 0; to extend the result write (lo, hi) pairs, {pairs}"
        )
    return pairs


def _output_padding(value: Any, strides: Ints, dilation: Ints) -> Ints:
    added = arguments.integers("output_padding", value, len(strides), least=0)
    for more, s, d in zip(added, strides, dilation, strict=True):
        if more >= max(s, d):
            raise ValueError(
                f"`output_padding`={shown(value)} must be smaller than `stride`={s} or `dilation`={d}; "
                f"at most {max(s, d) - 1} fits"
            )
    return added


def _output_size(value: Any, layout: Layout) -> Ints:
    """The sizes in space, alone or with the batch and the channels around them."""
    ndim = len(layout.x) - 2
    if is_sequence(value) and len(value) == ndim + 2:
        value = [value[axis] for axis in layout.x[1:-1]]
    elif is_sequence(value) and len(value) == ndim + 1:
        value = value[1:] if layout.channels_first else value[:-1]
    return arguments.integers("output_size", value, ndim)


def _check_size(size: Ints, least: Sequence[int], strides: Ints) -> None:
    """Every size is among the `stride` many from `least` on."""
    most = tuple(start + s - 1 for start, s in zip(least, strides, strict=True))
    for wanted, start, end in zip(size, least, most, strict=True):
        if isinstance(start, int) and not start <= wanted <= end:
            raise ValueError(f"`output_size`={size} must lie between {tuple(least)} and {most}")
