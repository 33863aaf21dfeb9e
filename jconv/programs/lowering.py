"""How a marked convolution is lowered, what the mark's word means, and `install`: the same without a mark."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import InconclusiveDimensionOperation
from jax.interpreters import mlir

from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import Algorithm, serves, watched
from jconv.api.arguments import named_algorithm
from jconv.choice.candidates import POLICIES
from jconv.lax.general import convolve
from jconv.mesh import explicit
from jconv.runtime.mark import LAX, set_unmarked, unmarked
from jconv.runtime.private import Rule, needs_devices, rules_of, word_of_rule
from jconv.spec import ConvSpec
from jconv.spec.checks import in_one_line
from jconv.spec.spelling import corrected

CONVOLUTION = jax.lax.conv_general_dilated_p
_ONCE = threading.Lock()
_OWN: dict[str, Algorithm] = {}  # a mark is text: here is what its word stands for
_NUMBERS = itertools.count()


@corrected
def install(algorithm: str | Algorithm = "auto") -> None:
    """Run every convolution of this process on jconv, from now on and until `uninstall`.

    What `accelerate` has not marked is lowered as if it had.  JAX's caches are cleared: everything is traced
    and compiled once more.  What was exported or compiled ahead of time stays as it is.

    Args:
      algorithm: as in `accelerate`.

    >>> import jax, jax.numpy as jnp, jconv
    >>> def conv(x, w):
    ...     return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", feature_group_count=8)
    >>> x, w = jnp.ones((1, 8, 16, 16)), jnp.ones((8, 1, 3, 3))
    >>> jconv.install()
    >>> "stablehlo.convolution" in jax.jit(conv).lower(x, w).as_text()
    False
    >>> jconv.uninstall()
    """
    make_ready()
    _let_unmarked_be(word_for(algorithm))


def uninstall() -> None:
    """Undo `install`; does nothing where it was not called.

    >>> uninstall()
    """
    _let_unmarked_be(None)


@corrected
@contextlib.contextmanager
def installed(algorithm: str | Algorithm = "auto") -> Iterator[None]:
    """`install` for the length of a with statement.

    >>> with installed():
    ...     pass
    """
    before = unmarked()
    install(algorithm)
    try:
        yield
    finally:
        _let_unmarked_be(before)


def _let_unmarked_be(word: str | None) -> None:
    if word != unmarked():
        set_unmarked(word)
        jax.clear_caches()


def word_for(algorithm: Any) -> str:
    """The word for a policy, the name of an algorithm, or an `Algorithm` of the user's own."""
    found = named_algorithm(algorithm)
    if isinstance(found, str) or ALGORITHMS.get(found.name) == found:
        return found if isinstance(found, str) else found.name
    known = (word for word, other in list(_OWN.items()) if other == found)
    word = next(known, None) or f"{found.name}#{next(_NUMBERS)}"
    _OWN[word] = found
    return word


@functools.cache
def meant(word: str) -> str | Callable[[ConvSpec], str | Algorithm]:
    """A policy, or an algorithm for what it can compute and "auto" for the rest."""
    if word in POLICIES:
        return word
    algorithm = watched(_OWN[word]) if word in _OWN else ALGORITHMS[word]
    return lambda spec: algorithm if serves(algorithm, spec) else "auto"


def make_ready() -> None:
    """Put the rule in front of those that JAX has, once in a process."""
    with _ONCE:
        rules = rules_of(CONVOLUTION)
        if getattr(rules[None], "func", None) is not _lower:
            needs_devices(CONVOLUTION)
            for platform, rule in rules.items():
                mlir.register_lowering(CONVOLUTION, functools.partial(_lower, rule), platform=platform)


def _lower(before: Rule, ctx: Any, lhs: Any, rhs: Any, **params: Any) -> Any:
    """A convolution as its mark says, or as before.  Where jconv fails lax does it, unless an algorithm was
    asked for by name."""
    word = word_of_rule(ctx)
    if word == LAX:
        return before(ctx, lhs, rhs, **params)
    try:
        with jax.default_matmul_precision(None):  # the precision that lax recorded stands
            return mlir.lower_fun(in_place_of_lax(word, params, ctx.avals_out[0]), False)(ctx, lhs, rhs)
    except Exception as error:
        if word not in POLICIES:
            raise
        # what jconv does not do, sizes that only a run will tell, shardings that it cannot keep
        kept = (ValueError,) if explicit.is_explicit(*ctx.avals_in) else ()
        if not isinstance(error, (NotImplementedError, InconclusiveDimensionOperation, *kept)):
            _warn(in_one_line(error))
        return before(ctx, lhs, rhs, **params)


def in_place_of_lax(word: str, params: dict[str, Any], result: Any) -> Callable[..., jax.Array]:
    """What jconv computes for the parameters of lax's primitive: an array of the type `result`."""
    sharding = {"out_sharding": explicit.typed_sharding(result)}

    def jconv(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        y = convolve(lhs, rhs, meant(word), **params | sharding)
        if (y.shape, y.dtype) != (result.shape, result.dtype):
            raise TypeError(f"jconv's result is {jax.typeof(y)} instead of {result}")
        return y

    return jconv


@functools.cache
def _warn(failure: str) -> None:
    """Once for each way to fail."""
    right = "the results are right, but this is an error in jconv: please report it"
    told = f"jconv failed at a convolution that lax computed ({failure}); {right}"
    warnings.warn(told, RuntimeWarning, stacklevel=3)
