"""im2col: write every patch out as a column, and a convolution is one matrix product.

An output number is the dot product of a flattened kernel with a flattened patch.  Lay the flattened
kernels out as rows and the flattened patches as columns, and all those dot products are one product:

    y (o, p·q)  =  kernels (o, c·r·s)  @  columns (c·r·s, p·q)

once for each n and g.  It costs memory: every input number is stored once for each window it lies in,
about r·s / stride² times.  It gains the fastest routine any machine has, the matrix product.

Source: Chellapilla, Puri & Simard, "High performance convolutional neural networks for document
processing", 2006.
"""

import numpy as np

from jconv.textbook.geometry import IntOrPair, Padding, biased, check, outputs, padded, pair, taps


def im2col_loops(
    x: np.ndarray, kernel_size: IntOrPair, *,
    stride: IntOrPair = 1, padding: Padding = 0, dilation: IntOrPair = 1,
) -> np.ndarray:  # fmt: skip
    """The patches of x as columns, copied one by one.

    Args:
      x: input `(n, c, h, w)`.
      kernel_size: (r, s), or one int for both.
      stride, padding, dilation: as in `conv2d_loops`.

    Returns:
      `(n, c·r·s, p·q)`, the shape and order of `torch.nn.functional.unfold`: column p·q holds
      the patch of output (p, q), channel after channel, each row by row.

    >>> x = np.arange(9).reshape(1, 1, 3, 3)
    >>> im2col_loops(x, 2)
    array([[[0, 1, 3, 4],
            [1, 2, 4, 5],
            [3, 4, 6, 7],
            [4, 5, 7, 8]]])
    """
    x, (kh, kw) = padded(x, padding), pair("kernel_size", kernel_size)
    (sh, sw), (dh, dw) = pair("stride", stride), pair("dilation", dilation)
    n_size, c, h, w = x.shape
    p_size, q_size = outputs(h, kh, sh, dh), outputs(w, kw, sw, dw)
    columns = np.zeros((n_size, c * kh * kw, p_size * q_size), x.dtype)
    for n in range(n_size):
        for p in range(p_size):
            for q in range(q_size):
                patch = x[n, :, taps(p, kh, sh, dh), taps(q, kw, sw, dw)]
                columns[n, :, p * q_size + q] = patch.reshape(-1)
    return columns


def conv2d_im2col(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, *,
    stride: IntOrPair = 1, padding: Padding = 0, dilation: IntOrPair = 1, groups: int = 1,
) -> np.ndarray:  # fmt: skip
    """2-D convolution as kernels @ columns.  Arguments, result and errors as in `conv2d_loops`.

    >>> x = np.arange(16).reshape(1, 1, 4, 4)
    >>> conv2d_im2col(x, np.ones((1, 1, 2, 2), int), stride=2)
    array([[[[10, 18],
             [42, 50]]]])
    """
    check(x, w, groups, b)
    columns = im2col_loops(x, w.shape[2:], stride=stride, padding=padding, dilation=dilation)
    n, rows, positions = columns.shape  # the channels of a group are neighbours: a reshape parts the rows
    kernels = w.reshape(groups, w.shape[0] // groups, rows // groups)
    y = kernels @ columns.reshape(n, groups, rows // groups, positions)
    (sh, _), (dh, _) = pair("stride", stride), pair("dilation", dilation)
    p = outputs(padded(x, padding).shape[2], w.shape[2], sh, dh)
    return biased(y.reshape(n, w.shape[0], p, positions // p), b)
