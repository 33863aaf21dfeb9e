"""The textbook: convolution in plain NumPy, to be read, and to test everything else against.

    geometry   which input position a tap sees; output sizes; padding
    loops      the definition: one patch times one kernel for every output number
    im2col     the patches written out as the columns of a matrix, then one matrix product
    views      the same patches without copying a number: a strided view, and why it is read-only
    einsum     the contraction on that view in one line, and again as reshape and `@`
    backward   the three gradients by hand
    example    a 5×5 input and nine outputs to check by eye

Arrays are laid out as in PyTorch, x (n, g·c, h, w), w (g·o, c, r, s), y (n, g·o, p, q), with the shape
letters n batch, g group, c and o channels in and out per group, h w input, p q output, r s kernel
taps.  Any dtype will do and none is widened.  The files stand on NumPy only, so that an error in JAX or in
jconv cannot hide in them.
"""

from jconv.textbook.backward import conv2d_backward
from jconv.textbook.einsum import conv2d_einsum, conv2d_matmul
from jconv.textbook.im2col import conv2d_im2col, im2col_loops
from jconv.textbook.loops import conv2d_loops
from jconv.textbook.views import im2col_view, patch_view

CONV2D = {"loops": conv2d_loops, "im2col": conv2d_im2col, "einsum": conv2d_einsum, "matmul": conv2d_matmul}

__all__ = [
    "CONV2D", "conv2d_backward", "conv2d_einsum", "conv2d_im2col", "conv2d_loops", "conv2d_matmul",
    "im2col_loops", "im2col_view", "patch_view",
]  # fmt: skip
