"""The door to the choice: which algorithm would run, why, and why not each of the others."""

from __future__ import annotations

import inspect
from typing import Any

import jax
from jax.typing import ArrayLike

from jconv import arguments, choice
from jconv.arguments import IntOrInts, Padding
from jconv.choice import Choice
from jconv.problem import hashable, understand
from jconv.spec import ROLES, ConvSpec, Role

PLATFORMS = ("cpu", "gpu", "cuda", "rocm", "tpu")  # as JAX names them


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
      platform: "cpu", "gpu", "cuda", "rocm", "tpu" or, as None too, JAX's default backend.
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
    arguments.one_of("role", role, ROLES)
    _check_platform(platform)
    knobs = dict(stride=stride, padding=padding, dilation=dilation, groups=groups,
                 padding_mode=padding_mode, layout=layout, precision=precision,
                 preferred_element_type=preferred_element_type)  # fmt: skip
    if isinstance(x, ConvSpec):
        _check_nothing_else(dict(w=w, **knobs))
        return choice.choose(x, role, platform)
    x, w = _operand("x", x), _operand("w", w)
    arguments.same_dtype(x=x, w=w)
    given = hashable(knobs | {"algorithm": "auto"})
    problem = understand(len(w.shape) - 2, "forward", x.shape, w.shape, x.dtype, given)
    return choice.choose(problem.spec, role, platform)


def _check_platform(value: Any) -> None:
    """None, one of the usual names, or that of a plug-in that JAX runs on."""
    if value is not None and value not in PLATFORMS:
        arguments.one_of("platform", value, tuple(dict.fromkeys((*PLATFORMS, jax.default_backend()))))


def _check_nothing_else(given: dict[str, Any]) -> None:
    """Beside a spec, which says the rest, every argument is what it is when left out."""
    usual = inspect.signature(choose).parameters
    for name, value in given.items():
        default = usual[name].default
        if value is not default and (default is None or type(value) is not type(default) or value != default):
            came = "" if name == "w" else f"={value!r}"
            raise ValueError(
                f"`{name}`{came} came with a ConvSpec, which says all but `role` and `platform`; "
                "leave it out, or change the spec: ConvSpec.of(…) or spec.replace(…)"
            )


def _operand(name: str, value: Any) -> jax.Array | jax.ShapeDtypeStruct:
    """An array, or no more than its shape and dtype."""
    return value if isinstance(value, jax.ShapeDtypeStruct) else arguments.array(name, value)
