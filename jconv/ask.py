"""The door to the choice: which algorithm would run, why, and why not each of the others."""

from __future__ import annotations

from typing import Any

import jax
from jax.typing import ArrayLike

from jconv import arguments, choice
from jconv.arguments import IntOrInts, Padding
from jconv.choice import Choice
from jconv.problem import hashable, understand
from jconv.spec import ConvSpec, Role


def choose(
    x: ArrayLike | jax.ShapeDtypeStruct | ConvSpec,
    w: ArrayLike | jax.ShapeDtypeStruct | None = None,
    *,
    role: Role = "forward",
    platform: str | None = None,
    stride: IntOrInts = 1,
    padding: Padding = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    layout: str | None = None,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Choice:
    """The algorithm that `algorithm="auto"` runs, the reason, and why not each other one.

    Args:
      x: input of the convolution or its shape and dtype (`jax.ShapeDtypeStruct`); or a `ConvSpec`, and
        then nothing else but `role` and `platform`.
      w: kernel, likewise.
      role: "forward", "grad_input" or "grad_kernel".
      platform: "cpu", "cuda", …; None is JAX's default backend.
      stride, padding, dilation, groups, padding_mode, layout, precision, preferred_element_type: as in
        `conv2d`, for any number of spatial dimensions.

    Returns:
      A `Choice`: print it, look at it in a notebook, or take `.algorithm`, `.reason`, `.rejected`,
      `.seconds` (estimated, per algorithm) and `.as_dict()`.

    Raises:
      ValueError, TypeError: an argument is wrong; the message names it and says what would work.

    >>> import jax.numpy as jnp, jconv
    >>> x, w = jnp.ones((1, 64, 56, 56)), jnp.ones((64, 1, 3, 3))
    >>> jconv.choose(x, w, groups=64, padding=1, platform="cpu").algorithm.name
    'planes'
    """
    arguments.one_of("role", role, ("forward", "grad_input", "grad_kernel"))
    if isinstance(x, ConvSpec):
        return choice.choose(x, role, platform)
    x, w = _operand("x", x), _operand("w", w)
    arguments.same_dtype(x=x, w=w)
    knobs = hashable(dict(stride=stride, padding=padding, dilation=dilation, groups=groups,
                          padding_mode=padding_mode, layout=layout, algorithm="auto", precision=precision,
                          preferred_element_type=preferred_element_type))  # fmt: skip
    problem = understand(len(w.shape) - 2, "forward", x.shape, w.shape, x.dtype, knobs)
    return choice.choose(problem.spec, role, platform)


def _operand(name: str, value: Any) -> jax.Array | jax.ShapeDtypeStruct:
    """An array, or no more than its shape and dtype."""
    return value if isinstance(value, jax.ShapeDtypeStruct) else arguments.array(name, value)
