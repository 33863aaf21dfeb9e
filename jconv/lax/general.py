"""The convolutions of lax: its arguments, jconv's arithmetic."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import conv_dimension_numbers
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike, DTypeLike

from jconv.algorithms import windows
from jconv.algorithms.derived import channels_as_batch
from jconv.api import arguments
from jconv.api.arguments import plain_int
from jconv.api.problem import Knobs, given, hashable, plain
from jconv.calculus.primitives import Found, Named
from jconv.calculus.primitives import convolve as bilinear
from jconv.mesh import explicit
from jconv.runtime.private import lax_conv
from jconv.spec import ConvSpec, extent
from jconv.spec import layout as layouts
from jconv.spec.layout import Layout

Pads = str | Sequence[tuple[int, int]]


class LaxProblem(NamedTuple):
    """A call of `conv_general_dilated`, understood."""

    spec: ConvSpec
    layout: Layout
    batch_groups: int


def conv_general_dilated(
    lhs: ArrayLike, rhs: ArrayLike, window_strides: Sequence[int], padding: Pads,
    lhs_dilation: Sequence[int] | None = None, rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None, feature_group_count: int = 1, batch_group_count: int = 1,
    precision: Any = None, preferred_element_type: DTypeLike | None = None, out_sharding: Any = None,
) -> jax.Array:  # fmt: skip
    """`jax.lax.conv_general_dilated`, with its signature, results and errors, run by jconv.

    Args:
      lhs, rhs: input and kernel, rank n + 2.
      window_strides: n ints.
      padding: "SAME", "SAME_LOWER", "VALID" or n (low, high) pairs; negative ones crop.
      lhs_dilation, rhs_dilation: None or n ints; an lhs_dilation above 1 is a transposed convolution.
      dimension_numbers: None (NC… / OI… / NC…), three strings or a `ConvDimensionNumbers`.
      feature_group_count, batch_group_count: at most one of them above 1.
      precision: as in lax; presets for dot products say nothing about convolutions, there and here.
      preferred_element_type: dtype to accumulate in and to return.
      out_sharding: as in lax, for explicit sharding.

    Returns, Raises:
      What lax does; values to rounding.

    >>> import jax.numpy as jnp, jconv
    >>> x, w = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 1, 4))
    >>> jconv.conv_general_dilated(x, w, (1, 1), "SAME", feature_group_count=4,
    ...                            dimension_numbers=("NHWC", "HWIO", "NHWC")).shape
    (1, 8, 8, 4)
    """
    return convolve(
        lhs, rhs, "auto", out_sharding,
        window_strides=window_strides, padding=padding, lhs_dilation=lhs_dilation, rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers, feature_group_count=feature_group_count,
        batch_group_count=batch_group_count, precision=precision,
        preferred_element_type=preferred_element_type)  # fmt: skip


def convolve(
    lhs: ArrayLike, rhs: ArrayLike, algorithm: Named | Found, out_sharding: Any, **knobs: Any
) -> jax.Array:
    """`conv_general_dilated` by the algorithm named, or by the one that a function finds for the spec."""
    problem = _understand(_aval("lhs", lhs), _aval("rhs", rhs), hashable(knobs))
    if explicit.is_explicit(jax.typeof(lhs), jax.typeof(rhs)):
        sharding = _typed_sharding(problem, jax.typeof(lhs), jax.typeof(rhs), out_sharding)
        return explicit.automatically(functools.partial(_apply, problem, algorithm), sharding, lhs, rhs)
    y = _apply(problem, algorithm, lhs, rhs)
    return y if out_sharding is None else jax.sharding.reshard(y, out_sharding)


def _typed_sharding(problem: LaxProblem, lhs: Any, rhs: Any, asked: Any) -> NamedSharding:
    """Where shardings are types: the one asked for, or the one that follows, in lax's order of axes."""
    if isinstance(asked, NamedSharding):
        return asked
    mesh = explicit.mesh_of(lhs, rhs)
    if asked is not None:
        return NamedSharding(mesh, asked)
    x, w = lhs.sharding.spec, rhs.sharding.spec
    x, w = [x[axis] for axis in problem.layout.x], [w[axis] for axis in problem.layout.w]
    if problem.batch_groups > 1 and (x[0] or x[-1]):
        raise ValueError("with `batch_group_count` a sharded batch or channel axis needs `out_sharding`")
    y = explicit.result_spec("forward", (x, w), problem.spec, dict(mesh.shape))
    return NamedSharding(mesh, PartitionSpec(*(y[axis] for axis in problem.layout.y)))


def conv(
    lhs: ArrayLike, rhs: ArrayLike, window_strides: Sequence[int], padding: Pads, precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:  # fmt: skip
    """`jax.lax.conv`: `conv_general_dilated` without dilation, groups or other layouts."""
    return conv_general_dilated(
        lhs, rhs, window_strides, padding, precision=precision, preferred_element_type=preferred_element_type
    )


def conv_with_general_padding(
    lhs: ArrayLike, rhs: ArrayLike, window_strides: Sequence[int], padding: Pads,
    lhs_dilation: Sequence[int] | None, rhs_dilation: Sequence[int] | None, precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:  # fmt: skip
    """`jax.lax.conv_with_general_padding`: `conv_general_dilated` without groups or other layouts."""
    return conv_general_dilated(
        lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation,
        precision=precision, preferred_element_type=preferred_element_type,
    )  # fmt: skip


def conv_transpose(
    lhs: ArrayLike, rhs: ArrayLike, strides: Sequence[int], padding: Pads,
    rhs_dilation: Sequence[int] | None = None, dimension_numbers: Any = None, transpose_kernel: bool = False,
    precision: Any = None, preferred_element_type: DTypeLike | None = None,
    use_consistent_padding: bool = False,
) -> jax.Array:  # fmt: skip
    """`jax.lax.conv_transpose`, with its signature, results and errors, run by jconv.

    A `conv_general_dilated` with a dilated input, whose padding follows from that of the convolution it
    transposes.  For PyTorch's meaning see `jconv.conv_transpose2d`.

    >>> import jax.numpy as jnp, jconv
    >>> x, w = jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3, 5))
    >>> jconv.lax.conv_transpose(x, w, (2, 2), "SAME").shape
    (1, 8, 8, 5)
    """
    lhs, rhs = _array("lhs", lhs), _array("rhs", rhs)
    if dimension_numbers is None:
        letters = "HWD"[: max(lhs.ndim - 2, 0)]
        dimension_numbers = f"N{letters}C", f"{letters}IO", f"N{letters}C"
    numbers = conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    out, into, *space = numbers.rhs_spec
    strides, padding = plain("strides", strides), plain("padding", padding)
    dilation = (1,) * len(space) if rhs_dilation is None else plain("rhs_dilation", rhs_dilation)
    _one_each("strides", strides, len(space))
    _one_each("rhs_dilation", dilation, len(space))
    if use_consistent_padding or padding in ("SAME", "VALID"):
        each = [padding] * len(space) if isinstance(padding, str) else padding
        windows = (extent(rhs.shape[axis], d) for axis, d in zip(space, dilation, strict=True))
        padding = tuple(map(_padding_of_transposed, windows, strides, each))
    if transpose_kernel:
        rhs = lax.rev(rhs, space).swapaxes(out, into)
    return conv_general_dilated(
        lhs, rhs, (1,) * len(space), padding, strides, dilation, numbers,
        precision=precision, preferred_element_type=preferred_element_type,
    )  # fmt: skip


def _padding_of_transposed(window: int, stride: int, padding: Any) -> tuple[int, int]:
    """lax's padding of the dilated input, from the padding of the convolution it transposes."""
    if padding == "VALID":
        return window - 1, stride - 1 + max(window - stride, 0)
    if padding == "SAME":
        total = window + stride - 2
        lo = window - 1 if stride > window - 1 else -(-total // 2)
        return lo, total - lo
    if isinstance(padding, str):
        raise ValueError(f"`padding`={padding!r} is not known; choose 'SAME', 'VALID' or (low, high) pairs")
    lo, hi = padding
    return window - 1 - lo, window - 1 - hi


def conv_general_dilated_patches(
    lhs: ArrayLike, filter_shape: Sequence[int], window_strides: Sequence[int], padding: Pads,
    lhs_dilation: Sequence[int] | None = None, rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None, precision: Any = None, preferred_element_type: DTypeLike | None = None,
) -> jax.Array:  # fmt: skip
    """`jax.lax.conv_general_dilated_patches`, made of slices instead of a convolution with an identity.

    Same arguments, shape, dtype and order of channels (c, then the taps); the values are copied bit
    for bit, so a NaN stays in its own channel of the patch and integers of any size are exact.

    >>> import jax.numpy as jnp, jconv
    >>> x = jnp.arange(9.0).reshape(1, 1, 3, 3)
    >>> jconv.conv_general_dilated_patches(x, (2, 2), (1, 1), "VALID")[0, :, 0, 0]
    Array([0., 1., 3., 4.], dtype=float32)
    """
    lhs = _array("lhs", lhs)
    knobs = hashable(dict(
        filter_shape=filter_shape, window_strides=window_strides, padding=padding, lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation, dimension_numbers=dimension_numbers, precision=precision,
        preferred_element_type=preferred_element_type))  # fmt: skip
    return _apply_patches(_understand_patches(_aval("lhs", lhs), knobs), lhs)


def conv_general_dilated_local(
    lhs: ArrayLike, rhs: ArrayLike, window_strides: Sequence[int], padding: Pads, filter_shape: Sequence[int],
    lhs_dilation: Sequence[int] | None = None, rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None, precision: Any = None,
) -> jax.Array:  # fmt: skip
    """`jax.lax.conv_general_dilated_local`: a kernel of its own at every output position.

    Same arguments, shapes, dtypes and order of the fused channels; the patches are slices instead of a
    convolution with an identity, so a NaN stays where it is seen.

    >>> import jax.numpy as jnp, jconv
    >>> x, w = jnp.ones((1, 1, 4)), jnp.arange(6.0).reshape(1, 2, 3)
    >>> jconv.lax.conv_general_dilated_local(x, w, (1,), "VALID", (2,))
    Array([[[3., 5., 7.]]], dtype=float32)
    """
    lhs, rhs = _array("lhs", lhs), _array("rhs", rhs)
    shape = plain("filter_shape", filter_shape)
    patches = conv_general_dilated_patches(
        lhs, shape, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers
    )
    numbers = conv_dimension_numbers(lhs.shape, (1, 1, *shape), dimension_numbers)
    batch, channels, *seen = numbers.out_spec
    _, into, *kept = numbers.rhs_spec
    where = sorted(zip(seen, kept, strict=True))  # the positions, in the order of the result's axes
    axes = (([channels], [into]), ([p for p, _ in where], [r for _, r in where]))
    y = lax.dot_general(patches, rhs, axes, precision=precision)  # (*p, n, o)
    return jnp.moveaxis(y, (-2, -1), (batch, channels))


def _array(name: str, value: Any) -> jax.Array:
    """Whatever JAX makes an array of."""
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):  # says what it holds, but not which it is
        return arguments.array(name, value)


def _aval(name: str, value: Any) -> jax.ShapeDtypeStruct:
    if isinstance(value, jax.ShapeDtypeStruct):  # has a type, but is no array
        arguments.array(name, value)
    try:
        aval = jax.typeof(value)
    except (TypeError, ValueError):
        aval = jax.typeof(arguments.array(name, value))
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)


@functools.lru_cache(maxsize=4096)
def _understand(lhs: jax.ShapeDtypeStruct, rhs: jax.ShapeDtypeStruct, knobs: Knobs) -> LaxProblem:
    call = given(knobs)
    for name, operand in (("lhs", lhs), ("rhs", rhs)):
        if operand.ndim < 2:  # lax looks for axes that are not there
            raise ValueError(f"`{name}` of shape {operand.shape} must have at least 2 axes")
    for name in ("lhs_dilation", "rhs_dilation") if lhs.ndim == rhs.ndim else ():
        if call[name] is not None:  # one of another length lax leaves to the compiler, whose error says less
            _one_each(name, call[name], rhs.ndim - 2)
    strides, padding, batch_groups = call["window_strides"], call["padding"], int(call["batch_group_count"])
    if isinstance(strides, tuple) and any(isinstance(s, (int, np.integer)) and s < 1 for s in strides):
        raise ValueError(f"`window_strides`={strides!r} expects window to have positive stride")
    # lax finds every other error, and the dtype of the result
    checked = call | {"padding": _known_padding(padding)}
    result = jax.eval_shape(lambda x, w: lax_conv(x, w, **checked), lhs, rhs)
    numbers = conv_dimension_numbers(lhs.shape, rhs.shape, call["dimension_numbers"])
    layout = layouts.from_specs(*numbers)
    n, *spatial, channels = (lhs.shape[axis] for axis in layout.x)
    *kernel, _, out = (rhs.shape[axis] for axis in layout.w)
    strides, lhs_dilation, rhs_dilation = (
        tuple(map(plain_int, (1,) * len(kernel) if call[name] is None else call[name]))
        for name in ("window_strides", "lhs_dilation", "rhs_dilation")
    )
    if isinstance(padding, str):
        windows = list(map(extent, kernel, rhs_dilation))
        padding = lax.padtype_to_pads(spatial, windows, strides, padding)
    spec = ConvSpec(
        n // batch_groups, channels * batch_groups, out, tuple(spatial), tuple(kernel),
        strides, tuple((plain_int(lo), plain_int(hi)) for lo, hi in padding), lhs_dilation, rhs_dilation,
        int(call["feature_group_count"]) * batch_groups, str(lhs.dtype), str(rhs.dtype), str(result.dtype),
        arguments.precision(call["precision"], presets=True), layout.channels_first,
        kernel_swapped=(layout.w[-2] > layout.w[-1]) != layout.channels_first,
    )  # fmt: skip
    arguments.possible(spec.x_shape, spec.y_shape)
    return LaxProblem(spec, layout, batch_groups)


def _known_padding(value: Any) -> Any:
    """0 in the place of what only a run will tell: lax makes such a padding of "SAME", but takes none."""
    if isinstance(value, tuple):
        return tuple(map(_known_padding, value))
    return 0 if jax.export.is_symbolic_dim(value) else value


def _one_each(name: str, value: Any, ndim: int) -> None:
    forms = f"{ndim} ints, one per spatial dimension"
    if not isinstance(value, tuple):
        raise TypeError(f"`{name}`={value!r} must be {forms}")
    if len(value) != ndim:
        raise ValueError(f"`{name}`={value!r} must be {forms}")


@functools.lru_cache(maxsize=4096)
def _understand_patches(lhs: jax.ShapeDtypeStruct, knobs: Knobs) -> LaxProblem:
    """The spec of the one-channel convolutions of which every tap is a channel of the result."""
    call = given(knobs)
    kernel = call.pop("filter_shape")
    numbers = conv_dimension_numbers(lhs.shape, (1, 1, *kernel), call["dimension_numbers"])
    channels = lhs.shape[numbers.lhs_spec[1]]
    sizes = dict(zip(numbers.rhs_spec, (channels * math.prod(kernel), 1, *kernel), strict=True))
    rhs = jax.ShapeDtypeStruct(tuple(sizes[axis] for axis in range(lhs.ndim)), lhs.dtype)
    rest = {"dimension_numbers": numbers, "feature_group_count": channels, "batch_group_count": 1}
    return _understand(lhs, rhs, hashable(call | rest))


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _apply_patches(problem: LaxProblem, lhs: jax.Array) -> jax.Array:
    spec, n = problem.spec, problem.spec.ndim
    if spec.is_empty:
        return jnp.zeros(spec.y_shape, spec.y_dtype).transpose(problem.layout.y)
    columns = windows.patches(lhs.transpose(problem.layout.x), spec)
    columns = jnp.moveaxis(columns, -1, n + 1)  # (n, *p, c, *r)
    return columns.reshape(spec.y_shape).astype(spec.y_dtype).transpose(problem.layout.y)


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _apply(problem: LaxProblem, algorithm: Named | Found, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    layout, groups = problem.layout, problem.batch_groups
    x, w = lhs.transpose(layout.x), rhs.transpose(layout.w)
    if groups > 1:  # (b·n, *h, c) → (n, *h, b·c): batch groups are feature groups of a regrouped input
        x = jnp.moveaxis(x.reshape(groups, x.shape[0] // groups, *x.shape[1:]), 0, -2)
        x = x.reshape(*x.shape[:-2], groups * x.shape[-1])
    return convolve_as_role(x, w, problem.spec, algorithm, layout.swapped).transpose(layout.y)


def convolve_as_role(
    x: jax.Array, w: jax.Array, spec: ConvSpec, algorithm: Named | Found = "auto", swapped: bool = False
) -> jax.Array:
    """The forward convolution `spec` of canonical arrays; one with more taps than outputs as what it is, the
    gradient of a kernel, if the user's batch axis comes after the channels.

    That is how lax writes kernel gradients and nobody else: more taps than outputs alone are no sign, a
    patch embedding has them too.
    """
    if spec.is_empty or not swapped or not _has_more_taps(spec):
        return bilinear("forward", x, w, spec, algorithm)
    n = spec.ndim
    x, g = channels_as_batch(x, spec), w.transpose(n, *range(n), n + 1)
    kernel = bilinear("grad_kernel", x, g, spec.as_grad_kernel().replace(kernel_swapped=False), algorithm)
    return kernel.transpose(n, *range(n), n + 1)


def _has_more_taps(spec: ConvSpec) -> bool:
    """Whether it has more taps than outputs; where a size is not known yet, only a gradient has taps that are
    not."""
    taps, outputs = spec.taps, math.prod(spec.out_spatial)
    known = isinstance(taps, int) and isinstance(outputs, int)
    return taps > outputs if known else isinstance(outputs, int)
