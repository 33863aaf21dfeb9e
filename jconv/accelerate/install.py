"""`install`: jconv wherever the process traces a convolution, for programs that cannot be wrapped."""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax
from jax.extend.core import InconclusiveDimensionOperation

from jconv import explicit
from jconv.accelerate.takeover import LAX, in_one_line, in_place_of_lax


def install() -> None:
    """Run every convolution of this process on jconv, from now on and until `uninstall`.

    What it changes: the `bind` of JAX's primitive `conv_general_dilated`, through which all of JAX, and
    so every library on it, asks for a convolution.  While installed it asks jconv.  As with `accelerate`
    what jconv refuses goes to lax; so does what it fails at, with a warning.  Compiled functions would go
    on with what they were compiled to, so JAX's caches are cleared (`jax.clear_caches`): everything is
    traced and compiled once more.  A policy of `jax.checkpoint` that looks for lax's primitive does not
    find it and has convolutions computed again; with `accelerate` around the checkpoint it does.

    What it does not change: jaxprs traced before and kept (`jax.export`, `jax.make_jaxpr`, ahead-of-time
    compiled functions), other processes, and functions of your own that hold on to results.  A second
    call does nothing.

    >>> import jax, jax.numpy as jnp, jconv
    >>> def conv(x, w):
    ...     return jax.lax.conv(x, w, (1, 1), "SAME")
    >>> x, w = jnp.ones((1, 2, 5, 5)), jnp.ones((2, 2, 3, 3))
    >>> jconv.install()
    >>> "conv_general_dilated" in str(jax.make_jaxpr(conv)(x, w))
    False
    >>> jconv.uninstall()
    >>> "conv_general_dilated" in str(jax.make_jaxpr(conv)(x, w))
    True
    """
    if not is_installed():
        LAX.bind = _bind  # on the object, in front of its class's method
        jax.clear_caches()


def uninstall() -> None:
    """Undo `install`; does nothing where it was not called.

    >>> import jconv
    >>> jconv.uninstall()
    """
    if is_installed():
        del LAX.bind
        jax.clear_caches()


def is_installed() -> bool:
    """Whether `install` is in force."""
    return "bind" in vars(LAX)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """`install` for the length of a with statement.

    >>> import jconv
    >>> with jconv.installed():
    ...     pass
    """
    before = is_installed()
    install()
    try:
        yield
    finally:
        if not before:
            uninstall()


def _bind(lhs: Any, rhs: Any, **params: Any) -> Any:
    """jconv, except for what jconv itself asks lax for."""
    lax_bind = functools.partial(type(LAX).bind, LAX)
    if _asked_by_jconv():
        return lax_bind(lhs, rhs, **params)
    try:
        return in_place_of_lax(lhs, rhs, **params)
    except Exception as error:
        result = lax_bind(lhs, rhs, **params)  # where lax refuses, too, its message is the one to see
        if not _is_refusal(error, lhs, rhs):
            _warn(in_one_line(error))
        return result


def _is_refusal(error: Exception, lhs: Any, rhs: Any) -> bool:
    """Whether jconv means it: what it does not do, sizes not known, shardings that it cannot keep."""
    typed = explicit.is_explicit(jax.typeof(lhs), jax.typeof(rhs))
    refusals = (NotImplementedError, InconclusiveDimensionOperation, *([ValueError] if typed else []))
    return isinstance(error, refusals)


@functools.cache
def _warn(failure: str) -> None:
    """Once for each way to fail."""
    warnings.warn(
        f"jconv failed at a convolution that lax computed ({failure}); the results are right, but this is"
        " an error in jconv: please report it",
        RuntimeWarning,
        stacklevel=3,
    )


def _asked_by_jconv() -> bool:
    """Whether an algorithm, or another part of jconv that means lax when it says lax, is on the stack.

    This package is not meant: the functions it traces are the user's.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("jconv.") and not module.startswith(__package__):
            return True
        frame = frame.f_back
    return False
