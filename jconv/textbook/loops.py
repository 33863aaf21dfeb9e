"""The definition, computed as it is written: one patch times one kernel for every output number.

    y[n, g·o, p, q] = b[g·o] + Σ_{c, r, s} x̃[n, g·c, t, u] · w[g·o, c, r, s]

    t = p·stride + r·dilation,  u = q·stride + s·dilation,  x̃ the padded input

Strictly this is a cross-correlation (a mathematician's convolution flips the kernel).  Four loops in
Python (n, o, p, q), the three sums in NumPy.  It is slow for the number of times it goes round: the
first layer of ResNet-50, 3→64 channels, 7×7, has 112·112·64 = 802,816 outputs for one image, each the sum
over a patch of 3·7·7 = 147, so 118,013,952 multiply-adds.
"""

import numpy as np

from jconv.textbook.geometry import IntOrPair, Padding, biased, check, outputs, padded, pair, taps


def conv2d_loops(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, *,
    stride: IntOrPair = 1, padding: Padding = 0, dilation: IntOrPair = 1, groups: int = 1,
) -> np.ndarray:  # fmt: skip
    """2-D convolution by the quadruple loop.

    Args:
      x: input `(n, g·c, h, w)`.
      w: kernel `(g·o, c, r, s)`.
      b: bias `(g·o,)`, or None.
      stride, dilation: an int, or one per dimension.
      padding: zeros around the input: an int, one per dimension, or one (lo, hi) per dimension.
      groups: g; the channels of one group do not see those of another.

    Returns:
      `(n, g·o, p, q)` in the common dtype of x and w.

    Raises:
      ValueError: the shapes do not match, a number is too small, or the kernel exceeds the padded input.

    >>> x = np.arange(16).reshape(1, 1, 4, 4)
    >>> conv2d_loops(x, np.ones((1, 1, 2, 2), int), stride=2)
    array([[[[10, 18],
             [42, 50]]]])
    """
    check(x, w, groups, b)
    x, (sh, sw), (dh, dw) = padded(x, padding), pair("stride", stride), pair("dilation", dilation)
    (n_size, _, h, w_), (o_size, c, kh, kw) = x.shape, w.shape
    p_size, q_size = outputs(h, kh, sh, dh), outputs(w_, kw, sw, dw)
    y = np.zeros((n_size, o_size, p_size, q_size), np.result_type(x, w))
    for n in range(n_size):
        for o in range(o_size):
            g = o // (o_size // groups)
            for p in range(p_size):
                for q in range(q_size):
                    patch = x[n, g * c : (g + 1) * c, taps(p, kh, sh, dh), taps(q, kw, sw, dw)]
                    y[n, o, p, q] = np.sum(patch * w[o], dtype=y.dtype)
    return biased(y, b)
