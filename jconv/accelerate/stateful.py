"""Flax nnx objects among the arguments: what a function changes in them, the caller sees.

A batch normalisation updates its mean, a dropout its random state, an optimiser its step.  Traced
functions are pure, so the state goes in as arrays, comes out as arrays and is written back, as `nnx.jit`
does it.  Flax is not imported here: who has nnx objects has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import jax


def run(call: Callable[..., Any], fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """`call(fn, args, kwargs)`, with the state of nnx objects carried around it."""
    pure, state, _ = without_state(fn, args, kwargs)
    if pure is fn:
        return call(fn, args, kwargs)
    out, after = call(pure, state, {})
    sys.modules["flax.nnx"].update((fn, args, kwargs), after)
    return out


def without_state(fn: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Callable[..., Any], Any, Any]:
    """A call with the same effect on arrays alone, which also returns the state afterwards."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None or not _holds_objects(nnx, (fn, args, kwargs)):
        return fn, args, kwargs
    return _pure, nnx.split((fn, args, kwargs), nnx.Variable, ...), {}


def _pure(graph: Any, variables: Any, rest: Any) -> Any:
    nnx = sys.modules["flax.nnx"]
    fn, args, kwargs = nnx.merge(graph, variables, rest)
    out = fn(*args, **kwargs)
    return out, nnx.state((fn, args, kwargs), nnx.Variable)


def _holds_objects(nnx: Any, tree: Any) -> bool:
    kinds = (getattr(nnx, "Pytree", None) or nnx.Object, nnx.Variable)
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kinds))
    return any(isinstance(node, kinds) for node in nodes)
