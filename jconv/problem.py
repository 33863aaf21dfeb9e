"""A user's call, understood once: arguments and shapes in, a `Problem` of plain integers out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jconv import arguments
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

    What a dtype means depends on whether 64-bit types are enabled, so that is in the key too; and so
    are the types of all values, for 1 == True == 1.0 and only one of them is a stride.
    """
    plain = {name: _plain(name, value) for name, value in knobs.items()}
    around = {"x64": jax.config.read("jax_enable_x64"), "types": _types(tuple(plain.values()))}
    return tuple((plain | around).items())


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"`{name}` must be known when JAX traces, got {value}; see static_argnames of jax.jit"
        )
    if isinstance(value, (np.ndarray, jax.Array)):
        return _plain(name, value.tolist())
    if isinstance(value, (list, tuple)):
        return tuple(_plain(name, entry) for entry in value)
    if not isinstance(value, Hashable):
        raise TypeError(f"`{name}` must be made of ints, strings or tuples, got {value!r}")
    return value


def _types(value: Any) -> Any:
    return tuple(map(_types, value)) if isinstance(value, tuple) else type(value)


@functools.lru_cache(maxsize=4096)
def understand(ndim: int, role: Role, x_shape: Ints, w_shape: Ints, dtype: Any, knobs: Knobs) -> Problem:
    """Check every argument of a convolution of x with w and put them into the canonical form."""
    given = dict(knobs)
    x, w = "input_shape" if role == "grad_input" else "x", "kernel_shape" if role == "grad_kernel" else "w"
    if ndim < 1:
        raise ValueError(f"`{w}` must have two channel and at least one spatial axis, got shape {w_shape}")
    layout = arguments.layout(given["layout"], ndim)
    arguments.rank(x, x_shape, (ndim + 1, ndim + 2), f"(batch if any, channels, {ndim} spatial)")
    arguments.rank(w, w_shape, (ndim + 2,), f"(in and out channels, {ndim} spatial)")
    batched = len(x_shape) == ndim + 2
    n, *spatial, channels = _take(x_shape if batched else (1, *x_shape), layout.x)
    *kernel, c, out = _take(w_shape, layout.w)
    groups = arguments.groups(given["groups"], channels, out, x_shape, w_shape, x, w)
    arguments.channels(c, channels, groups, x_shape, w_shape, x, w)
    strides = arguments.integers("stride", given["stride"], ndim)
    dilation = arguments.integers("dilation", given["dilation"], ndim)
    pairs = arguments.padding(given["padding"], kernel, strides, dilation)
    arguments.not_empty(spatial, (out, *kernel), w_shape)
    arguments.fits(spatial, pairs, kernel, dilation)
    mode = arguments.padding_mode(given["padding_mode"], pairs, spatial)
    none = ((0, 0),) * ndim
    padded = [h + lo + hi for h, (lo, hi) in zip(spatial, pairs, strict=True)]
    spec = ConvSpec(
        n, channels, out,
        tuple(spatial if mode == "constant" else padded), tuple(kernel), strides,
        pairs if mode == "constant" else none, (1,) * ndim, dilation, groups,
        str(dtype), str(dtype), arguments.result_dtype(given["preferred_element_type"], dtype),
        arguments.precision(given["precision"]), layout.channels_first,
    )  # fmt: skip
    algorithm = arguments.algorithm(given["algorithm"], role, spec)
    return Problem(spec, layout, algorithm, batched, "zeros" if mode == "constant" else mode,
                   none if mode == "constant" else pairs)  # fmt: skip


def _take(shape: Ints, axes: Ints) -> list[int]:
    return [shape[axis] for axis in axes]
