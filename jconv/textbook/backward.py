"""The backward pass by hand: given g = ∂L/∂y, find ∂L/∂x, ∂L/∂w and ∂L/∂b.

Start from the forward, groups and n left out, t and u positions of the padded input:

    y[o, p, q] = b[o] + Σ_{c, r, s} x̃[c, t, u] · w[o, c, r, s],   t = p·stride + r·dilation,  u likewise

**Bias.**  ∂y[o, p, q]/∂b[o] = 1 for every output of channel o, so

    ∂b[o] = Σ_{n, p, q} g[n, o, p, q]

**Kernel.**  The number w[o, c, r, s] meets, at each output (p, q), the input number of the patch there:

    ∂w[o, c, r, s] = Σ_{n, p, q} g[n, o, p, q] · patches[n, c, p, q, r, s]

which is the einsum of the forward with n p q summed instead of c r s.  Read as a sum over p q at steps of
`stride`, it is a convolution of x̃ with g as its kernel, stride and dilation having changed places.

**Input.**  A position t of x̃ has been read by every output p with a tap r such that
p·stride + r·dilation = t; each of them sends back its g through that tap:

    ∂x̃[c, t, u] = Σ over all (o, p, q, r, s) with p·stride + r·dilation = t, …  of  g[o, p, q] · w[o, c, r, s]

Either each tap (r, s) sends Σ_o g[o, p, q] · w[o, c, r, s] to the positions that it has read (scatter, as
here: one tap reads no position twice), or each position fetches what it is due from p = (t − r·dilation) /
stride (gather): at stride 1 a convolution of g with the flipped kernel, o and c swapped.  Padding was zeros,
not input: its gradient is cropped away.
"""

from typing import NamedTuple

import numpy as np

from jconv.textbook.geometry import IntOrPair, Padding, check, padded, pair, sides, views
from jconv.textbook.views import patch_view


class Gradients(NamedTuple):
    """∂L/∂x, ∂L/∂w and ∂L/∂b, shaped like x, w and b."""

    x: np.ndarray
    w: np.ndarray
    b: np.ndarray


def conv2d_backward(
    g: np.ndarray, x: np.ndarray, w: np.ndarray, *,
    stride: IntOrPair = 1, padding: Padding = 0, dilation: IntOrPair = 1, groups: int = 1,
) -> Gradients:  # fmt: skip
    """All gradients of `conv2d(x, w, b, …)` for the output gradient g `(n, g·o, p, q)`.

    The other arguments are those of the forward.  A ValueError says where the shapes do not fit.

    >>> x, w = np.arange(4).reshape(1, 1, 1, 4), np.array([10, 1]).reshape(1, 1, 1, 2)
    >>> grads = conv2d_backward(np.ones((1, 1, 1, 3), int), x, w)
    >>> grads.x.ravel(), grads.w.ravel(), grads.b
    (array([10, 11, 11,  1]), array([3, 6]), array([3]))
    """
    return Gradients(
        grad_input(g, x.shape, w, stride=stride, padding=padding, dilation=dilation, groups=groups),
        grad_kernel(g, x, w.shape, stride=stride, padding=padding, dilation=dilation, groups=groups),
        g.sum(axis=(0, 2, 3), dtype=g.dtype),  # over all that the bias was broadcast over
    )


def grad_kernel(
    g: np.ndarray, x: np.ndarray, kernel_shape: tuple[int, ...], *,
    stride: IntOrPair = 1, padding: Padding = 0, dilation: IntOrPair = 1, groups: int = 1,
) -> np.ndarray:  # fmt: skip
    """∂w, of shape `kernel_shape` (g·o, c, r, s).

    At stride 1 it is the convolution of x with the kernel g:

    >>> from jconv.textbook import conv2d_loops
    >>> x, g = np.arange(20).reshape(1, 1, 4, 5), np.arange(6).reshape(1, 1, 2, 3)
    >>> bool((grad_kernel(g, x, (1, 1, 3, 3)) == conv2d_loops(x, g)).all())
    True
    """
    outs, c, r, s = kernel_shape
    patches = patch_view(x, (r, s), stride=stride, padding=padding, dilation=dilation)
    n, _, p, q = patches.shape[:4]
    patches = patches.reshape(n, groups, c, p, q, r, s)
    g = g.reshape(n, groups, outs // groups, p, q)
    return np.einsum("ngopq,ngcpqrs->gocrs", g, patches, optimize=True).reshape(kernel_shape)


def grad_input(
    g: np.ndarray, input_shape: tuple[int, ...], w: np.ndarray, *,
    stride: IntOrPair = 1, padding: Padding = 0, dilation: IntOrPair = 1, groups: int = 1,
) -> np.ndarray:  # fmt: skip
    """∂x, of shape `input_shape` (n, g·c, h, w): which g cannot tell where the stride is not 1.

    At stride 1 it is a full convolution of g with the flipped kernel:

    >>> from jconv.textbook import conv2d_loops
    >>> g, w = np.arange(6).reshape(1, 1, 2, 3), np.arange(9).reshape(1, 1, 3, 3)
    >>> flipped = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    >>> bool((grad_input(g, (1, 1, 4, 5), w) == conv2d_loops(g, flipped, padding=2)).all())
    True
    """
    (sh, sw), (dh, dw) = pair("stride", stride), pair("dilation", dilation)
    (top, _), (left, _) = sides(padding)
    n, channels, height, width = input_shape
    total = padded(np.zeros(input_shape, np.result_type(g, w)), padding)
    check(total, w, groups)
    outs, c, kh, kw = w.shape
    p, q = g.shape[2:]
    g, w = g.reshape(n, groups, outs // groups, p, q), w.reshape(groups, outs // groups, c, kh, kw)
    for r in range(kh):
        for s in range(kw):
            sent = np.einsum("ngopq,goc->ngcpq", g, w[..., r, s], optimize=True)
            total[:, :, views(r, p, sh, dh), views(s, q, sw, dw)] += sent.reshape(n, channels, p, q)
    return total[:, :, top : top + height, left : left + width]
