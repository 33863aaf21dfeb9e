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

from jconv.accelerate.static import is_array


def run(call: Callable[..., Any], fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """`call(fn, args, kwargs)`, with the state of nnx objects carried around it."""
    pure, state, _ = without_state(fn, args, kwargs)
    if pure is fn:
        return call(fn, args, kwargs)
    out, after = call(pure, state, {})
    nnx = sys.modules["flax.nnx"]
    nnx.update(_apart(nnx, (fn, args, kwargs))[0], after)
    return out


def without_state(fn: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Callable[..., Any], Any, Any]:
    """A call with the same effect on arrays alone, which also returns the state afterwards."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None:
        return fn, args, kwargs
    nodes, static, tree = _apart(nnx, (fn, args, kwargs))
    if not any(isinstance(node, _kinds(nnx)) for node in nodes):
        return fn, args, kwargs
    return _pure, (tree, static, *nnx.split(nodes, nnx.Variable, ...)), {}


def _pure(tree: Any, static: Any, graph: Any, variables: Any, rest: Any) -> Any:
    nnx = sys.modules["flax.nnx"]
    nodes = nnx.merge(graph, variables, rest)
    leaves = [value if node is None else node for node, value in zip(nodes, static, strict=True)]
    fn, args, kwargs = jax.tree.unflatten(tree, leaves)
    out = fn(*args, **kwargs)
    return out, nnx.state(nodes, nnx.Variable)


def _apart(nnx: Any, tree: Any) -> tuple[list[Any], list[Any], Any]:
    """nnx objects and arrays, the other leaves, and the structure; None where a leaf is in the other list.

    nnx is not shown the others: it would take them for equal whenever `==` does.
    """
    objects = _kinds(nnx)
    leaves, structure = jax.tree.flatten(tree, is_leaf=lambda node: isinstance(node, objects))
    traced = [isinstance(leaf, objects) or is_array(leaf) for leaf in leaves]
    nodes = [leaf if is_node else None for leaf, is_node in zip(leaves, traced, strict=True)]
    static = [None if is_node else leaf for leaf, is_node in zip(leaves, traced, strict=True)]
    return nodes, static, structure


def _kinds(nnx: Any) -> tuple[type, ...]:
    return getattr(nnx, "Pytree", None) or nnx.Object, nnx.Variable
