"""Transposed convolution in PyTorch's names: conv_transpose1d, 2d and 3d, and any dimension."""

from __future__ import annotations

from typing import Never, Unpack

import jax
from jax.typing import ArrayLike

from jconv.api.options import TransposedOptions, spelled_out
from jconv.api.problem import compute, parsed


@spelled_out(TransposedOptions)
def conv_transpose2d(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, *more: Never, **options: Unpack[TransposedOptions]
) -> jax.Array:
    """2-D transposed convolution: every input position adds a scaled copy of the kernel to the output.

    Args:
      x: input `(n, c_in, h, w)` or, for layout "NHWC", `(n, h, w, c_in)`, or either without the batch axis.
      w: kernel `(c_in, c_out/groups, kh, kw)`; for layout "NHWC" `(kh, kw, c_out/groups, c_in)`, the
        HWIO kernel of the convolution that this one transposes.  Same dtype as x.
      b: bias `(c_out,)`, or None; `bias=` is a second name for it.
      stride: distance between the kernel's copies, in output positions.
      padding: how much is cut off the output: an int, an int per dimension or a (lo, hi) pair each, of
        which a negative one extends it.  With K = dilation·(kh − 1) + 1 the names mean, as in Keras, Flax
        and lax (and, for K ≥ stride, in ONNX),
        "same" or "same_lower": h·stride rows, K − stride cut off, the odd one at the end or at the start
        "valid": nothing cut off, and at least h·stride rows
        where K < stride the rows that no copy reaches are at the end.
      output_padding: extra positions at the end of the output, fewer than stride or dilation.
      output_size: the spatial size of the output instead, or the whole shape, as PyTorch's layers take it:
        from the size without output_padding to stride − 1 more.  With "same" any size of which an
        ordinary "same" convolution makes h.
      dilation: distance between kernel taps, in output positions.
      padding_mode: "zeros" cuts `padding` off.  With another mode this is the transpose of `conv2d` with
        that mode: what is cut off is added to the positions that the padding shows.  Flax's "CIRCULAR" is
        "circular" with "same_lower".
      groups, layout, algorithm, precision, preferred_element_type: as in `conv2d`.

    Returns:
      `(n, c_out, p, q)` or `(n, p, q, c_out)` with
      `p = (h − 1)·stride − lo − hi + dilation·(kh − 1) + output_padding + 1`.

    Raises:
      ValueError, TypeError: an argument is wrong; the message names it and says what would work.

    >>> import jax.numpy as jnp, jconv
    >>> x = jnp.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> jconv.conv_transpose2d(x, jnp.ones((1, 1, 2, 2)), stride=2)
    Array([[[[1., 1., 2., 2.],
             [1., 1., 2., 2.],
             [3., 3., 4., 4.],
             [3., 3., 4., 4.]]]], dtype=float32)

    Source: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016, chapter 4.
    """
    return compute(*parsed("conv_transpose2d", "grad_input", 2, x, w, b, more, options))


@spelled_out(TransposedOptions)
def conv_transpose1d(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, *more: Never, **options: Unpack[TransposedOptions]
) -> jax.Array:
    """1-D transposed convolution: `conv_transpose2d` with one spatial dimension.

    `x` is `(n, c_in, w)` and `w` `(c_in, c_out/groups, k)`, or for layout "NWC" `(n, w, c_in)` and
    `(k, c_out/groups, c_in)`; everything else is as in `conv_transpose2d`.

    >>> import jax.numpy as jnp, jconv
    >>> jconv.conv_transpose1d(jnp.array([[[1.0, 10.0]]]), jnp.array([[[1.0, 2.0, 3.0]]]), stride=2)
    Array([[[ 1.,  2., 13., 20., 30.]]], dtype=float32)
    """
    return compute(*parsed("conv_transpose1d", "grad_input", 1, x, w, b, more, options))


@spelled_out(TransposedOptions)
def conv_transpose3d(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, *more: Never, **options: Unpack[TransposedOptions]
) -> jax.Array:
    """3-D transposed convolution: `conv_transpose2d` with three spatial dimensions.

    `x` is `(n, c_in, d, h, w)` and `w` `(c_in, c_out/groups, kd, kh, kw)`, or for layout "NDHWC"
    `(n, d, h, w, c_in)` and `(kd, kh, kw, c_out/groups, c_in)`; everything else is as in
    `conv_transpose2d`.

    >>> import jax.numpy as jnp, jconv
    >>> x, w = jnp.ones((1, 4, 3, 3, 3)), jnp.ones((4, 2, 4, 4, 4))
    >>> jconv.conv_transpose3d(x, w, stride=2, padding=1).shape
    (1, 2, 6, 6, 6)
    """
    return compute(*parsed("conv_transpose3d", "grad_input", 3, x, w, b, more, options))


@spelled_out(TransposedOptions)
def conv_transpose(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, *more: Never, **options: Unpack[TransposedOptions]
) -> jax.Array:
    """Transposed convolution in as many spatial dimensions as the kernel has.

    `x` is `(n, c_in, *spatial)` and `w` `(c_in, c_out/groups, *kernel)`, or for layout "NHWC", in any number
    of dimensions, `(n, *spatial, c_in)` and `(*kernel, c_out/groups, c_in)`; everything else is as in
    `conv_transpose2d`.

    >>> import jax.numpy as jnp, jconv
    >>> x, w = jnp.ones((1, 4, 3, 3, 3, 3)), jnp.ones((4, 2, 4, 4, 4, 4))
    >>> jconv.conv_transpose(x, w, stride=2, padding="same").shape
    (1, 2, 6, 6, 6, 6)
    """
    return compute(*parsed("conv_transpose", "grad_input", None, x, w, b, more, options))
