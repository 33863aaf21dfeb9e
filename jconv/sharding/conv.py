"""Convolutions of the shards of an image, for use inside `jax.shard_map`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Never, Unpack

import jax
from jax import lax
from jax.typing import ArrayLike

from jconv.api import arguments
from jconv.api.options import ConvOptions, TransposedOptions, spelled_out
from jconv.api.problem import Problem, parsed
from jconv.calculus.primitives import convolve
from jconv.mesh import halo, partition
from jconv.spec import Ints, Role
from jconv.spec.checks import shown
from jconv.spec.roles import OPERANDS, RESULT

AxisName = str | tuple[str, ...]
Names = tuple[AxisName | None, ...]
SpatialAxes = Sequence[AxisName | None]


@spelled_out(ConvOptions)
def conv(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, *more: Never, spatial_axes: SpatialAxes,
    **options: Unpack[ConvOptions],
) -> jax.Array:  # fmt: skip
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

    Source: `jconv.mesh.halo` derives the exchange.
    """
    return _convolved("sharding.conv", "forward", spatial_axes, x, w, b, more, options)


@spelled_out(TransposedOptions)
def conv_transpose(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, *more: Never, spatial_axes: SpatialAxes,
    **options: Unpack[TransposedOptions],
) -> jax.Array:  # fmt: skip
    """Transposed convolution of an image cut over mesh axes in space, inside `jax.shard_map`.

    The kernel and the options are as in `conv_transpose2d` and its siblings, `padding`, `output_padding` and
    `output_size` of the whole image; everything else is as in `conv`.

    >>> import jax, jax.numpy as jnp, jconv.sharding
    >>> from jax.sharding import PartitionSpec as P
    >>> mesh, cut = jax.sharding.Mesh(jax.devices()[:1], ("rows",)), P(None, None, "rows")
    >>> f = lambda x, w: jconv.sharding.conv_transpose(x, w, spatial_axes=("rows",), stride=2)
    >>> f = jax.shard_map(f, mesh=mesh, in_specs=(cut, P()), out_specs=cut)
    >>> f(jnp.ones((1, 3, 16)), jnp.ones((3, 8, 2))).shape
    (1, 8, 32)
    """
    return _convolved("sharding.conv_transpose", "grad_input", spatial_axes, x, w, b, more, options)


def _convolved(
    door: str, role: Role, spatial_axes: Any, x: Any, w: Any, b: Any, more: tuple[Any, ...],
    options: Mapping[str, Any],
) -> jax.Array:  # fmt: skip
    mode = options.get("padding_mode", "zeros")
    if isinstance(mode, str) and mode != "zeros":  # an image's far edge is not in a neighbour's reach
        raise ValueError(
            f"`padding_mode`={shown(mode)}: an image that is cut is padded with 'zeros'; pad it before it is "
            "cut and pass padding=0"
        )
    names, shards = _mesh_axes(spatial_axes)
    w = arguments.array("w", w)
    if w.ndim != len(names) + 2:
        raise ValueError(
            f"`spatial_axes`={shown(names)} must have one entry per spatial dimension, and `w` {w.shape} has "
            f"{max(w.ndim - 2, 0)} of those"
        )
    problem, x, w, b = parsed(door, role, len(names), x, w, b, more, options, shards)
    moved = halo.moved(problem.spec, role)
    for axis, (name, n) in enumerate(zip(names, shards, strict=True)):
        if n > 1 and (reason := halo.refuses(moved, axis, n)):
            raise ValueError(
                f"`spatial_axes`: spatial dimension {axis} cannot be cut into {n} over {name!r}: {reason}; "
                "pad the image, choose another `padding` or leave this dimension whole with None"
            )
    arguments.algorithm(problem.algorithm, role, halo.local_spec(problem.spec, shards, role))
    return _compute(problem, names, x, w, b)


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _compute(problem: Problem, names: Names, x: jax.Array, w: jax.Array, b: jax.Array | None) -> jax.Array:
    """What `api.problem.compute` does, of a shard, its halo fetched before."""
    role = problem.role
    first, second = map(problem.canonical, OPERANDS[role], (x, w))
    cuts = {f"h{d}": partition.mesh_axes(name) for d, name in enumerate(names) if name}
    how = functools.partial(convolve, algorithm=problem.algorithm)
    order = jax.sharding.get_abstract_mesh().axis_names
    y = partition.shard_computes(role, first, second, problem.spec, cuts, {}, how, order)
    return problem.users(RESULT[role], y, b)


def _mesh_axes(spatial_axes: Any) -> tuple[Names, Ints]:
    """The mesh axes per spatial dimension and how many shards they make of it."""
    if isinstance(spatial_axes, (str, bytes)) or not (isinstance(spatial_axes, Sequence) and spatial_axes):
        raise TypeError(
            f"`spatial_axes` must have one entry per spatial dimension, got {shown(spatial_axes)}; "
            "write ('rows', None) to cut the height of an image over the mesh axis 'rows'"
        )
    names = tuple(tuple(name) if isinstance(name, list) else name for name in spatial_axes)
    given = f"`spatial_axes`={shown(names)}"
    every = [axis for name in names if name is not None for axis in partition.mesh_axes(name)]
    if not all(isinstance(axis, str) for axis in every):
        raise TypeError(f"{given} must hold names of mesh axes, tuples of them, or None for what is whole")
    if len(set(every)) < len(every):
        raise ValueError(f"{given} names a mesh axis twice; each cuts one dimension, once")
    try:
        return names, tuple(1 if name is None else lax.axis_size(name) for name in names)
    except NameError as error:
        raise ValueError(
            f"{given}: {error}; call this inside jax.shard_map over a mesh with these axes"
        ) from None
