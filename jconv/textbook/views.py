"""All patches at once without copying a number: a view with more axes than memory.

Neighbouring patches overlap: to step from one patch to the next is to step one position through the same
memory, and so is to step from one tap to the next.  An array whose axes p and r both walk along h says so:

    patches[n, c, p, q, r, s] = x̃[n, c, p·stride + r·dilation, q·stride + s·dilation]

Its strides in bytes are (N, C, stride·H, stride·W, dilation·H, dilation·W) where those of x̃ are
(N, C, H, W).  `as_strided` would believe any numbers; `sliding_window_view` makes only views that exist.

**Such a view is for reading.**  One place in memory stands at many indices of the view, so writing to one of
them writes to all, and `+=` adds to a place once, however many windows it lies in.  A gradient has to add
once for each: `backward.py` goes tap by tap, since one tap sees no place twice.  The views made here are
read-only, and NumPy then refuses:

>>> patch_view(np.ones((1, 1, 3, 3)), 2)[0, 0, 0, 0, 0, 0] = 7
Traceback (most recent call last):
    ...
ValueError: assignment destination is read-only
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from jconv.textbook.geometry import IntOrPair, Padding, outputs, padded, pair, sides


def patch_view(
    x: np.ndarray, kernel_size: IntOrPair, *,
    stride: IntOrPair = 1, padding: Padding = 0, dilation: IntOrPair = 1,
) -> np.ndarray:  # fmt: skip
    """Every patch of x as a read-only view; with `padding` 0, of the memory of x itself.

    Args:
      x: input `(n, c, h, w)`.
      kernel_size: (r, s), or one int for both.
      stride, padding, dilation: as in `conv2d_loops`.

    Returns:
      `(n, c, p, q, r, s)`.  A window as wide as the dilated kernel is taken at every position; the
      stride keeps every stride-th window, the dilation every dilation-th number within it.

    >>> x = np.arange(16).reshape(1, 1, 4, 4)
    >>> patches = patch_view(x, 2, stride=2)
    >>> patches.shape, np.shares_memory(patches, x)
    ((1, 1, 2, 2, 2, 2), True)
    >>> patches[0, 0, 1, 0]
    array([[ 8,  9],
           [12, 13]])
    """
    (kh, kw) = pair("kernel_size", kernel_size)
    x = padded(x, padding) if np.any(sides(padding)) else x  # np.pad copies even where there is nothing
    (sh, sw), (dh, dw) = pair("stride", stride), pair("dilation", dilation)
    for size, kernel, d in zip(x.shape[2:], (kh, kw), (dh, dw), strict=True):
        outputs(size, kernel, dilation=d)  # raises where there are none
    windows = sliding_window_view(x, ((kh - 1) * dh + 1, (kw - 1) * dw + 1), axis=(2, 3))
    return windows[:, :, ::sh, ::sw, ::dh, ::dw]


def im2col_view(
    x: np.ndarray, kernel_size: IntOrPair, *,
    stride: IntOrPair = 1, padding: Padding = 0, dilation: IntOrPair = 1,
) -> np.ndarray:  # fmt: skip
    """`im2col_loops` from the view: `(n, c·r·s, p·q)`.

    The reshape copies the numbers after all: no strides can make one axis of two with different steps.

    >>> im2col_view(np.arange(9).reshape(1, 1, 3, 3), 2)[0, 0]
    array([0, 1, 3, 4])
    """
    patches = patch_view(x, kernel_size, stride=stride, padding=padding, dilation=dilation)
    n, c, p, q, r, s = patches.shape
    return patches.transpose(0, 1, 4, 5, 2, 3).reshape(n, c * r * s, p * q)
