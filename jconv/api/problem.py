"""A user's call, parsed once: arguments and shapes in, a `Problem` of plain integers out; and computed.

Every door is two steps: `parsed` (`understand`, where there are shapes alone) and `compute`.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jconv.algorithms.record import Algorithm
from jconv.api import arguments, modes, transposed
from jconv.api.options import ConvOptions, PaddingMode, TransposedOptions, complete
from jconv.api.shapes import Shapes
from jconv.calculus.primitives import convolve
from jconv.spec import ConvSpec, Ints, Role, extent
from jconv.spec.checks import Pairs, shown
from jconv.spec.layout import Layout
from jconv.spec.roles import OPERANDS, RESULT

Knobs = tuple[tuple[str, Any], ...]
Parsed = tuple["Problem", jax.Array, jax.Array, jax.Array | None]

MOST_IN_A_KEY = 256  # entries of an array: no option has as many


@dataclasses.dataclass(frozen=True)
class Problem:
    """A role of a spec, how the arrays lie, and what has to be padded beforehand by a mode of its own."""

    role: Role
    spec: ConvSpec
    layout: Layout
    algorithm: str | Algorithm
    batched: bool
    mode: PaddingMode = "zeros"
    mode_padding: Pairs = ()

    def canonical(self, name: str, array: jax.Array) -> jax.Array:
        """x, w or y channels last, with a batch axis; x padded where the mode is not zeros."""
        array = array if name == "w" or self.batched else array[None]
        array = array.transpose(self.layout.into(name))
        padded = name == "x" and self.mode != "zeros"
        return modes.padded(array, self.mode_padding, self.mode) if padded else array

    def users(self, name: str, array: jax.Array, b: jax.Array | None = None) -> jax.Array:
        """A canonical x (less what the mode put around it), w or y as the user lays it out, plus the bias."""
        if name == "x" and self.mode != "zeros":
            around = zip(self.spec.spatial, self.mode_padding, strict=True)
            spatial = [size - lo - hi for size, (lo, hi) in around]
            array = modes.folded_back(array, spatial, self.mode_padding, self.mode)
        array = array if b is None else array + jnp.expand_dims(b, range(array.ndim - 1))
        array = array.transpose(self.layout.back(name))
        return array if name == "w" or self.batched else array[0]


@functools.partial(jax.jit, static_argnums=0, inline=True)
def compute(problem: Problem, a: jax.Array, b: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """The role of the problem, of its two operands and to its result as the user lays them out."""
    role = problem.role
    first, second = map(problem.canonical, OPERANDS[role], (a, b))
    return problem.users(RESULT[role], convolve(role, first, second, problem.spec, problem.algorithm), bias)


def parsed(
    door: str, role: Role, ndim: int | None, x: Any, w: Any, b: Any, more: tuple[Any, ...],
    options: Mapping[str, Any], shards: Ints | None = None,
) -> Parsed:  # fmt: skip
    """What `compute` takes, of a call of a convolution or, its role being grad_input, of a transposed one.

    `ndim` is None where the kernel says it; x is one of `shards` of an image.
    """
    call = complete(door, ConvOptions if role == "forward" else TransposedOptions, options, more)
    second = call.pop("bias")
    x, w = arguments.array("x", x), arguments.array("w", w)
    arguments.same_dtype(x=x, w=w)
    ndim = w.ndim - 2 if ndim is None else ndim
    problem = understand(ndim, role, x.shape, w.shape, x.dtype, hashable(call), shards)
    return problem, x, w, arguments.bias(b, second, problem.spec, role)


@functools.lru_cache(maxsize=4096)
def understand(
    ndim: int, role: Role, x_shape: Ints, w_shape: Ints, dtype: Any, knobs: Knobs, shards: Ints | None = None
) -> Problem:
    """Check every argument of a convolution of x with w and put them into the canonical form.

    A transposed convolution has an `output_padding`: it is grad_input of the matching one, whose output is x.
    """
    knob = dict(knobs)
    matching = "output_padding" in knob
    x = "input_shape" if role == "grad_input" and not matching else "x"
    w = "kernel_shape" if role == "grad_kernel" else "w"
    if ndim < 1:
        raise ValueError(f"`{w}` must have two channel and at least one spatial axis, got shape {w_shape}")
    layout = arguments.layout(knob["layout"], ndim)
    shapes = Shapes(layout, x_shape, w_shape, x, w, matching)
    shapes.check()
    groups = shapes.groups(knob["groups"])
    strides, dilation = (arguments.integers(name, knob[name], ndim) for name in ("stride", "dilation"))
    n, *spatial, channels = shapes.image(layout)
    *kernel, c, out = shapes.kernel(layout)
    spatial = [h * cut for h, cut in zip(spatial, shards or (1,) * ndim, strict=True)]
    windows = tuple(map(extent, kernel, dilation))
    given, result = str(dtype), arguments.result_dtype(knob.get("preferred_element_type"), dtype)
    if matching:
        pairs, added, spatial = transposed.sizes(knob, layout, spatial, windows, strides, dilation)
        arrays, dtypes = (n, c * groups, channels), (result, given, given)
    else:
        pairs, added = arguments.padding(knob["padding"], spatial, windows, strides), (0,) * ndim
        shapes.check_fit(spatial, windows, pairs)
        arrays, dtypes = (n, channels, out), (given, given, result)
    # what a mode puts around x is not in the spec; a negative padding is
    mode: Any = arguments.one_of("padding_mode", knob["padding_mode"], get_args(PaddingMode))
    around = tuple((0, 0) if mode == "zeros" else (max(lo, 0), max(hi, 0)) for lo, hi in pairs)
    padding = (
        (lo - before, hi - after - more)
        for (lo, hi), (before, after), more in zip(pairs, around, added, strict=True)
    )
    space = tuple(h + before + after for h, (before, after) in zip(spatial, around, strict=True))
    spec = ConvSpec(
        *arrays, space, tuple(kernel), strides, tuple(padding), (1,) * ndim, dilation, groups, *dtypes,
        arguments.precision(knob["precision"]), layout.channels_first,
    )  # fmt: skip
    arguments.possible(spec.x_shape, spec.y_shape)
    algorithm = arguments.algorithm(knob["algorithm"], role, spec)
    return Problem(role, spec, layout, algorithm, shapes.batched, mode, around)


def hashable(knobs: Mapping[str, Any]) -> Knobs:
    """Keyword arguments as a key for a cache: lists and small arrays become tuples.

    A `precision` of None is what JAX's own default is now: lax, too, reads it when it traces.  What a dtype
    means depends on whether 64-bit types are enabled, so that is in the key; and so are the types of all
    values, for 1 == True == 1.0 and only one of them is a stride.
    """
    values = {name: plain(name, value) for name, value in knobs.items()}
    if "precision" in values and values["precision"] is None:
        now = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
        values["precision"] = arguments.precision(now, presets=True)
    values["types"] = _types(tuple(values.values()))
    values["x64"] = jax.config.read("jax_enable_x64")
    return tuple(values.items())


def given(knobs: Knobs) -> dict[str, Any]:
    """The keyword arguments alone, of which `hashable` made a key."""
    return dict(knobs[:-2])


def plain(name: str, value: Any) -> Any:
    """A value that can be in a key: whatever is a sequence, an array or an iterator is a tuple."""
    if value is None or type(value) in (int, str):  # most are, and every eager call comes by here
        return value
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"`{name}` must be known when JAX traces, got {value}; see static_argnames of jax.jit"
        )
    if isinstance(value, (list, tuple, range, Iterator)):
        entries = tuple(plain(name, entry) for entry in value)
        return type(value)(*entries) if hasattr(value, "_fields") else entries  # lax's own named tuples
    if isinstance(value, (np.ndarray, jax.Array)):
        if value.size <= MOST_IN_A_KEY and hasattr(value, "tolist"):  # keys of random numbers have none
            return plain(name, value.tolist())
    elif _is_hashable(value):
        return value
    raise TypeError(f"`{name}` must be made of ints, strings or tuples, got {shown(value)}")


def _is_hashable(value: Any) -> bool:
    """Whether it has a hash: a `Hashable` may refuse all the same, as a record of NumPy's does."""
    try:
        hash(value)
    except Exception:
        return False
    return True


def _types(value: Any) -> Any:
    return tuple(map(_types, value)) if isinstance(value, tuple) else type(value)
