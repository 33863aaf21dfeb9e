"""What is not an array: static values, and when a trace made with one holds for another.

A trace may be used again if nothing has changed that it depends on.  Equality does not say so: 0.0 equals
-0.0 and 1 equals True, and most objects are equal to themselves whatever becomes of their attributes.  So
each value has a key: equal keys, the same trace; no key, no trace is kept and every call traces anew.

    numbers, strings, …             type and value, of a float its bits
    functions, classes, modules     themselves: like jit, a trace does not look into a function again
    tuples, sets, dataclasses,      their parts, by the same rule
      partials, bound methods
    who defines == and hash         its own word for it
    all others                      none: their attributes change and nothing tells
"""

from __future__ import annotations

import dataclasses
import decimal
import enum
import functools
import struct
import types
from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np

# Equal only to themselves, and no program changes them (or, a function, expects to be asked again).
LASTING = (
    type, types.FunctionType, types.ModuleType, types.NoneType, types.EllipsisType, enum.Enum, np.ufunc,
)  # fmt: skip
BOUND = (types.MethodType, types.BuiltinMethodType, types.MethodWrapperType)


@jax.tree_util.register_pytree_node_class
class Static:
    """A value that travels with the structure of a pytree instead of among its arrays."""

    def __init__(self, value: Any) -> None:
        self.value = value

    @functools.cached_property
    def key(self) -> Hashable:
        """The key of the value as it was when first asked for."""
        return key_of(self.value)

    def tree_flatten(self) -> tuple[tuple[()], Static]:
        """No children."""
        return (), self

    @classmethod
    def tree_unflatten(cls, static: Static, _: Any) -> Static:
        """Itself."""
        return static

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Static) and self.key == other.key)

    def __hash__(self) -> int:
        return hash(self.key)


def value_of(leaf: Any) -> Any:
    """What a `Static` holds; anything else is its own value."""
    return leaf.value if isinstance(leaf, Static) else leaf


def is_array(leaf: Any) -> bool:
    """True of whatever JAX traces; Python's numbers are static."""
    if isinstance(leaf, (np.ndarray, np.generic)):
        return leaf.dtype.kind not in "OSUM"
    return isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)) or hasattr(leaf, "__jax_array__")


def key_of(value: Any) -> Hashable:
    """What a trace depends on in a value; TypeError if that can change without notice.

    >>> key_of(0.0) == key_of(-0.0), key_of(1) == key_of(True), key_of(float("nan")) == key_of(float("nan"))
    (False, False, True)
    """
    if _lasts(value):
        return value
    hash(value)  # a TypeError where there is none
    parts = _parts(value)
    if parts is not None:
        return type(value), parts
    if type(value).__eq__ is object.__eq__:
        raise TypeError(f"{type(value).__name__} objects are equal to themselves whatever they hold")
    return type(value), value


def _lasts(value: Any) -> bool:
    """Whether identity is enough: of functions, also as JAX and Flax wrap them, classes, sentinels."""
    library = type(value).__module__.partition(".")[0]
    wrapper = library in ("functools", "flax") and hasattr(value, "__wrapped__")
    of_jax = library in ("jax", "jaxlib") and type(value).__eq__ is object.__eq__  # jitted functions, devices
    return isinstance(value, LASTING) or type(value) is object or wrapper or of_jax


def _parts(value: Any) -> Hashable:
    """The key of a value that consists of others, or None."""
    if isinstance(value, (float, complex)):
        return struct.pack("dd", value.real, value.imag)
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, BOUND):
        return key_of(getattr(value, "__func__", value.__name__)), key_of(value.__self__)
    if isinstance(value, functools.partial):
        keywords = tuple((name, key_of(of)) for name, of in value.keywords.items())
        return key_of(value.func), _keys(value.args), keywords
    if isinstance(value, (tuple, frozenset)):
        return type(value)(_keys(value)) if type(value) in (tuple, frozenset) else _keys(value)
    if dataclasses.is_dataclass(value) and _compares_fields(value):
        return _keys(getattr(value, field.name) for field in dataclasses.fields(value) if field.compare)
    return None


def _compares_fields(value: Any) -> bool:
    return type(value).__dataclass_params__.eq


def _keys(values: Any) -> tuple[Hashable, ...]:
    return tuple(map(key_of, values))


def opened(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A bound method or a partial as a pytree, so that the arrays of its object or arguments are seen.

    The function itself is a leaf, too: it may be an object.
    """
    if isinstance(fn, types.MethodType):
        return jax.tree_util.Partial(_call, fn.__func__, fn.__self__)
    if isinstance(fn, functools.partial):
        return jax.tree_util.Partial(_call, opened(fn.func), *fn.args, **fn.keywords)
    return fn


def _call(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return fn(*args, **kwargs)
