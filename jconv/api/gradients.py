"""The two gradients by name, as `torch.nn.grad` has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Never, Unpack

import jax
from jax.typing import ArrayLike

from jconv.api import arguments
from jconv.api.options import GradientOptions, complete, spelled_out
from jconv.api.problem import compute, hashable, plain, understand
from jconv.spec import Role
from jconv.spec.checks import shown

ShapeLike = Sequence[int] | ArrayLike


@spelled_out(GradientOptions)
def grad_input(
    input_shape: ShapeLike, w: ArrayLike, g: ArrayLike, *more: Never, **options: Unpack[GradientOptions]
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
    return _gradient("grad_input", input_shape, w, g, more, options)


@spelled_out(GradientOptions)
def grad_kernel(
    x: ArrayLike, kernel_shape: ShapeLike, g: ArrayLike, *more: Never, **options: Unpack[GradientOptions]
) -> jax.Array:
    """Gradient of a convolution with respect to its kernel.

    `x` is the input of the convolution and `kernel_shape` the shape of its kernel, in the layout's order, as
    ints or an array of them; everything else is as in `grad_input`, the options as in `conv2d`.

    Returns:
      An array of shape `kernel_shape`: for each tap, its view of the input times `g`, summed.

    >>> import jax.numpy as jnp, jconv
    >>> jconv.grad_kernel(jnp.arange(4.0).reshape(1, 1, 4), (1, 1, 2), jnp.ones((1, 1, 3)))
    Array([[[3., 6.]]], dtype=float32)
    """
    return _gradient("grad_kernel", kernel_shape, x, g, more, options)


def _gradient(role: Role, shape: Any, array: Any, g: Any, more: Any, options: Mapping[str, Any]) -> jax.Array:
    """Either gradient, of the other operand, `array`, and g."""
    of_input = role == "grad_input"
    shape_name, name = ("input_shape", "w") if of_input else ("kernel_shape", "x")
    if isinstance(array, tuple):
        order = "input_shape, w, g" if of_input else "x, kernel_shape, g"
        raise TypeError(
            f"`{name}` must be an array, got the tuple {shown(array)}; the order is {role}({order})"
        )
    array, g = arguments.array(name, array), arguments.array("g", g)
    arguments.same_dtype(**{name: array, "g": g})
    knobs = hashable(complete(role, GradientOptions, options, more))
    if getattr(shape, "ndim", 1) > 1:
        raise TypeError(f"`{shape_name}` must be a sequence of ints, got {shown(shape)}; pass its .shape")
    least = 2 if of_input and array.ndim == 3 else 3  # an image of one dimension, no batch
    wanted = arguments.shape(shape_name, plain(shape_name, shape), least)
    x_shape, w_shape = (wanted, array.shape) if of_input else (array.shape, wanted)
    problem = understand(len(w_shape) - 2, role, x_shape, w_shape, g.dtype, knobs)
    expected = tuple(problem.spec.y_shape[axis] for axis in problem.layout.y)
    expected = expected if problem.batched else expected[1:]
    if g.shape != expected:
        raise ValueError(f"`g` has shape {g.shape}, but the output of this convolution has {expected}")
    return compute(problem, *((g, array) if of_input else (array, g)))
