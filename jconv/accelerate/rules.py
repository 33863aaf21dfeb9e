"""Functions with derivatives of their own: `jax.custom_jvp` and `jax.custom_vjp`.

Such an equation holds a body, which is a jaxpr, and rules, which are Python functions that JAX calls when
it differentiates.  The rules may convolve, too.  So the equation becomes a function of the same kind

    body    the rewritten body
    rule    the derivative of the *original* equation, which runs the user's rule, traced and rewritten

and the user's rule survives any order of `grad`, `vmap` and `accelerate`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import JaxprEqn, jaxpr_as_fun

from jconv.accelerate.takeover import as_one_equation

Rewrite = Callable[[Any], Any]


def has_own_derivative(eqn: JaxprEqn) -> bool:
    """True of calls of `jax.custom_jvp` and `jax.custom_vjp` functions."""
    return eqn.primitive.name in ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")


def may_hold_convolution(eqn: JaxprEqn, holds_convolution: Callable[[JaxprEqn], bool]) -> bool:
    """Whether to look further: the rules of a custom_vjp are only known once they run.

    A jvp rule computes what its body computes and that times tangents, so the body answers for it.
    """
    return eqn.primitive.name != "custom_jvp_call" or holds_convolution(eqn)


def rewrite(eqn: JaxprEqn, rewritten: Rewrite) -> JaxprEqn:
    """The equation with its body and its rules on jconv; as it is, if JAX does not let us."""
    make = _with_jvp if eqn.primitive.name == "custom_jvp_call" else _with_vjp
    try:
        replacement = as_one_equation(jax.jit(make(eqn, rewritten)), eqn)
    except (TypeError, ValueError, NotImplementedError):
        return eqn
    types = [[var.aval for var in e.outvars] for e in (eqn, replacement)]
    return replacement.replace(outvars=eqn.outvars) if types[0] == types[1] else eqn


def _with_jvp(eqn: JaxprEqn, rewritten: Rewrite) -> Callable[..., Any]:
    original = _original(eqn)

    @jax.custom_jvp
    def custom_jvp(*args: jax.Array) -> Any:
        return jaxpr_as_fun(rewritten(eqn.params["call_jaxpr"]))(*args)

    @custom_jvp.defjvp
    def jvp(primals: Any, tangents: Any) -> Any:
        return _traced(lambda p, t: jax.jvp(original, p, t), rewritten)(primals, tangents)

    return custom_jvp


def _with_vjp(eqn: JaxprEqn, rewritten: Rewrite) -> Callable[..., Any]:
    original = _original(eqn)

    @jax.custom_vjp
    def custom_vjp(*args: jax.Array) -> Any:
        return jaxpr_as_fun(rewritten(_body(eqn)))(*args)

    def fwd(*args: jax.Array) -> Any:
        return _traced(lambda *args: jax.vjp(original, *args), rewritten)(*args)

    def bwd(pullback: Any, cotangents: Any) -> Any:
        return _traced(lambda pullback, g: pullback(g), rewritten)(pullback, cotangents)

    custom_vjp.defvjp(fwd, bwd)
    return custom_vjp


def _body(eqn: JaxprEqn) -> Any:
    return eqn.params["call_jaxpr"] if "call_jaxpr" in eqn.params else eqn.params["fun_jaxpr"]


def _original(eqn: JaxprEqn) -> Callable[..., list[jax.Array]]:
    """The equation as a function, rules and all."""

    def original(*args: jax.Array) -> list[jax.Array]:
        return eqn.primitive.bind(*args, **eqn.primitive.get_bind_params(eqn.params))

    return original


def _traced(fun: Callable[..., Any], rewritten: Rewrite) -> Callable[..., Any]:
    """`fun` with jconv's convolutions."""

    def traced(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(fun, return_shape=True)(*args)
        out = jaxpr_as_fun(rewritten(closed))(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return traced
