"""The two gradients by name, as `torch.nn.grad` has them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Never, Unpack

import jax
from jax.typing import ArrayLike

from jconv.api import arguments
from jconv.api.options import GradientOptions, complete, spelled_out
from jconv.api.problem import Problem, hashable, understand
from jconv.calculus.primitives import convolve
from jconv.spec import Ints
from jconv.spec.checks import shown


@spelled_out(GradientOptions)
def grad_input(
    input_shape: Sequence[int] | ArrayLike,
    w: ArrayLike,
    g: ArrayLike,
    *more: Never,
    **options: Unpack[GradientOptions],
) -> jax.Array:
    """Gradient of a convolution with respect to its input.

    Args:
      input_shape: shape of the input, in the layout's order, ints or an array of them; it cannot be
        told from `g` when the stride is not 1.
      w: the kernel of the convolution.
      g: gradient of the output, shaped like the output.
      stride, padding, dilation, groups, padding_mode, layout, algorithm, precision: as in `conv2d`, for
        any number of spatial dimensions.

    Returns:
      An array of shape `input_shape`: Σ over the outputs that each input position contributed to.

    Raises:
      ValueError, TypeError: an argument is wrong; the message names it and says what would work.

    >>> import jax.numpy as jnp, jconv
    >>> jconv.grad_input((1, 1, 4), jnp.ones((1, 1, 2)), jnp.ones((1, 1, 3)))
    Array([[[1., 2., 2., 1.]]], dtype=float32)
    """
    _in_order("grad_input(input_shape, w, g)", "w", w)
    w, g = arguments.array("w", w), arguments.array("g", g)
    arguments.same_dtype(w=w, g=g)
    knobs = hashable(
        complete("grad_input", GradientOptions, options, more) | {"preferred_element_type": None}
    )
    shape = _shape("input_shape", input_shape)
    problem = understand(w.ndim - 2, "grad_input", shape, w.shape, g.dtype, knobs)
    _check_g(problem, g)
    return _grad_input(problem, w, g)


@spelled_out(GradientOptions)
def grad_kernel(
    x: ArrayLike,
    kernel_shape: Sequence[int] | ArrayLike,
    g: ArrayLike,
    *more: Never,
    **options: Unpack[GradientOptions],
) -> jax.Array:
    """Gradient of a convolution with respect to its kernel.

    Args:
      x: the input of the convolution.
      kernel_shape: shape of the kernel, in the layout's order, ints or an array of them.
      g: gradient of the output, shaped like the output.
      stride, padding, dilation, groups, padding_mode, layout, algorithm, precision: as in `conv2d`, for
        any number of spatial dimensions.

    Returns:
      An array of shape `kernel_shape`: for each tap, its view of the input times `g`, summed.

    Raises:
      ValueError, TypeError: an argument is wrong; the message names it and says what would work.

    >>> import jax.numpy as jnp, jconv
    >>> jconv.grad_kernel(jnp.arange(4.0).reshape(1, 1, 4), (1, 1, 2), jnp.ones((1, 1, 3)))
    Array([[[3., 6.]]], dtype=float32)
    """
    _in_order("grad_kernel(x, kernel_shape, g)", "x", x)
    x, g = arguments.array("x", x), arguments.array("g", g)
    arguments.same_dtype(x=x, g=g)
    knobs = hashable(
        complete("grad_kernel", GradientOptions, options, more) | {"preferred_element_type": None}
    )
    shape = _shape("kernel_shape", kernel_shape)
    problem = understand(len(shape) - 2, "grad_kernel", x.shape, shape, g.dtype, knobs)
    _check_g(problem, g)
    return _grad_kernel(problem, x, g)


def _in_order(call: str, name: str, value: Any) -> None:
    if isinstance(value, tuple):
        raise TypeError(f"`{name}` must be an array, got the tuple {shown(value)}; the order is {call}")


def _shape(name: str, value: Any) -> Ints:
    """A tuple of ints, from an array of them too: one whose values are known."""
    if getattr(value, "ndim", 1) > 1:
        raise TypeError(f"`{name}` must be a sequence of ints, got {shown(value)}; pass its .shape")
    return arguments.shape(name, dict(hashable({name: value}))[name])


def _check_g(problem: Problem, g: jax.Array) -> None:
    expected = jax.eval_shape(problem.users_y, jax.ShapeDtypeStruct(problem.spec.y_shape, g.dtype)).shape
    if g.shape != expected:
        raise ValueError(f"`g` has shape {g.shape}, but the output of this convolution has {expected}")


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _grad_input(problem: Problem, w: jax.Array, g: jax.Array) -> jax.Array:
    w, g = w.transpose(problem.layout.w), problem.canonical_y(g)
    x = convolve("grad_input", g, w, problem.spec, problem.algorithm)
    return problem.users_x(problem.without_padding(x))


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _grad_kernel(problem: Problem, x: jax.Array, g: jax.Array) -> jax.Array:
    x, g = problem.canonical_x(x), problem.canonical_y(g)
    w = convolve("grad_kernel", x, g, problem.spec, problem.algorithm)
    return w.transpose(problem.layout.w_out)
