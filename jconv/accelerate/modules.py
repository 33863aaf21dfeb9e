"""Modules of Flax nnx and Equinox, which stay modules: it is their class that is marked.

A wrapper around a module would hide its parameters from whoever looks for them.  So the module comes back
as it is, all its attributes shared, as an object of a class derived from its own, in which `__call__` sets
the mark.  Neither library is imported here: who has a module has imported its library.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from jconv.mark import mark

Again = Callable[[Any], Any]


def is_module(fn: Any) -> bool:
    """Whether `fn` is a module of a library that goes by classes."""
    libraries = (sys.modules.get(name) for name in ("flax.nnx", "equinox"))
    return any(library is not None and isinstance(fn, library.Module) for library in libraries)


def marked_module(module: Any, word: str, again: Again) -> Any:
    """The module with its call under a mark; `again` does it once more in another process."""
    return _as(_marked(type(module), word, again), module)


def _as(cls: Any, module: Any) -> Any:
    same = object.__new__(cls)
    object.__setattr__(same, "__dict__", vars(module))
    return same


def _marked(cls: Any, word: str, again: Again) -> Any:
    """One class for the same words, or treedefs and graphs would differ."""
    if (cls, word) not in _CLASSES:
        body = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
        call = functools.wraps(cls.__call__)(_call_under(cls.__call__, word))
        body |= {"__call__": call, "__reduce__": lambda self: (again, (_as(cls, self),))}
        _CLASSES[cls, word] = type(cls)(cls.__name__, (cls,), body)
    return _CLASSES[cls, word]


_CLASSES: dict[tuple[Any, str], Any] = {}


def _call_under(call: Callable[..., Any], word: str) -> Callable[..., Any]:
    def marked(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        with mark(word):
            return call(self, *args, **kwargs)

    return marked
