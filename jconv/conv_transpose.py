"""Transposed convolution in PyTorch's names: conv_transpose1d, conv_transpose2d and conv_transpose3d.

A transposed convolution *is* grad_input of an ordinary one, of the *matching* convolution that takes
an input as large as the result and gives an output as large as x.  With K = dilation·(k − 1) + 1,

    h = (p − 1)·stride − lo − hi + K + output_padding       rows of the result, p rows of x

the matching convolution has h rows in and, its `hi` being smaller by output_padding, exactly p out:

    (h + lo + (hi − output_padding) − K) / stride + 1 = p

So output_padding only says which of the inputs that give p rows is meant.  The gradients of a
transposed convolution are the matching convolution and its grad_kernel.

Source: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016, chapter 4.
"""

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
from jconv.problem import Knobs, Problem, hashable
from jconv.spec import ConvSpec, Ints, extent


def conv_transpose2d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    stride: IntOrInts = 1,
    padding: Padding = 0,
    output_padding: IntOrInts = 0,
    groups: int = 1,
    dilation: IntOrInts = 1,
    layout: str | None = None,
    algorithm: str | Algorithm = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:
    """2-D transposed convolution: every input position adds a scaled copy of the kernel to the output.

    Args:
      x: input `(n, c_in, h, w)` or, for layout "NHWC", `(n, h, w, c_in)`; the batch axis may be left
        out and is then missing from the result too.
      w: kernel `(c_in, c_out/groups, kh, kw)`; for layout "NHWC" `(kh, kw, c_out/groups, c_in)`, the
        HWIO kernel of the convolution that this one transposes.  Same dtype as x.
      b: bias `(c_out,)`, or None.
      stride: distance between the kernel's copies, in output positions.
      padding: how much is cut off the output: an int, an int per dimension or a (lo, hi) pair each.
      output_padding: extra positions at the end of the output, fewer than stride or dilation.
      groups: the channels are cut into this many groups that do not see each other.
      dilation: distance between kernel taps, in output positions.
      layout, algorithm, precision, preferred_element_type: as in `conv2d`.

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
    return _conv_transpose(2, x, w, b, stride=stride, padding=padding, output_padding=output_padding,
                           groups=groups, dilation=dilation, layout=layout, algorithm=algorithm,
                           precision=precision, preferred_element_type=preferred_element_type)  # fmt: skip


def conv_transpose1d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    stride: IntOrInts = 1,
    padding: Padding = 0,
    output_padding: IntOrInts = 0,
    groups: int = 1,
    dilation: IntOrInts = 1,
    layout: str | None = None,
    algorithm: str | Algorithm = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:
    """1-D transposed convolution: `conv_transpose2d` with one spatial dimension.

    `x` is `(n, c_in, w)` and `w` `(c_in, c_out/groups, k)`, or for layout "NWC" `(n, w, c_in)` and
    `(k, c_out/groups, c_in)`; everything else is as in `conv_transpose2d`.

    >>> import jax.numpy as jnp, jconv
    >>> jconv.conv_transpose1d(jnp.array([[[1.0, 10.0]]]), jnp.array([[[1.0, 2.0, 3.0]]]), stride=2)
    Array([[[ 1.,  2., 13., 20., 30.]]], dtype=float32)
    """
    return _conv_transpose(1, x, w, b, stride=stride, padding=padding, output_padding=output_padding,
                           groups=groups, dilation=dilation, layout=layout, algorithm=algorithm,
                           precision=precision, preferred_element_type=preferred_element_type)  # fmt: skip


def conv_transpose3d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    stride: IntOrInts = 1,
    padding: Padding = 0,
    output_padding: IntOrInts = 0,
    groups: int = 1,
    dilation: IntOrInts = 1,
    layout: str | None = None,
    algorithm: str | Algorithm = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
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
    return _conv_transpose(3, x, w, b, stride=stride, padding=padding, output_padding=output_padding,
                           groups=groups, dilation=dilation, layout=layout, algorithm=algorithm,
                           precision=precision, preferred_element_type=preferred_element_type)  # fmt: skip


def _conv_transpose(ndim: int, x: ArrayLike, w: ArrayLike, b: ArrayLike | None, **knobs: Any) -> jax.Array:
    x, w = arguments.array("x", x), arguments.array("w", w)
    arguments.same_dtype(x=x, w=w)
    problem = understand(ndim, x.shape, w.shape, x.dtype, hashable(knobs))
    b = arguments.bias(b, problem.spec.in_channels, problem.spec.x_dtype)
    return _apply(problem, x, w, b)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _apply(problem: Problem, x: jax.Array, w: jax.Array, b: jax.Array | None) -> jax.Array:
    g, w = problem.canonical_y(x), w.transpose(problem.layout.w)
    y = convolve("grad_input", g, w, problem.spec, problem.algorithm)
    return problem.users_x(y if b is None else y + jnp.expand_dims(b, range(y.ndim - 1)))


@functools.lru_cache(maxsize=4096)
def understand(ndim: int, x_shape: Ints, w_shape: Ints, dtype: Any, knobs: Knobs) -> Problem:
    """The matching convolution, whose output is the user's x."""
    given = dict(knobs)
    layout = arguments.layout(given["layout"], ndim)
    arguments.rank("x", x_shape, (ndim + 1, ndim + 2), f"(batch if any, channels, {ndim} spatial)")
    arguments.rank("w", w_shape, (ndim + 2,), f"(in and out channels, {ndim} spatial)")
    batched = len(x_shape) == ndim + 2
    n, *spatial, channels = ((x_shape if batched else (1, *x_shape))[axis] for axis in layout.y_in)
    *kernel, c, _ = (w_shape[axis] for axis in layout.w)
    groups = _groups(given["groups"], channels, c, x_shape, w_shape, w_shape[layout.w[-1]])
    strides = arguments.integers("stride", given["stride"], ndim)
    dilation = arguments.integers("dilation", given["dilation"], ndim)
    more = _output_padding(given["output_padding"], strides, dilation)
    pairs = _padding(given["padding"], kernel, strides, dilation)
    arguments.not_empty(spatial, w_shape, w_shape)
    result = _result_spatial(spatial, kernel, strides, dilation, pairs, more)
    spec = ConvSpec(
        n, c * groups, channels, result, tuple(kernel), strides,
        tuple((lo, hi - m) for (lo, hi), m in zip(pairs, more, strict=True)), (1,) * ndim, dilation, groups,
        arguments.result_dtype(given["preferred_element_type"], dtype), str(dtype), str(dtype),
        arguments.precision(given["precision"]), layout.channels_first,
    )  # fmt: skip
    algorithm = arguments.algorithm(given["algorithm"], "grad_input", spec)
    return Problem(spec, layout, algorithm, batched, "zeros", ((0, 0),) * ndim)


def _groups(value: Any, channels: int, c: int, x_shape: Ints, w_shape: Ints, takes: int) -> int:
    if takes != channels:
        raise ValueError(
            f"`w` {w_shape} takes {takes} input channels, but `x` {x_shape} has {channels} channels; "
            f"its first channel axis (channels first) or last axis (channels last) needs {channels}"
        )
    return arguments.groups(value, channels, channels, x_shape, w_shape)


def _output_padding(value: Any, strides: Ints, dilation: Ints) -> Ints:
    more = arguments.integers("output_padding", value, len(strides), least=0)
    for m, s, d in zip(more, strides, dilation, strict=True):
        if m >= max(s, d):
            raise ValueError(
                f"`output_padding`={value!r} must be smaller than `stride`={s} or `dilation`={d}; "
                f"at most {max(s, d) - 1} fits"
            )
    return more


def _padding(value: Any, kernel: Any, strides: Ints, dilation: Ints) -> arguments.Pairs:
    if isinstance(value, str):
        raise TypeError(f"`padding`={value!r} has no meaning here; write ints or (lo, hi) pairs")
    return arguments.padding(value, kernel, strides, dilation)


def _result_spatial(spatial: Any, kernel: Any, strides: Ints, dilation: Ints, pairs: Any, more: Ints) -> Ints:
    result = tuple(
        (h - 1) * s + extent(k, d) - lo - hi + m
        for h, k, s, d, (lo, hi), m in zip(spatial, kernel, strides, dilation, pairs, more, strict=True)
    )
    if any(isinstance(size, int) and size < 1 for size in result):
        raise ValueError(f"`padding`={pairs} cuts off everything: the result would be {result}; take less")
    return result
