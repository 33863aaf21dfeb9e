"""One equation: the call of jconv that computes the same, or the reason why there is none."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import JaxprEqn

from jconv.lax import conv_general_dilated

LAX = jax.lax.conv_general_dilated_p


def is_convolution(eqn: JaxprEqn) -> bool:
    """True of lax's convolution, the one thing that is replaced."""
    return eqn.primitive is LAX


def take_over(eqn: JaxprEqn) -> tuple[JaxprEqn, str]:
    """What takes the place of a convolution: a call of jconv and "", or the equation and the reason.

    A replacement has to have the same type, down to weak types, sharding and mesh axes, so that
    nothing around it has to change.  Whatever jconv cannot trace stays as it was.
    """
    try:
        replacement = as_one_equation(_door(tuple(eqn.params.items())), eqn)
    except Exception as error:  # whatever it is, lax can still do it
        return eqn, f"jconv: {in_one_line(error)}"
    (wanted,), (got,) = ([var.aval for var in e.outvars] for e in (eqn, replacement))
    if wanted != got:
        return eqn, f"jconv's result is {got.str_short(True, True)} instead of {wanted.str_short(True, True)}"
    return replacement.replace(outvars=eqn.outvars), ""


def in_place_of_lax(lhs: Any, rhs: Any, **params: Any) -> jax.Array:
    """What jconv computes for the parameters of lax's primitive.  The precision that lax recorded stands,
    whatever the default is where this is traced."""
    with jax.default_matmul_precision(None):
        return conv_general_dilated(lhs, rhs, **params)


def in_one_line(error: Exception) -> str:
    """An error's type and the first line of its message."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


@functools.lru_cache(maxsize=1024)
def _door(params: Any) -> Callable[..., jax.Array]:
    """The same function for the same parameters: equal convolutions are traced and compiled once."""

    def jconv(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        return in_place_of_lax(lhs, rhs, **dict(params))

    return jax.jit(jconv)


def as_one_equation(fun: Callable[..., Any], eqn: JaxprEqn) -> JaxprEqn:
    """The call of a jitted `fun` at the arguments of `eqn`, its results not yet connected."""
    with eqn.ctx.manager:  # the mesh, the compute type, …: what it was traced under
        closed = jax.make_jaxpr(fun)(*(_like(var.aval) for var in eqn.invars))
    (call,) = closed.eqns
    if list(call.invars) != list(closed.jaxpr.invars):
        raise ValueError("the call closes over constants")
    return call.replace(invars=eqn.invars, source_info=eqn.source_info, ctx=eqn.ctx)


def _like(aval: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(
        aval.shape, aval.dtype, weak_type=aval.weak_type, sharding=aval.sharding,
        manual_axis_type=aval.manual_axis_type,
    )  # fmt: skip
