"""A whole jaxpr with its convolutions replaced, and everything else left as it is.

Loops, branches, jit, checkpoint and shard_map are equations whose parameters hold further jaxprs.  Those
are rewritten in place: as each replacement has the type of what it replaces, no other parameter (carried
constants, donated buffers, shardings, a checkpoint policy) has to change.  What holds no convolution is
kept, not rebuilt.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxpr_as_fun

from jconv.accelerate import rules
from jconv.accelerate.policies import InLaxTerms
from jconv.accelerate.takeover import as_one_equation, is_convolution, take_over

# Primitives that mean nothing but "run these programs": bodies can be replaced by equal bodies.
PROGRAMS = frozenset(
    ("jit", "pjit", "scan", "while", "cond", "checkpoint", "remat", "remat2", "shard_map",
     "closed_call", "core_call", "named_call")
)  # fmt: skip

_REWRITTEN: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def rewritten(jaxpr: Any) -> Any:
    """`jaxpr`, open or closed, with jconv's convolutions; itself where there is nothing to replace.

    The same jaxpr always gives the same result, so that whoever caches on it (jit) finds it again.
    """
    if jaxpr not in _REWRITTEN:
        result = _rewrite(jaxpr)
        _REWRITTEN[jaxpr] = None if result is jaxpr else result  # a key must not keep itself alive
    result = _REWRITTEN[jaxpr]
    return jaxpr if result is None else result


def _rewrite(jaxpr: Any) -> Any:
    if not isinstance(jaxpr, Jaxpr):  # a ClosedJaxpr, where that is a class of its own
        body = rewritten(jaxpr.jaxpr)
        return jaxpr if body is jaxpr.jaxpr else jaxpr.replace(jaxpr=body)
    eqns = [_rewrite_eqn(eqn) for eqn in jaxpr.eqns]
    if all(new is old for new, old in zip(eqns, jaxpr.eqns, strict=True)):
        return jaxpr
    return jaxpr.replace(eqns=eqns)


def _rewrite_eqn(eqn: JaxprEqn) -> JaxprEqn:
    if is_convolution(eqn):
        return take_over(eqn)[0]
    if rules.has_own_derivative(eqn):
        return rules.rewrite(eqn, rewritten) if rules.may_hold_convolution(eqn, holds_convolution) else eqn
    if eqn.primitive.name not in PROGRAMS or not holds_convolution(eqn):
        return eqn
    if eqn.primitive.name == "shard_map":
        try:
            return _rewrite_shard_map(eqn)
        except (KeyError, TypeError, ValueError, NotImplementedError):
            return eqn
    params = {name: _rewrite_param(value) for name, value in eqn.params.items()}
    changed = any(params[name] is not eqn.params[name] for name in params)
    if changed and params.get("policy") is not None:  # of a checkpoint
        params["policy"] = InLaxTerms(params["policy"])
    return eqn.replace(params=params) if changed else eqn


def _rewrite_shard_map(eqn: JaxprEqn) -> JaxprEqn:
    """The body is rewritten while a shard_map is traced: only then JAX keeps track of varying axes."""
    params = eqn.params

    def body(*args: Any) -> Any:
        return jaxpr_as_fun(ClosedJaxpr(rewritten(params["jaxpr"]), ()))(*args)

    mapped = jax.shard_map(
        body, mesh=params["mesh"], in_specs=params["in_specs"], out_specs=list(params["out_specs"]),
        axis_names=set(params["newly_manual_axes"]), check_vma=params["check_vma"],
    )  # fmt: skip
    call = as_one_equation(mapped, eqn)
    return eqn.replace(params=params | {"jaxpr": call.params["jaxpr"]})


def _rewrite_param(value: Any) -> Any:
    if isinstance(value, (Jaxpr, ClosedJaxpr)):
        return rewritten(value)
    if isinstance(value, (tuple, list)):
        items = [_rewrite_param(item) for item in value]
        changed = any(new is not old for new, old in zip(items, value, strict=True))
        return type(value)(items) if changed and type(value) in (tuple, list) else value
    return value


def bodies(eqn: JaxprEqn) -> Iterator[Any]:
    """The jaxprs an equation holds."""
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else [value]:
            if isinstance(item, (Jaxpr, ClosedJaxpr)):
                yield item


def holds_convolution(eqn: JaxprEqn) -> bool:
    """True if the equation is a convolution, or has one anywhere in its bodies."""
    return is_convolution(eqn) or any(holds_convolution(inner) for body in bodies(eqn) for inner in body.eqns)
