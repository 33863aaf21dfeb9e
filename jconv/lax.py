"""The door in lax's names: drop-ins for `jax.lax`'s convolutions.

lax itself is asked what the result is and what is wrong with the arguments, so shapes, dtypes, weak
types and errors are its own; the arrays then take the way of every jconv convolution.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from jconv import layout as layouts
from jconv.layout import Layout
from jconv.recognise import convolve_as_role
from jconv.spec import ConvSpec, extent


@dataclasses.dataclass(frozen=True)
class LaxProblem:
    """A call of `conv_general_dilated`, understood."""

    spec: ConvSpec
    layout: Layout
    batch_groups: int


def conv_general_dilated(
    lhs: ArrayLike,
    rhs: ArrayLike,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
    out_sharding: Any = None,
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, with its signature, results and errors, run by jconv.

    Args:
      lhs: input, rank n + 2.
      rhs: kernel, rank n + 2.
      window_strides: n ints.
      padding: "SAME", "SAME_LOWER", "VALID" or n (low, high) pairs; negative ones crop.
      lhs_dilation: None or n ints; above 1 it is a transposed convolution.
      rhs_dilation: None or n ints.
      dimension_numbers: None (NC… / OI… / NC…), three strings or a `ConvDimensionNumbers`.
      feature_group_count, batch_group_count: at most one of them above 1.
      precision: as in lax.
      preferred_element_type: dtype to accumulate in and to return.
      out_sharding: as in lax, for explicit sharding.

    Returns:
      What lax returns, to rounding.

    Raises:
      What lax raises.

    >>> import jax.numpy as jnp, jconv
    >>> x, w = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 1, 4))
    >>> jconv.conv_general_dilated(x, w, (1, 1), "SAME", feature_group_count=4,
    ...                            dimension_numbers=("NHWC", "HWIO", "NHWC")).shape
    (1, 8, 8, 4)
    """
    arguments = (window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers,
                 feature_group_count, batch_group_count, precision, preferred_element_type)  # fmt: skip
    key = tuple(map(_hashable, arguments))
    try:
        problem = _understand(_aval(lhs), _aval(rhs), key)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        problem = _understand.__wrapped__(_aval(lhs), _aval(rhs), arguments)
    y = _apply(problem, lhs, rhs)
    return y if out_sharding is None else jax.sharding.reshard(y, out_sharding)


def _hashable(value: Any) -> Any:
    if isinstance(value, lax.ConvDimensionNumbers) or isinstance(value, str):
        return value
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple)) else value


def _aval(value: Any) -> jax.ShapeDtypeStruct:
    aval = jax.typeof(value)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)


@functools.lru_cache(maxsize=4096)
def _understand(lhs: jax.ShapeDtypeStruct, rhs: jax.ShapeDtypeStruct, arguments: Any) -> LaxProblem:
    strides, padding, lhs_dilation, rhs_dilation, numbers, groups, batch_groups, precision, preferred = arguments
    # lax finds every error there is to find, and the dtype of the result
    result = jax.eval_shape(lambda x, w: lax.conv_general_dilated(x, w, *arguments), lhs, rhs)
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, numbers)
    layout = layouts.from_specs(*numbers)
    n, *spatial, channels = (lhs.shape[axis] for axis in layout.x)
    *kernel, _, out = (rhs.shape[axis] for axis in layout.w)
    ones = (1,) * len(kernel)
    lhs_dilation, rhs_dilation = tuple(lhs_dilation or ones), tuple(rhs_dilation or ones)
    if isinstance(padding, str):
        windows = list(map(extent, kernel, rhs_dilation))
        padding = lax.padtype_to_pads(spatial, windows, strides, padding)
    spec = ConvSpec(
        n // batch_groups, channels * batch_groups, out, tuple(spatial), tuple(kernel),
        tuple(strides), tuple((int(lo), int(hi)) for lo, hi in padding), lhs_dilation, rhs_dilation,
        groups * batch_groups, str(lhs.dtype), str(rhs.dtype), str(result.dtype), _precision(precision),
    )  # fmt: skip
    return LaxProblem(spec, layout, batch_groups)


def _precision(precision: Any) -> Any:
    """lax's canonical form of any precision it accepts, read off a dot product's parameters."""
    if precision is None:
        return None
    one = jax.ShapeDtypeStruct((1,), np.float32)
    closed = jax.make_jaxpr(lambda a, b: lax.dot(a, b, precision=precision))(one, one)
    return closed.eqns[0].params["precision"]


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _apply(problem: LaxProblem, lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    spec, layout = problem.spec, problem.layout
    x, w = lhs.transpose(layout.x), rhs.transpose(layout.w)
    if problem.batch_groups > 1:
        x = _batch_groups_to_channels(x, problem.batch_groups)
    return convolve_as_role(x, w, spec).transpose(layout.y)


def _batch_groups_to_channels(x: jax.Array, groups: int) -> jax.Array:
    """(b·n, *h, c) → (n, *h, b·c): batch groups are feature groups of a regrouped input."""
    bn, *spatial, c = x.shape
    x = x.reshape(groups, bn // groups, *spatial, c)
    x = x.transpose(*range(1, x.ndim - 1), 0, x.ndim - 1)
    return x.reshape(bn // groups, *spatial, groups * c)
