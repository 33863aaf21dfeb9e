"""A user's call, understood once: arguments and shapes in, a `Problem` of plain integers out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jconv.algorithms.record import Algorithm
from jconv.api import arguments, hints, modes
from jconv.api.options import PaddingMode
from jconv.spec import ConvSpec, Ints, Role, extent
from jconv.spec.checks import Pairs, shown
from jconv.spec.layout import Layout

Knobs = tuple[tuple[str, Any], ...]

MOST_IN_A_KEY = 256  # entries of an array: no option has as many


@dataclasses.dataclass(frozen=True)
class Problem:
    """The spec, how the arrays lie, and what has to be padded beforehand by a mode of its own."""

    spec: ConvSpec
    layout: Layout
    algorithm: str | Algorithm
    batched: bool
    mode: PaddingMode
    mode_padding: Pairs

    def canonical_x(self, x: jax.Array) -> jax.Array:
        """x channels last, with a batch axis, padded where the mode is not zeros."""
        x = (x if self.batched else x[None]).transpose(self.layout.x)
        return x if self.mode == "zeros" else modes.padded(x, self.mode_padding, self.mode)

    def without_padding(self, x: jax.Array) -> jax.Array:
        """The transpose of the padding: a gradient of the padded x as one of x, both canonical."""
        if self.mode == "zeros":
            return x
        around = zip(self.spec.spatial, self.mode_padding, strict=True)
        spatial = [size - lo - hi for size, (lo, hi) in around]
        return modes.folded_back(x, spatial, self.mode_padding, self.mode)

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
        if value.size > MOST_IN_A_KEY or not hasattr(value, "tolist"):  # keys of random numbers hold none
            raise TypeError(f"`{name}` must be made of ints, strings or tuples, got {shown(value)}")
        return plain(name, value.tolist())
    if isinstance(value, (list, tuple, range, Iterator)):
        entries = tuple(plain(name, entry) for entry in value)
        return type(value)(*entries) if hasattr(value, "_fields") else entries  # lax's own named tuples
    if not isinstance(value, Hashable):
        raise TypeError(f"`{name}` must be made of ints, strings or tuples, got {shown(value)}")
    return value


def _types(value: Any) -> Any:
    return tuple(map(_types, value)) if isinstance(value, tuple) else type(value)


class Sizes(NamedTuple):
    """The sizes of two arrays by meaning; x is y where a convolution is transposed."""

    batched: bool
    batch: int
    spatial: Ints
    channels: int
    kernel: Ints
    c: int
    out: int


def sizes(layout: Layout, ndim: int, x_shape: Ints, w_shape: Ints, x: str = "x", w: str = "w") -> Sizes:
    """The axes of two shapes, told apart; `x` and `w` are what the user calls the two."""
    arguments.rank(x, x_shape, (ndim + 1, ndim + 2), f"(batch if any, channels, {ndim} spatial)")
    arguments.rank(w, w_shape, (ndim + 2,), f"(in and out channels, {ndim} spatial)")
    batched = len(x_shape) == ndim + 2
    n, *spatial, channels = _take(x_shape if batched else (1, *x_shape), layout.x)
    *kernel, c, out = _take(w_shape, layout.w)
    return Sizes(batched, n, tuple(spatial), channels, tuple(kernel), c, out)


def _take(shape: Ints, axes: Ints) -> list[int]:
    return [shape[axis] for axis in axes]


@functools.lru_cache(maxsize=4096)
def understand(ndim: int, role: Role, x_shape: Ints, w_shape: Ints, dtype: Any, knobs: Knobs) -> Problem:
    """Check every argument of a convolution of x with w and put them into the canonical form."""
    knob = dict(knobs)
    x, w = "input_shape" if role == "grad_input" else "x", "kernel_shape" if role == "grad_kernel" else "w"
    if ndim < 1:
        raise ValueError(f"`{w}` must have two channel and at least one spatial axis, got shape {w_shape}")
    layout = arguments.layout(knob["layout"], ndim)
    batched, n, spatial, channels, kernel, c, out = sizes(layout, ndim, x_shape, w_shape, x, w)
    with hints.about(layout, knob["groups"], x_shape if batched else (1, *x_shape), w_shape):
        groups = arguments.groups(knob["groups"], channels, out, x_shape, w_shape, x, w)
        arguments.channels(c, channels, groups, x_shape, w_shape, x, w)
    strides = arguments.integers("stride", knob["stride"], ndim)
    dilation = arguments.integers("dilation", knob["dilation"], ndim)
    arguments.not_empty(spatial, (out, *kernel), w_shape, x, w)
    pairs = arguments.padding(knob["padding"], spatial, tuple(map(extent, kernel, dilation)), strides)
    arguments.fits(spatial, pairs, kernel, dilation, x, w)
    mode = arguments.padding_mode(knob["padding_mode"])
    inside, around = split(pairs, mode)
    spec = ConvSpec(
        n, channels, out, enlarged(spatial, around), kernel, strides, inside, (1,) * ndim, dilation, groups,
        str(dtype), str(dtype), arguments.result_dtype(knob["preferred_element_type"], dtype),
        arguments.precision(knob["precision"]), layout.channels_first,
    )  # fmt: skip
    algorithm = arguments.algorithm(knob["algorithm"], role, spec)
    return Problem(spec, layout, algorithm, batched, mode, around)


def no_padding(ndim: int) -> Pairs:
    """None, on every side."""
    return ((0, 0),) * ndim


def split(pairs: Pairs, mode: PaddingMode) -> tuple[Pairs, Pairs]:
    """The padding that a spec holds, zeros or a negative one, and what a mode puts around x before it."""
    if mode == "zeros":
        return pairs, no_padding(len(pairs))
    around = tuple((max(lo, 0), max(hi, 0)) for lo, hi in pairs)
    inside = tuple((min(lo, 0), min(hi, 0)) for lo, hi in pairs)
    return inside, around


def enlarged(spatial: Ints, pairs: Pairs) -> Ints:
    """The sizes with (lo, hi) around them."""
    return tuple(h + lo + hi for h, (lo, hi) in zip(spatial, pairs, strict=True))
