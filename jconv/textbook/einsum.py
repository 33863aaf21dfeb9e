"""The whole convolution as one contraction, spelled by its letters, and again as reshape and `@`.

With the patches as a view (`views.py`) and the group axis on its own, the definition *is* an einsum:

    y[n, g, o, p, q] = Σ_{c, r, s} patches[n, g, c, p, q, r, s] · w[g, o, c, r, s]

    "ngcpqrs,gocrs->ngopq"

Stride, dilation and padding are in the view.  The letters tell the special cases: with g = 1 it is the
plain convolution; with c = 1 nothing is summed over channels (depthwise); with r = s = 1 what is left is
"ngcpq,goc->ngopq", a matrix product over the channels at every position.

They also tell the matrix product: summed ones are its inner side (c r s), those of one operand its rows
(o) and columns (p q), and the rest counts products (n g), which `@` takes as leading axes.
"""

import numpy as np

from jconv.textbook.geometry import IntOrPair, Padding, biased, check
from jconv.textbook.views import patch_view


def conv2d_einsum(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, *,
    stride: IntOrPair = 1, padding: Padding = 0, dilation: IntOrPair = 1, groups: int = 1,
) -> np.ndarray:  # fmt: skip
    """2-D convolution by einsum.  Arguments, result and errors as in `conv2d_loops`.

    A pointwise convolution is a matrix product over the channels:

    >>> x, w = np.random.default_rng(0).integers(-9, 9, (8, 8)), np.arange(24).reshape(3, 8)
    >>> y = conv2d_einsum(x.reshape(1, 8, 2, 4), w.reshape(3, 8, 1, 1))
    >>> bool((y.reshape(3, 8) == w @ x).all())
    True
    """
    check(x, w, groups, b)
    patches = patch_view(x, w.shape[2:], stride=stride, padding=padding, dilation=dilation)
    (n, _, p, q, *_), (outs, c, r, s) = patches.shape, w.shape
    patches = patches.reshape(n, groups, c, p, q, r, s)
    kernels = w.reshape(groups, outs // groups, c, r, s)
    y = np.einsum("ngcpqrs,gocrs->ngopq", patches, kernels, optimize=True)
    return biased(y.reshape(n, outs, p, q), b)


def conv2d_matmul(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, *,
    stride: IntOrPair = 1, padding: Padding = 0, dilation: IntOrPair = 1, groups: int = 1,
) -> np.ndarray:  # fmt: skip
    """2-D convolution by transpose, reshape and `@`.  Arguments, result and errors as in `conv2d_loops`.

    >>> x = np.arange(16).reshape(1, 1, 4, 4)
    >>> conv2d_matmul(x, np.ones((1, 1, 2, 2), int), stride=2)
    array([[[[10, 18],
             [42, 50]]]])
    """
    check(x, w, groups, b)
    patches = patch_view(x, w.shape[2:], stride=stride, padding=padding, dilation=dilation)
    (n, _, p, q, *_), (outs, c, r, s) = patches.shape, w.shape
    columns = patches.transpose(0, 1, 4, 5, 2, 3).reshape(n, groups, c * r * s, p * q)
    y = w.reshape(groups, outs // groups, c * r * s) @ columns
    return biased(y.reshape(n, outs, p, q), b)
