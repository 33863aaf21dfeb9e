"""The door in PyTorch's names: conv1d, conv2d and conv3d, and conv for any number of dimensions."""

from __future__ import annotations

from typing import Never, Unpack

import jax
from jax.typing import ArrayLike

from jconv.api.options import ConvOptions, spelled_out
from jconv.api.problem import compute, parsed


@spelled_out(ConvOptions)
def conv2d(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, *more: Never, **options: Unpack[ConvOptions]
) -> jax.Array:
    """2-D convolution (cross-correlation, as everywhere in deep learning).

    Args:
      x: input `(n, c_in, h, w)` or, for layout "NHWC", `(n, h, w, c_in)`, or either without the batch axis.
      w: kernel `(c_out, c_in/groups, kh, kw)`, or `(kh, kw, c_in/groups, c_out)`.  Same dtype as x.
      b: bias `(c_out,)`, or None; `bias=` is a second name for it.
      stride: step between windows, in input positions; an int or one per dimension.
      padding: zeros added around the input: an int, an int or a (lo, hi) pair per dimension, or "valid"
        (none), "causal" (1-D: all before the start), "same", "same_lower" (p = ceil(h / stride), the odd zero
        at the end or at the start; at a stride, which PyTorch refuses, this is what TensorFlow, Keras, Flax,
        lax and ONNX mean).
      dilation: distance between kernel taps, in input positions.
      groups: the channels are cut into this many groups that do not see each other.
      padding_mode: what the padding holds: "zeros", "reflect", "replicate" or "circular", at any width
        as `numpy.pad` continues the image.
      layout: "NCHW" with OIHW kernels (None means this) or "NHWC" with HWIO kernels.
      algorithm: "auto" (the fastest exact one), "portable" (as auto, of XLA operations alone), "fastest"
        (as auto, and those that mix values too: Winograd, FFT), a name (it runs or is refused, it never falls
        back), or a `jconv.Algorithm` of your own.  Exact ones keep what a direct sum promises
        (`jconv.choice.pick`): a NaN reaches only the outputs whose windows hold it, a sum of terms ≥ 0 is
        ≥ 0, whole numbers are exact.  With "fastest" errors are small only beside the largest outputs.
      precision: "default", "high", "highest" or another of lax's names, a `jax.lax.Precision` or a pair
        of them; None is what `jax.default_matmul_precision` says.
      preferred_element_type: dtype to accumulate in and to return, as in lax.

    Returns:
      `(n, c_out, p, q)` or `(n, p, q, c_out)` with
      `p = (h + lo + hi − dilation·(kh − 1) − 1) // stride + 1`.

    Raises:
      ValueError, TypeError: an argument is wrong; the message names it and says what would work.

    >>> import jax.numpy as jnp, jconv
    >>> x = jnp.arange(25.0).reshape(1, 1, 5, 5)
    >>> sobel = jnp.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]).reshape(1, 1, 3, 3)
    >>> jconv.conv2d(x, sobel, stride=2)
    Array([[[[8., 8.],
             [8., 8.]]]], dtype=float32)

    Source: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016.
    """
    return compute(*parsed("conv2d", "forward", 2, x, w, b, more, options))


@spelled_out(ConvOptions)
def conv1d(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, *more: Never, **options: Unpack[ConvOptions]
) -> jax.Array:
    """1-D convolution: `conv2d` with one spatial dimension.

    `x` is `(n, c_in, w)` and `w` `(c_out, c_in/groups, k)`, or for layout "NWC" `(n, w, c_in)` and
    `(k, c_in/groups, c_out)`; everything else is as in `conv2d`.

    >>> import jax.numpy as jnp, jconv
    >>> jconv.conv1d(jnp.ones((1, 1, 4)), jnp.ones((1, 1, 3)), padding="causal")
    Array([[[1., 2., 3., 3.]]], dtype=float32)
    """
    return compute(*parsed("conv1d", "forward", 1, x, w, b, more, options))


@spelled_out(ConvOptions)
def conv3d(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, *more: Never, **options: Unpack[ConvOptions]
) -> jax.Array:
    """3-D convolution: `conv2d` with three spatial dimensions.

    `x` is `(n, c_in, d, h, w)` and `w` `(c_out, c_in/groups, kd, kh, kw)`, or for layout "NDHWC"
    `(n, d, h, w, c_in)` and `(kd, kh, kw, c_in/groups, c_out)`; everything else is as in `conv2d`.

    >>> import jax.numpy as jnp, jconv
    >>> jconv.conv3d(jnp.ones((1, 2, 4, 4, 4)), jnp.ones((5, 2, 3, 3, 3))).shape
    (1, 5, 2, 2, 2)
    """
    return compute(*parsed("conv3d", "forward", 3, x, w, b, more, options))


@spelled_out(ConvOptions)
def conv(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, *more: Never, **options: Unpack[ConvOptions]
) -> jax.Array:
    """Convolution in as many spatial dimensions as the kernel has: `conv2d` for light fields, space-time, …

    `x` is `(n, c_in, *spatial)` and `w` `(c_out, c_in/groups, *kernel)`, or for layout "NHWC", in any number
    of dimensions, `(n, *spatial, c_in)` and `(*kernel, c_in/groups, c_out)`; everything else is as in
    `conv2d`.

    >>> import jax.numpy as jnp, jconv
    >>> light_field, w = jnp.ones((1, 3, 5, 5, 16, 16)), jnp.ones((8, 3, 3, 3, 3, 3))
    >>> jconv.conv(light_field, w, padding="same").shape
    (1, 8, 5, 5, 16, 16)
    """
    return compute(*parsed("conv", "forward", None, x, w, b, more, options))
