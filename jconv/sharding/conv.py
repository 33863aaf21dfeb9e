"""Convolutions of the shards of an image, for use inside `jax.shard_map`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Never, Unpack

import jax
from jax import lax
from jax.typing import ArrayLike

from jconv.api import arguments
from jconv.api.conv_transpose import understand_transposed
from jconv.api.options import ConvOptions, TransposedOptions, complete, spelled_out
from jconv.api.problem import Problem, hashable, understand
from jconv.calculus.primitives import convolve
from jconv.mesh import halo
from jconv.mesh.halo import AxisName
from jconv.spec import ConvSpec, Ints, Role
from jconv.spec.checks import shown

SpatialAxes = Sequence[AxisName | None]


@spelled_out(ConvOptions)
def conv(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *more: Never,
    spatial_axes: SpatialAxes,
    **options: Unpack[ConvOptions],
) -> jax.Array:
    """Convolution of an image cut over mesh axes in space, inside `jax.shard_map`.

    Args:
      x: this device's piece of the input, in the layout of `conv1d`, `conv2d` or `conv3d`.
      w: kernel, whole.
      b: bias or None, whole.
      spatial_axes: per spatial dimension the mesh axis (or a tuple of them) it is cut over, or None.
      stride, padding, dilation, groups, layout, algorithm, precision, preferred_element_type: as in
        `conv2d`, of the whole image: `padding` is at the image's edges, not at the shards'.

    Returns:
      This device's piece of the output.  Put together, the pieces are `conv2d` of the whole image.

    Raises:
      ValueError, TypeError: an argument is wrong, or the geometry cannot be cut: input and output
        sizes have to divide by the number of shards.

    >>> import jax, jax.numpy as jnp, jconv.sharding
    >>> from jax.sharding import PartitionSpec as P
    >>> mesh, cut = jax.sharding.Mesh(jax.devices()[:1], ("rows",)), P(None, None, "rows")
    >>> f = lambda x, w: jconv.sharding.conv(x, w, spatial_axes=("rows", None), padding=1)
    >>> f = jax.shard_map(f, mesh=mesh, in_specs=(cut, P()), out_specs=cut)
    >>> f(jnp.ones((1, 3, 16, 16)), jnp.ones((8, 3, 3, 3))).shape
    (1, 8, 16, 16)

    Source: `jconv.halo` derives the exchange.
    """
    call = complete("sharding.conv", ConvOptions, options, more)
    bias = _without_a_mode(call).pop("bias")
    x, w = arguments.array("x", x), arguments.array("w", w)
    arguments.same_dtype(x=x, w=w)
    names, shards = _mesh_axes(spatial_axes)
    layout = arguments.layout(call["layout"], len(names))
    shape = _whole_shape(x.shape, layout.x, shards)
    problem = understand(len(names), "forward", shape, w.shape, x.dtype, hashable(call))
    b = arguments.bias(b, bias, problem.spec.out_channels, problem.spec.y_dtype)
    return _apply(_cut("forward", problem, problem.spec, names, shards), x, w, b)


@spelled_out(TransposedOptions)
def conv_transpose(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *more: Never,
    spatial_axes: SpatialAxes,
    **options: Unpack[TransposedOptions],
) -> jax.Array:
    """Transposed convolution of an image cut over mesh axes in space, inside `jax.shard_map`.

    Args:
      x: this device's piece of the input, in the layout of `conv_transpose2d` and its siblings.
      w: kernel, whole.
      b: bias or None, whole.
      spatial_axes: per spatial dimension the mesh axis (or a tuple of them) it is cut over, or None.
      stride, padding, output_padding, groups, dilation, layout, algorithm, precision,
        preferred_element_type: as in `conv_transpose2d`, of the whole image.

    Returns:
      This device's piece of the output.

    Raises:
      ValueError, TypeError: as `conv`.

    >>> import jax, jax.numpy as jnp, jconv.sharding
    >>> from jax.sharding import PartitionSpec as P
    >>> mesh, cut = jax.sharding.Mesh(jax.devices()[:1], ("rows",)), P(None, None, "rows")
    >>> f = lambda x, w: jconv.sharding.conv_transpose(x, w, spatial_axes=("rows",), stride=2)
    >>> f = jax.shard_map(f, mesh=mesh, in_specs=(cut, P()), out_specs=cut)
    >>> f(jnp.ones((1, 3, 16)), jnp.ones((3, 8, 2))).shape
    (1, 8, 32)
    """
    call = complete("sharding.conv_transpose", TransposedOptions, options, more)
    bias = _without_a_mode(call).pop("bias")
    x, w = arguments.array("x", x), arguments.array("w", w)
    arguments.same_dtype(x=x, w=w)
    names, shards = _mesh_axes(spatial_axes)
    layout = arguments.layout(call["layout"], len(names))
    shape = _whole_shape(x.shape, layout.y_in, shards)
    problem = understand_transposed(len(names), shape, w.shape, x.dtype, hashable(call))
    b = arguments.bias(b, bias, problem.spec.in_channels, problem.spec.x_dtype)
    return _apply(_cut("grad_input", problem, problem.spec.as_grad_input(), names, shards), x, w, b)


def _without_a_mode(call: dict[str, Any]) -> dict[str, Any]:
    """The call as it is; what stands at an image's far edge is not in reach of a neighbour."""
    if call["padding_mode"] != "zeros":
        raise ValueError(
            f"`padding_mode`={shown(call['padding_mode'])}: an image that is cut is padded with 'zeros'; pad "
            "it before it is cut and pass padding=0"
        )
    return call


@dataclasses.dataclass(frozen=True)
class Cut:
    """A problem cut in space: the whole, what moves, and what one shard then computes."""

    role: Role
    problem: Problem
    moved: ConvSpec  # the forward convolution whose input is exchanged
    names: tuple[AxisName | None, ...]
    local: ConvSpec


def _cut(role: Role, problem: Problem, moved: ConvSpec, names: Any, shards: Ints) -> Cut:
    for axis, (name, n) in enumerate(zip(names, shards, strict=True)):
        if n > 1 and (reason := halo.refuses(moved, axis, n)):
            raise ValueError(
                f"`spatial_axes`: spatial dimension {axis} cannot be cut into {n} over {name!r}: {reason}; "
                "pad the image, choose another `padding` or leave this dimension whole with None"
            )
    local = halo.local_spec(moved, shards)
    local = local.as_grad_input() if role == "grad_input" else local
    arguments.algorithm(problem.algorithm, role, local)
    return Cut(role, problem, moved, names, local)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _apply(cut: Cut, x: jax.Array, w: jax.Array, b: jax.Array | None) -> jax.Array:
    problem = cut.problem
    forward = cut.role == "forward"
    x = problem.canonical_x(x) if forward else problem.canonical_y(x)
    x = halo.exchange(x, cut.moved, cut.names)
    y = convolve(cut.role, x, w.transpose(problem.layout.w), cut.local, problem.algorithm)
    y = y if b is None else y + b
    return problem.users_y(y) if forward else problem.users_x(y)


def _mesh_axes(spatial_axes: Any) -> tuple[tuple[AxisName | None, ...], Ints]:
    """The mesh axes per spatial dimension and how many shards they make of it."""
    if isinstance(spatial_axes, str) or not isinstance(spatial_axes, Sequence):
        raise TypeError(
            f"`spatial_axes` must have one entry per spatial dimension, got {spatial_axes!r}; "
            "write ('rows', None) to cut the height of an image over the mesh axis 'rows'"
        )
    names = tuple(tuple(name) if isinstance(name, list) else name for name in spatial_axes)
    try:
        return names, tuple(1 if name is None else lax.axis_size(name) for name in names)
    except NameError as error:
        raise ValueError(
            f"`spatial_axes`={names!r}: {error}; call this inside jax.shard_map over a mesh with these axes"
        ) from None


def _whole_shape(shape: Ints, axes: Ints, shards: Ints) -> Ints:
    """Shape of the image that a shard of `shape` is a piece of; `axes` are its (n, *space, channels)."""
    if len(shape) not in (len(shards) + 1, len(shards) + 2):
        return shape  # the number of axes is wrong, which is said where all arguments are checked
    whole = list(shape)
    batched = len(shape) == len(shards) + 2
    for axis, n in zip(axes[1:-1], shards, strict=True):
        whole[axis if batched else axis - 1] *= n
    return tuple(whole)
