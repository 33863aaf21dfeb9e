"""The door in PyTorch's names: conv1d, conv2d and conv3d."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from jconv import arguments
from jconv.algorithm import Algorithm
from jconv.arguments import IntOrInts, Padding
from jconv.derivatives import convolve
from jconv.problem import Problem, hashable, understand


def _conv(ndim: int, x: ArrayLike, w: ArrayLike, b: ArrayLike | None, **knobs: Any) -> jax.Array:
    x, w = arguments.array("x", x), arguments.array("w", w)
    arguments.same_dtype(x=x, w=w)
    problem = understand(ndim, "forward", x.shape, w.shape, x.dtype, hashable(knobs))
    b = arguments.bias(b, problem.spec.out_channels, problem.spec.y_dtype)
    return _apply(problem, x, w, b)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _apply(problem: Problem, x: jax.Array, w: jax.Array, b: jax.Array | None) -> jax.Array:
    x, w = problem.canonical_x(x), w.transpose(problem.layout.w)
    y = convolve("forward", x, w, problem.spec, problem.algorithm)
    return problem.users_y(y if b is None else y + jnp.expand_dims(b, range(y.ndim - 1)))


def conv2d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    stride: IntOrInts = 1,
    padding: Padding = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    layout: str | None = None,
    algorithm: str | Algorithm = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:
    """2-D convolution (cross-correlation, as everywhere in deep learning).

    Args:
      x: input `(n, c_in, h, w)` or, for layout "NHWC", `(n, h, w, c_in)`; the batch axis may be left
        out and is then missing from the result too.
      w: kernel `(c_out, c_in/groups, kh, kw)`, or `(kh, kw, c_in/groups, c_out)`.  Same dtype as x.
      b: bias `(c_out,)`, or None.
      stride: step between windows, in input positions; an int or one per dimension.
      padding: zeros added around the input: an int, an int per dimension, a (lo, hi) pair per
        dimension, or "valid" (none), "same", "same_lower" (output as large as the input at stride
        1, the odd zero at the end or at the start), "causal" (1-D: all before the start).
      dilation: distance between kernel taps, in input positions.
      groups: the channels are cut into this many groups that do not see each other.
      padding_mode: what the padding holds: "zeros", "reflect", "replicate" or "circular".
      layout: "NCHW" with OIHW kernels (None means this) or "NHWC" with HWIO kernels.
      algorithm: "auto", the name of an algorithm (it runs or is refused, it never falls back), or a
        `jconv.Algorithm` of your own.
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
    return _conv(2, x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups,
                 padding_mode=padding_mode, layout=layout, algorithm=algorithm, precision=precision,
                 preferred_element_type=preferred_element_type)  # fmt: skip


def conv1d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    stride: IntOrInts = 1,
    padding: Padding = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    layout: str | None = None,
    algorithm: str | Algorithm = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:
    """1-D convolution: `conv2d` with one spatial dimension.

    `x` is `(n, c_in, w)` and `w` `(c_out, c_in/groups, k)`, or for layout "NWC" `(n, w, c_in)` and
    `(k, c_in/groups, c_out)`; everything else is as in `conv2d`.

    >>> import jax.numpy as jnp, jconv
    >>> jconv.conv1d(jnp.ones((1, 1, 4)), jnp.ones((1, 1, 3)), padding="causal")
    Array([[[1., 2., 3., 3.]]], dtype=float32)
    """
    return _conv(1, x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups,
                 padding_mode=padding_mode, layout=layout, algorithm=algorithm, precision=precision,
                 preferred_element_type=preferred_element_type)  # fmt: skip


def conv3d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    stride: IntOrInts = 1,
    padding: Padding = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    layout: str | None = None,
    algorithm: str | Algorithm = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:
    """3-D convolution: `conv2d` with three spatial dimensions.

    `x` is `(n, c_in, d, h, w)` and `w` `(c_out, c_in/groups, kd, kh, kw)`, or for layout "NDHWC"
    `(n, d, h, w, c_in)` and `(kd, kh, kw, c_in/groups, c_out)`; everything else is as in `conv2d`.

    >>> import jax.numpy as jnp, jconv
    >>> jconv.conv3d(jnp.ones((1, 2, 4, 4, 4)), jnp.ones((5, 2, 3, 3, 3))).shape
    (1, 5, 2, 2, 2)
    """
    return _conv(3, x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups,
                 padding_mode=padding_mode, layout=layout, algorithm=algorithm, precision=precision,
                 preferred_element_type=preferred_element_type)  # fmt: skip
