"""Where a tap looks: the only geometry there is in a convolution.

Tap r of output p sees the padded input at

    t = p·stride + r·dilation            (minus lo, counted in the input before padding)

Everything else follows.  The taps of one output cover (kernel − 1)·dilation + 1 positions, and the last
output is the largest p whose last tap is still inside:

    p·stride + (kernel − 1)·dilation ≤ size − 1
    ⟹  outputs = (size − (kernel − 1)·dilation − 1) // stride + 1

Padding changes `size` and nothing else, so it is done first and then forgotten.

Source: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016.
"""

from collections.abc import Sequence

import numpy as np

IntOrPair = int | Sequence[int]
Padding = int | Sequence[int] | Sequence[tuple[int, int]]


def pair(name: str, value: IntOrPair, least: int = 1) -> tuple[int, int]:
    """One int for both dimensions, or one each; `name` is what the argument is called.

    >>> pair("stride", 2), pair("stride", (2, 3))
    ((2, 2), (2, 3))
    """
    two = tuple(value) if np.iterable(value) else (value, value)
    if len(two) != 2 or not all(isinstance(one, (int, np.integer)) and one >= least for one in two):
        raise ValueError(f"`{name}`={value!r} must be an int of at least {least}, or two of them")
    return int(two[0]), int(two[1])


def sides(padding: Padding) -> tuple[tuple[int, int], tuple[int, int]]:
    """(lo, hi) for both dimensions, from an int, one int each, or one (lo, hi) each.

    >>> sides(1), sides((1, 2)), sides(((0, 1), (2, 0)))
    (((1, 1), (1, 1)), ((1, 1), (2, 2)), ((0, 1), (2, 0)))
    """
    two: tuple[IntOrPair, ...] = tuple(padding) if np.iterable(padding) else (padding, padding)
    if len(two) != 2:
        raise ValueError(f"`padding`={padding!r} must be an int, one per dimension, or one (lo, hi) each")
    return pair("padding", two[0], 0), pair("padding", two[1], 0)


def padded(x: np.ndarray, padding: Padding) -> np.ndarray:
    """x (n, g·c, h, w) with zeros around its last two axes.

    >>> padded(np.ones((1, 1, 1, 2)), ((0, 0), (1, 2)))
    array([[[[0., 1., 1., 0., 0.]]]])
    """
    return np.pad(x, ((0, 0), (0, 0), *sides(padding)))


def outputs(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> int:
    """Number of outputs along one dimension of an already padded input.

    >>> outputs(28, 3, stride=2), outputs(28 + 2, 3, stride=2)  # 2: padded by 1 on each side
    (13, 14)
    """
    reach = (kernel - 1) * dilation + 1
    if reach > size:
        raise ValueError(f"`w` covers {reach} positions but the padded `x` has {size}; enlarge `padding`")
    return (size - reach) // stride + 1


def taps(p: int, kernel: int, stride: int, dilation: int) -> slice:
    """The padded input positions that the taps of output p see.

    >>> list(range(10))[taps(2, kernel=3, stride=2, dilation=2)]
    [4, 6, 8]
    """
    return slice(p * stride, p * stride + (kernel - 1) * dilation + 1, dilation)


def views(r: int, outputs: int, stride: int, dilation: int) -> slice:
    """The padded input positions that tap r sees over all outputs: `taps` with p and r exchanged.

    >>> list(range(10))[views(1, outputs=3, stride=2, dilation=3)]
    [3, 5, 7]
    """
    return taps(r, outputs, dilation, stride)


def check(x: np.ndarray, w: np.ndarray, groups: int, b: np.ndarray | None = None) -> None:
    """x, w and b have their axes, the groups divide the channels, the kernel takes those of one group."""
    if x.ndim != 4 or w.ndim != 4 or 0 in w.shape[2:]:
        raise ValueError(f"`x` {x.shape} and `w` {w.shape} must have 4 axes each, and `w` a tap or more")
    if not isinstance(groups, (int, np.integer)) or groups < 1:
        raise ValueError(f"`groups`={groups!r} must be an int of at least 1")
    channels, (outs, c) = x.shape[1], w.shape[:2]
    if b is not None and b.shape != (outs,):
        raise ValueError(f"`b` must have shape ({outs},), one number per output channel, got {b.shape}")
    if channels != groups * c or outs % groups:
        raise ValueError(
            f"`w` {w.shape} in `groups`={groups} needs {groups * c} input channels and a multiple of "
            f"{groups} output channels; `x` is {x.shape}"
        )


def biased(y: np.ndarray, b: np.ndarray | None) -> np.ndarray:
    """y (n, g·o, p, q) plus one number per output channel, or y itself."""
    return y if b is None else y + b[:, None, None]
