"""A user's call, understood once: arguments and shapes in, a `Problem` of plain integers out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Hashable, Iterator
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jconv import arguments
from jconv import layout as layouts
from jconv.algorithm import Algorithm
from jconv.arguments import Pairs
from jconv.layout import Layout
from jconv.spec import ConvSpec, Ints, Role

Knobs = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Problem:
    """The spec, how the arrays lie, and what has to be padded beforehand by a mode of its own."""

    spec: ConvSpec
    layout: Layout
    algorithm: str | Algorithm
    batched: bool
    mode: str
    mode_padding: Pairs

    def canonical_x(self, x: jax.Array) -> jax.Array:
        """x channels last, with a batch axis, padded where the mode is not zeros."""
        x = (x if self.batched else x[None]).transpose(self.layout.x)
        return x if self.mode == "zeros" else jnp.pad(x, ((0, 0), *self.mode_padding, (0, 0)), self.mode)

    def canonical_y(self, y: jax.Array) -> jax.Array:
        """y or its gradient channels last, with a batch axis."""
        return (y if self.batched else y[None]).transpose(self.layout.y_in)

    def users_x(self, x: jax.Array) -> jax.Array:
        """A canonical x as the user lays it out."""
        x = x.transpose(self.layout.x_out)
        return x if self.batched else x[0]

    def users_y(self, y: jax.Array) -> jax.Array:
        """A canonical y as the user lays it out."""
        y = y.transpose(self.layout.y)
        return y if self.batched else y[0]


def hashable(knobs: dict[str, Any]) -> Knobs:
    """Keyword arguments as a key for a cache: lists and small arrays become tuples.

    A `precision` of None is what JAX's own default is now.  What a dtype means depends on whether 64-bit
    types are enabled, so that is in the key too; and so are the types of all values, for 1 == True == 1.0
    and only one of them is a stride.
    """
    values = {name: plain(name, value) for name, value in knobs.items()}
    if "precision" in values and values["precision"] is None:
        values["precision"] = arguments.default_precision()
    around = {"x64": jax.config.read("jax_enable_x64"), "types": _types(tuple(values.values()))}
    return tuple((values | around).items())


def given(knobs: Knobs) -> dict[str, Any]:
    """The keyword arguments alone, of which `hashable` made a key."""
    return {name: value for name, value in knobs if name not in ("x64", "types")}


def plain(name: str, value: Any) -> Any:
    """A value that can be in a key: whatever is a sequence, an array or an iterator is a tuple."""
    if value is None or type(value) in (int, str):  # most are, and every eager call comes by here
        return value
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"`{name}` must be known when JAX traces, got {value}; see static_argnames of jax.jit"
        )
    if isinstance(value, (np.ndarray, jax.Array)):
        return plain(name, value.tolist())
    if isinstance(value, (list, tuple, range, Iterator)):
        entries = tuple(plain(name, entry) for entry in value)
        return type(value)(*entries) if hasattr(value, "_fields") else entries  # lax's own named tuples
    if not isinstance(value, Hashable):
        raise TypeError(f"`{name}` must be made of ints, strings or tuples, got {value!r}")
    return value


def plain_int(value: Any) -> Any:
    """An int of Python's own, whoever made it; a size that only a run will tell stays as it is."""
    return value if jax.export.is_symbolic_dim(value) else int(value)


def _types(value: Any) -> Any:
    return tuple(map(_types, value)) if isinstance(value, tuple) else type(value)


@functools.lru_cache(maxsize=4096)
def understand(ndim: int, role: Role, x_shape: Ints, w_shape: Ints, dtype: Any, knobs: Knobs) -> Problem:
    """Check every argument of a convolution of x with w and put them into the canonical form."""
    knob = dict(knobs)
    x, w = "input_shape" if role == "grad_input" else "x", "kernel_shape" if role == "grad_kernel" else "w"
    if ndim < 1:
        raise ValueError(f"`{w}` must have two channel and at least one spatial axis, got shape {w_shape}")
    layout = arguments.layout(knob["layout"], ndim)
    arguments.rank(x, x_shape, (ndim + 1, ndim + 2), f"(batch if any, channels, {ndim} spatial)")
    arguments.rank(w, w_shape, (ndim + 2,), f"(in and out channels, {ndim} spatial)")
    batched = len(x_shape) == ndim + 2
    n, *spatial, channels = _take(x_shape if batched else (1, *x_shape), layout.x)
    *kernel, c, out = _take(w_shape, layout.w)
    with hint_at_layout(layout, knob["groups"], x_shape if batched else (1, *x_shape), w_shape):
        groups = arguments.groups(knob["groups"], channels, out, x_shape, w_shape, x, w)
        arguments.channels(c, channels, groups, x_shape, w_shape, x, w)
    strides = arguments.integers("stride", knob["stride"], ndim)
    dilation = arguments.integers("dilation", knob["dilation"], ndim)
    pairs = arguments.padding(knob["padding"], kernel, strides, dilation)
    arguments.not_empty(spatial, (out, *kernel), w_shape, x, w)
    arguments.fits(spatial, pairs, kernel, dilation, x, w)
    mode = arguments.padding_mode(knob["padding_mode"], pairs, spatial)
    none = ((0, 0),) * ndim
    padded = [h + lo + hi for h, (lo, hi) in zip(spatial, pairs, strict=True)]
    spec = ConvSpec(
        n, channels, out,
        tuple(spatial if mode == "constant" else padded), tuple(kernel), strides,
        pairs if mode == "constant" else none, (1,) * ndim, dilation, groups,
        str(dtype), str(dtype), arguments.result_dtype(knob["preferred_element_type"], dtype),
        arguments.precision(knob["precision"]), layout.channels_first,
    )  # fmt: skip
    algorithm = arguments.algorithm(knob["algorithm"], role, spec)
    return Problem(spec, layout, algorithm, batched, "zeros" if mode == "constant" else mode,
                   none if mode == "constant" else pairs)  # fmt: skip


def _take(shape: Ints, axes: Ints) -> list[int]:
    return [shape[axis] for axis in axes]


@contextlib.contextmanager
def hint_at_layout(given: Layout, groups: Any, x_shape: Ints, w_shape: Ints) -> Iterator[None]:
    """Adds to an error about channels that they would agree in the other layout, where they would."""
    try:
        yield
    except ValueError as error:
        known = isinstance(groups, (int, np.integer)) and groups > 0
        hint = _layout_hint(given, int(groups), x_shape, w_shape) if known else ""
        raise ValueError(f"{error}{hint}") from None


def _layout_hint(given: Layout, groups: int, x_shape: Ints, w_shape: Ints) -> str:
    """What to write if x, w or both lie as in the other layout; x has its batch axis."""
    ndim = len(w_shape) - 2
    names = layouts.names(ndim) if given.channels_first else layouts.names(ndim)[::-1]
    space = ", ".join(f"k{axis.lower()}" for axis in names[0] if axis not in "NC")
    forms = f"(c_out, c_in, {space})", f"({space}, c_in, c_out)"
    mine, others = forms if given.channels_first else forms[::-1]
    this, other = (layouts.named(name, ndim) for name in names)
    if _agree(other, other, groups, x_shape, w_shape):
        return f"; or pass layout={names[1]!r}"
    if _agree(this, other, groups, x_shape, w_shape):
        return f"; with layout={names[0]!r} kernels are {mine}"
    if _agree(other, this, groups, x_shape, w_shape):
        return f"; or pass layout={names[1]!r}: kernels are then {others}"
    return ""


def _agree(x: Any, w: Any, groups: int, x_shape: Ints, w_shape: Ints) -> bool:
    """Whether the channels do, of x in the one layout and w in the other."""
    return x_shape[x.x[-1]] == w_shape[w.w[-2]] * groups and w_shape[w.w[-1]] % groups == 0
