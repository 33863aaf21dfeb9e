"""Sharding in types: how the result of a bilinear map is sharded, known while tracing.

The rule follows the letters of `partition.py`.  A letter that operand and result share keeps its
mesh axes.  A letter that is summed over leaves open where the sum goes, and a cut that would need a
second look at the data is not made in silence: both are refused, the array axis named, until
`out_sharding` or a reshard says what is wanted.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from jconv.mesh import halo
from jconv.mesh.partition import ARRAYS, NO_MESH, letters, mesh_axes, spec_of
from jconv.spec import ConvSpec, Role

AXES = {"n": "batch", "g": "channels", "c": "input channels", "o": "output channels", "k": "input channels",
        "h": "spatial dimension ", "r": "kernel dimension "}  # fmt: skip


def mesh_of(*avals: Any) -> Any:
    """The mesh the arrays are typed with, or the context's."""
    meshes = [aval.sharding.mesh for aval in avals if not aval.sharding.mesh.empty]
    return meshes[0] if meshes else jax.sharding.get_abstract_mesh()


def is_explicit(*avals: Any) -> bool:
    """Whether shardings are part of these arrays' types."""
    mesh = mesh_of(*avals)
    return not mesh.empty and AxisType.Explicit in mesh.axis_types


def typed_sharding(aval: Any) -> NamedSharding | None:
    """The sharding in an array's type, where there are such types."""
    return NamedSharding(mesh_of(aval), aval.sharding.spec) if is_explicit(aval) else None


def result_sharding(role: Role, a: Any, b: Any, spec: ConvSpec, asked: NamedSharding | None) -> NamedSharding:
    """The sharding of `role`'s result: the one asked for, or the one that follows from the operands'."""
    if asked is not None:
        return asked
    mesh = mesh_of(a, b)
    if not is_explicit(a, b):
        return NamedSharding(mesh, P())
    entries = [tuple(array.sharding.spec) for array in (a, b)]
    return NamedSharding(mesh, result_spec(role, entries, spec, dict(mesh.shape)))


def result_spec(role: Role, entries: Sequence[Sequence[Any]], spec: ConvSpec, sizes: dict[str, int]) -> P:
    """How the result is sharded, given how the two operands are.

    >>> spec = ConvSpec.of(batch=8, spatial=(8,), kernel=(3,))
    >>> tuple(result_spec("forward", [("data", None, None), (None, None, None)], spec, {"data": 4}))
    ('data', None, None)

    Raises:
      ValueError: an axis is sharded over which the result is a sum, or that the rule cannot cut.
    """
    *operands, result = ARRAYS[role]
    kept: dict[str, Any] = {}
    for name, given in zip(operands, entries, strict=True):
        for letter, axes in zip(letters(name, spec), given, strict=False):
            if not axes:
                continue
            users = "g" if name == "y" else name
            where = f"`{users}` is sharded over {axes!r} along its {AXES[letter[0]]}{letter[1:]}"
            if why := _refusal(role, letter, math.prod(sizes[one] for one in mesh_axes(axes)), spec):
                raise ValueError(f"{where}, {why}")
            if kept.setdefault(letter, axes) != axes:
                raise ValueError(f"{where}, the other operand over {kept[letter]!r}; reshard one of them")
    used = [one for axes in kept.values() for one in mesh_axes(axes)]
    for one in used:
        if used.count(one) > 1:
            raise ValueError(
                f"the result would be sharded over {one!r} along two of its axes; reshard one operand, "
                "or say where the result goes with `out_sharding` of jconv.conv_general_dilated"
            )
    return spec_of(result, spec, kept)


def _refusal(role: Role, letter: str, shards: int, spec: ConvSpec) -> str | None:
    """Why an axis cannot be cut into so many, and what to do."""
    if letter[0] in "rk":
        return "which no convolution can keep; jax.sharding.reshard it"
    if letter not in letters(ARRAYS[role][2], spec):
        return (
            "over which the result is summed; say where the sum goes with `out_sharding` of "
            "jconv.conv_general_dilated, or jax.sharding.reshard it"
        )
    if letter == "g" and spec.groups % shards:
        return f"but {spec.groups} groups do not divide by {shards}; jax.sharding.reshard it"
    if letter[0] == "h" and (reason := halo.refuses(halo.moved(spec, role), int(letter[1:]), shards)):
        return f"but {reason}; jax.sharding.reshard it"
    return None


def automatically(fun: Callable[..., jax.Array], sharding: NamedSharding, *arrays: ArrayLike) -> jax.Array:
    """`fun(*arrays)` with the partitioner free inside and the result sharded as said."""
    return jax.sharding.auto_axes(fun, out_sharding=sharding)(*arrays)


def untyped(fun: Callable[..., jax.Array], avals: Sequence[Any]) -> tuple[Callable[..., jax.Array], Any]:
    """`fun` traced as if there were no mesh, where nothing has to be declared as varying, and what it then
    takes: the same shapes and dtypes, free of shardings and varying mesh axes."""

    def traced(*arrays: jax.Array) -> jax.Array:
        with jax.sharding.use_abstract_mesh(NO_MESH):
            return fun(*arrays)

    return traced, tuple(jax.core.ShapedArray(aval.shape, aval.dtype, aval.weak_type) for aval in avals)


def with_mapped_axis(
    sharding: NamedSharding, arrays: Sequence[Any], dims: Sequence[int | None]
) -> NamedSharding:
    """`sharding` with a leading axis sharded as the vmapped axis of `arrays` is."""
    pairs = zip(arrays, dims, strict=True)
    mapped = (jax.typeof(array).sharding.spec[dim] for array, dim in pairs if dim is not None)
    return NamedSharding(sharding.mesh, P(next(filter(None, mapped), None), *sharding.spec))
