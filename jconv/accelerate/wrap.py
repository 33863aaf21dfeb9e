"""`accelerate`: any traceable function, its convolutions on jconv."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from jconv.accelerate import stateful
from jconv.accelerate.rewrite import rewritten
from jconv.accelerate.static import Static, is_array, opened, value_of

F = TypeVar("F", bound=Callable[..., Any])
KEPT = 256  # kinds of arguments remembered per function


def accelerate(fn: F) -> F:
    """`fn`, computed as before except that every convolution inside runs on jconv.

    Forward and backward convolutions alike, through jit, scan, while, cond, checkpoint, custom
    derivatives and shard_map; in whatever library's layers they are.  It composes with `jax.jit`,
    `jax.grad` and `jax.vmap` on either side.  `jconv.explain` lists what was found.

    Like `jax.jit`, it traces `fn` once per kind of arguments and from then on runs what was traced, so
    Python's side effects happen once and values of arrays cannot decide about Python's control flow.
    Unlike it, it compiles nothing (wrap it in `jax.jit`, or pass it what is jitted), and what is not an
    array is static: numbers, strings, functions and None reach `fn` as they are, in any place, and are
    part of the kind.  A Python number that changes at every call is better passed as an array.  An object
    that is neither a pytree nor defines `==` and `hash` may have changed since the last call without a
    sign of it: with one as an argument or as the object of a method, every call traces anew, which is
    right but slow.

    A policy of `jax.checkpoint` inside `fn` is asked about jconv's convolutions as about lax's.  One around
    the accelerated function (`jax.checkpoint(accelerate(fn), policy=dots_saveable)`) is not: it meets
    primitives it does not know and has them computed again.  Put the checkpoint inside.

    Args:
      fn: a function, a jitted function, a module (Flax nnx, Equinox) or a bound method of one.
        Arrays held by a module that is a pytree, be it `fn` or the object of a method, are arguments; what
        an ordinary function closes over is a constant.  Changes to Flax nnx objects among the arguments
        reach the caller.

    Returns:
      A function of the same arguments and results.

    Raises:
      TypeError: `fn` is not callable.  Otherwise whatever `fn` raises.

    >>> import jax, jax.numpy as jnp, jconv
    >>> def loss(w, x):
    ...     y = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", feature_group_count=8)
    ...     return (y ** 2).mean()
    >>> w, x = jnp.ones((8, 1, 3, 3)), jnp.ones((2, 8, 16, 16))
    >>> fast = jax.jit(jax.grad(jconv.accelerate(loss)))
    >>> bool(jnp.allclose(fast(w, x), jax.grad(loss)(w, x), rtol=1e-5))
    True
    """
    check_callable(fn)
    call = _remembering()

    @functools.wraps(fn, updated=())
    def accelerated(*args: Any, **kwargs: Any) -> Any:
        return stateful.run(call, opened(fn), args, kwargs)

    return accelerated  # type: ignore[return-value]


def check_callable(fn: Any) -> None:
    """A TypeError for what is no function."""
    if not callable(fn):
        raise TypeError(f"`fn` must be callable, got {type(fn).__name__}; pass the function, not its result.")


class Program(NamedTuple):
    """A function at given arguments: the jaxpr before rewriting, its inputs, the shape of its result."""

    jaxpr: Any
    arrays: list[Any]
    result: Any


def program(
    fn: Callable[..., Any], args: Any, kwargs: Any, trace: Callable[..., Any] | None = None
) -> Program:
    """Trace `fn`; what is not an array is static."""
    leaves, tree = jax.tree.flatten((fn, args, kwargs))
    arrays = [leaf for leaf in leaves if is_array(leaf)]
    static = tuple(None if is_array(leaf) else Static(leaf) for leaf in leaves)
    jaxpr, result = (trace or _tracer)(tree, static)(*arrays)
    return Program(jaxpr, arrays, result)


def _remembering() -> Callable[..., Any]:
    """Run accelerated, tracing once per kind of arguments: jit's cache, with one function per kind."""
    cached = functools.lru_cache(maxsize=KEPT)(_tracer)

    def trace(tree: Any, static: Any) -> Callable[..., Any]:
        try:
            return cached(tree, static)
        except TypeError:  # a value without a key: traced anew each time
            return _tracer(tree, static)

    def run(fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        jaxpr, arrays, result = program(fn, args, kwargs, trace)
        leaves = [_as_array(leaf) for leaf in jaxpr_as_fun(rewritten(jaxpr))(*arrays)]
        out = jax.tree.unflatten(jax.tree.structure(result), leaves)
        return jax.tree.map(value_of, out, is_leaf=lambda node: isinstance(node, Static))

    return run


def _as_array(leaf: Any) -> jax.Array:
    """What a function makes with NumPy alone comes out of a jaxpr in a type that is private to JAX."""
    return leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)


def _tracer(tree: Any, static: Any) -> Callable[..., Any]:
    """From arrays to the jaxpr of a call whose other leaves are `static`, and the shape of its result."""

    def flat(*arrays: jax.Array) -> Any:
        rest = iter(arrays)
        leaves = [next(rest) if leaf is None else leaf.value for leaf in static]
        fn, args, kwargs = jax.tree.unflatten(tree, leaves)
        return jax.tree.map(lambda leaf: leaf if is_array(leaf) else Static(leaf), fn(*args, **kwargs))

    return jax.make_jaxpr(flat, return_shape=True)
