"""Existing programs, unchanged, on jconv: `accelerate` one function, or `install` for the process.

JAX traces a program into equations, on which grad, vmap and jit work, and then lowers each by its primitive's
rule.  A convolution is one equation until then, `conv_general_dilated`, whoever wrote it.  So only the rule
has to change: it sees what is left after grad and vmap, with the platform known.  Which equations are meant
is said by metadata for the compiler (`runtime.mark`), which every equation traced in a context keeps.

    trace fn under the mark  →  JAX does what it does  →  lower a marked convolution as jconv's own

`lowering` has the rule.  jconv's own functions bind primitives of their own, whatever the mark.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from jconv.algorithms.record import Algorithm
from jconv.programs.lowering import make_ready, word_for
from jconv.runtime.mark import mark
from jconv.spec.checks import shown
from jconv.spec.spelling import corrected

F = TypeVar("F", bound=Callable[..., Any])


@corrected
def accelerate(fn: F, algorithm: str | Algorithm = "auto") -> F:
    """`fn`, computed as before except that every convolution of lax inside runs on jconv.

    Forward and backward convolutions alike, in whatever library's layers they are, through every
    transformation of JAX, on either side: `jax.jit(accelerate(f))` is `accelerate(jax.jit(f))`.  Nothing is
    traced or compiled here and nothing is kept.  `jconv.explain` lists what is found.

    Args:
      fn: a function, a jitted one, a bound method, or a module.  A module of Flax nnx or Equinox comes back
        as a module of the same parameters, whose class is derived from its own: optimisers, `nnx.split` and
        `eqx.partition` take it as before.  That is for calling it; another of its methods is a bound one.
      algorithm: "auto", "portable" or "fastest" as in `conv2d`; or a name or a `jconv.Algorithm`, for all
        convolutions that it can compute, and "auto" for the rest.

    Returns:
      A function of the same arguments and results.

    Raises:
      TypeError, ValueError: `fn` is not callable, a class, or computes after its call has returned, as a
        generator does; or `algorithm` is not known.  Otherwise what `fn` raises.

    >>> import jax, jax.numpy as jnp, jconv
    >>> def loss(w, x):
    ...     y = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", feature_group_count=8)
    ...     return (y ** 2).mean()
    >>> w, x = jnp.ones((8, 1, 3, 3)), jnp.ones((2, 8, 16, 16))
    >>> fast = jax.jit(jax.grad(jconv.accelerate(loss)))
    >>> bool(jnp.allclose(fast(w, x), jax.grad(loss)(w, x), rtol=1e-5))
    True
    """
    if not callable(fn):
        raise TypeError(f"`fn` must be callable, got {type(fn).__name__}; pass the function, not its result.")
    if isinstance(fn, type):
        raise TypeError(
            f"`fn`={fn.__qualname__} is a class; accelerate an instance, or a function that calls one"
        )
    if any(map(_computes_later, (fn, type(fn).__call__))):
        raise TypeError(
            f"`fn`={shown(fn)} computes after its call has returned; accelerate a function that it calls"
        )
    word = word_for(algorithm)
    make_ready()
    if _is_module(fn):
        cls: Any = type(fn)
        return _as(_marked_class(cls, word, algorithm), fn)
    return Accelerated(fn, word, algorithm)  # type: ignore[return-value]


def _computes_later(fn: Any) -> bool:
    kinds = inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction
    return any(is_one(fn) for is_one in kinds)


@corrected
@contextlib.contextmanager
def accelerated(algorithm: str | Algorithm = "auto") -> Iterator[None]:
    """`accelerate` for all that is traced in a with statement.

    >>> import jax, jax.numpy as jnp, jconv
    >>> x, w = jnp.ones((1, 2, 5, 5)), jnp.ones((2, 2, 3, 3))
    >>> with jconv.accelerated():
    ...     y = jax.lax.conv(x, w, (1, 1), "SAME")  # by jconv
    """
    word = word_for(algorithm)
    make_ready()
    with mark(word):
        yield


class Accelerated:
    """A function that is called under a mark.  Two of the same function are equal: jit knows it again.

    Its attributes are the function's, and where they are methods (`lower` of a jitted function) they are
    called under the mark, too.
    """

    def __init__(self, fn: Callable[..., Any], word: str, algorithm: str | Algorithm) -> None:
        functools.update_wrapper(self, fn, updated=())
        self._word, self._algorithm = word, algorithm
        self._key = fn, word

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """What the function returns."""
        with mark(self._word):
            return self.__wrapped__(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = getattr(self.__wrapped__, name)
        return Accelerated(value, self._word, self._algorithm) if inspect.isroutine(value) else value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Accelerated) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __reduce__(self) -> Any:
        """The function and the algorithm; of a decorated function, whose name is now this, the name."""
        found: Any = sys.modules.get(getattr(self, "__module__", None) or "")
        name = getattr(self, "__qualname__", "")
        for part in name.split("."):
            found = getattr(found, part, None)
        return name if found is self else (accelerate, (self.__wrapped__, self._algorithm))


# Modules: a wrapper would hide their parameters, so it is their class that is marked
def _is_module(fn: Any) -> bool:
    """Whether `fn` is a module of Flax nnx or Equinox: who has one has imported its library."""
    libraries = (sys.modules.get(name) for name in ("flax.nnx", "equinox"))
    return any(library is not None and isinstance(fn, library.Module) for library in libraries)


def _as(cls: Any, module: Any) -> Any:  # all attributes shared
    same = object.__new__(cls)
    object.__setattr__(same, "__dict__", vars(module))
    return same


@functools.cache
def _marked_class(cls: Any, word: str, algorithm: str | Algorithm) -> Any:
    """Derived from `cls`; one for each word, or the structures of two equal modules would differ."""
    body = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    body["__call__"] = Accelerated(cls.__call__, word, algorithm)
    body["__reduce__"] = lambda self: (accelerate, (_as(cls, self), algorithm))
    return type(cls)(cls.__name__, (cls,), body)
