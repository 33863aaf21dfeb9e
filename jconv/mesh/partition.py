"""How XLA's partitioner cuts one of the three bilinear maps over a mesh.

An array axis is named by a letter, and cutting a letter means the same in all three arrays:

    x   n  h…  g·c        n, o    every shard computes results of its own: nothing is sent
    w   r…  c  g·o        g       likewise, whole groups to a shard
    y   n  p…  g·o        h, p    likewise, after the neighbours' halos (`halo.py`)

A letter of the operands that the result lacks is summed over: each shard has a partial sum, and one
all-reduce makes them whole (n, h for grad_kernel; c for forward; o for grad_input).

Left to itself the partitioner looks inside the algorithm, and gathers whatever it cannot see
through: a grouped convolution, a loop over the batch, an FFT.  So the map is handed over closed, as a
`custom_partitioning`, with the rule above.  Each device then runs the algorithm that suits *its* shard.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jconv.algorithms.record import Algorithm, evaluate, refuses
from jconv.choice.pick import resolve
from jconv.mesh import halo
from jconv.runtime.private import entries
from jconv.spec import ROLES, ConvSpec, Role
from jconv.spec.roles import OPERANDS, RESULT

ARRAYS = {role: OPERANDS[role] + RESULT[role] for role in ROLES}  # two in, one out
Cuts = dict[str, tuple[str, ...]]  # letter → mesh axes
Specs = Sequence[Sequence[Any]]  # PartitionSpecs of the two operands and the result
Compute = Callable[[Role, jax.Array, jax.Array, ConvSpec], jax.Array]
NO_MESH = jax.sharding.AbstractMesh((), ())


def letters(name: str, spec: ConvSpec) -> tuple[str, ...]:
    """The letters of an array's axes, one h per spatial and one r per kernel dimension."""
    space = tuple(f"h{d}" for d in range(spec.ndim))
    taps = tuple(f"r{d}" for d in range(spec.ndim))
    c, k, o = ("g", "k", "g") if spec.groups > 1 else ("c", "c", "o")  # k: channels inside a group
    return {"x": ("n", *space, c), "w": (*taps, k, o), "y": ("n", *space, o)}[name]


def local_spec(spec: ConvSpec, role: Role, shards: dict[str, int]) -> ConvSpec:
    """The problem of one shard, its halo received, when each letter is cut into so many shards."""
    g, c, o = (shards.get(letter, 1) for letter in "gco")
    local = spec.replace(
        batch=spec.batch // shards.get("n", 1),
        groups=spec.groups // g,
        in_channels=spec.in_channels // (g * c),
        out_channels=spec.out_channels // (g * o),
    )
    return halo.local_spec(local, [shards.get(f"h{d}", 1) for d in range(spec.ndim)], role)


def shard_computes(
    role: Role, a: jax.Array, b: jax.Array, spec: ConvSpec, cuts: Cuts, scattered: Cuts, how: Compute,
    order: Sequence[str],
) -> jax.Array:  # fmt: skip
    """`how(role, a, b, local spec)` of one shard, with the halo before and the sums after it.

    Runs where the mesh axes of `cuts` are manual; `order` has those of the mesh.
    """
    shards = {letter: lax.axis_size(axes) for letter, axes in cuts.items()}
    names = [cuts.get(f"h{d}") for d in range(spec.ndim)]
    result = how(
        role, halo.exchange(a, halo.moved(spec, role), names, order), b, local_spec(spec, role, shards)
    )
    over = set(summed(role, spec, cuts))
    for letter, axes in scattered.items():
        at = letters(ARRAYS[role][2], spec).index(letter)
        result = lax.psum_scatter(result, axes, scatter_dimension=at, tiled=True)
        over -= set(axes)
    return lax.psum(result, tuple(sorted(over))) if over else result


def summed(role: Role, spec: ConvSpec, cuts: Cuts) -> list[str]:
    """The mesh axes over which the shards' results are partial sums."""
    first, second, last = (set(letters(name, spec)) for name in ARRAYS[role])
    return [axis for letter, axes in cuts.items() if letter in (first | second) - last for axis in axes]


def cuts_of(role: Role, spec: ConvSpec, specs: Specs, sizes: dict[str, int]) -> Cuts:
    """Letter → mesh axes, out of how the two operands and the result are sharded.

    Where they disagree, a letter that is summed over and cut in both operands goes first, then come
    n g o c h; what is left over is not cut (the partitioner gathers it), nor what does not divide.
    """
    wanted = [
        (letter, axes)
        for name, entries in zip(ARRAYS[role], specs, strict=True)
        for letter, axes in _cut_letters(name, spec, entries)
    ]
    result = letters(ARRAYS[role][2], spec)

    def rank(entry: tuple[str, tuple[str, ...]]) -> int:
        both = entry[0] not in result and wanted.count(entry) == 2
        return -1 if both else "ngochkr".index(entry[0][0])

    def divides(letter: str, shards: int) -> bool:
        if letter[0] == "h":
            return halo.refuses(halo.moved(spec, role), int(letter[1:]), shards) is None
        return {"n": spec.batch, "g": spec.groups, "c": spec.c, "o": spec.o}.get(letter, 1) % shards == 0

    cuts: Cuts = {}
    for letter, axes in sorted(wanted, key=rank):
        free = not set(axes) & {axis for used in cuts.values() for axis in used}
        if letter not in cuts and free and divides(letter, math.prod(sizes[a] for a in axes)):
            cuts[letter] = axes
    return cuts


def scattered_of(role: Role, spec: ConvSpec, cuts: Cuts, specs: Specs, sizes: dict[str, int]) -> Cuts:
    """Letters of the result that want mesh axes it is summed over: a reduce-scatter serves both."""
    name = ARRAYS[role][2]
    over = set(summed(role, spec, cuts))
    shape = dict(zip(letters(name, spec), spec.result(role)[0], strict=True))
    return {
        letter: axes
        for letter, axes in _cut_letters(name, spec, specs[2])
        if letter not in cuts and set(axes) <= over and shape[letter] % math.prod(sizes[a] for a in axes) == 0
    }


def _cut_letters(name: str, spec: ConvSpec, entries: Sequence[Any]) -> list[tuple[str, tuple[str, ...]]]:
    cut = zip(letters(name, spec), entries, strict=False)
    return [(letter, mesh_axes(axes)) for letter, axes in cut if axes]


def mesh_axes(entry: Any) -> tuple[str, ...]:
    """Of an entry of a `PartitionSpec`."""
    return entry if isinstance(entry, tuple) else (entry,)


def spec_of(name: str, spec: ConvSpec, cuts: Cuts) -> P:
    """How an array is sharded under `cuts`."""
    return P(*(cuts.get(letter) for letter in letters(name, spec)))


def partitioned(
    role: Role, platform: str, a: jax.Array, b: jax.Array, spec: ConvSpec, algorithm: str | Algorithm
) -> jax.Array:
    """`role` of `spec`, to be cut by XLA's partitioner by the rule of this module."""

    def how(role: Role, a: jax.Array, b: jax.Array, spec: ConvSpec) -> jax.Array:
        record, spec = resolve(algorithm, role, spec, platform)
        return evaluate(record, role, a, b, spec)

    def partition(mesh: Any, operands: Any, result: Any) -> Any:
        specs, sizes = [entries(array.sharding, mesh) for array in (*operands, result)], dict(mesh.shape)
        cuts = _computable(cuts_of(role, spec, specs, sizes), mesh)
        scattered = scattered_of(role, spec, cuts, specs, sizes)
        first, second = (NamedSharding(mesh, spec_of(name, spec, cuts)) for name in ARRAYS[role][:2])
        last = NamedSharding(mesh, spec_of(ARRAYS[role][2], spec, cuts | scattered))

        def shard(a: jax.Array, b: jax.Array) -> jax.Array:
            with jax.sharding.use_abstract_mesh(NO_MESH):  # the caller's may be typed, a shard is not
                return shard_computes(role, a, b, spec, cuts, scattered, how, mesh.axis_names)

        return mesh, shard, last, (first, second)

    def _computable(cuts: Cuts, mesh: Any) -> Cuts:
        """Less the cuts in space if the algorithm does not take the shard's problem, or less all."""
        for fewer in (cuts, {k: v for k, v in cuts.items() if k[0] != "h"}):
            shards = {letter: math.prod(mesh.shape[a] for a in axes) for letter, axes in fewer.items()}
            local = local_spec(spec, role, shards)
            record, _ = resolve(algorithm, role, local, platform)
            if not refuses(record, role, local):
                return fewer
        return {}

    # compiled by itself: custom_partitioning takes no function that holds arrays
    whole = custom_partitioning(jax.jit(lambda a, b: how(role, a, b, spec)))
    rule, words = sharding_rule(role, spec)
    whole.def_partition(partition, decode_shardings=False, sharding_rule=rule, **words)
    return whole(a, b)


def sharding_rule(role: Role, spec: ConvSpec) -> tuple[str, dict[str, Any]]:
    """The rule of the module docstring as Shardy writes it.

    >>> sharding_rule("forward", ConvSpec.of(spatial=(8,), kernel=(3,)))[0]
    'n h0 c, r0 c o -> n h0 o'
    """
    go = "(g o)" if spec.o > 1 else "g"  # Shardy takes no factors of size one in a product
    compound = {("x", "g"): "(g k)" if spec.c > 1 else "g", ("w", "g"): go, ("y", "g"): go}
    a, b, result = (
        " ".join(compound.get((name, letter), letter) for letter in letters(name, spec))
        for name in ARRAYS[role]
    )
    rule = f"{a}, {b} -> {result}"
    factors = list(dict.fromkeys(re.findall(r"\w+", rule)))  # Shardy wants them in order of appearance
    whole = "rko" if spec.groups > 1 else "r"
    kept = set(re.findall(r"\w+", result))
    words: dict[str, Any] = {
        "need_replication_factors": tuple(f for f in factors if f[0] in whole),
        "reduction_factors": tuple(f for f in factors if f[0] not in whole and f not in kept),
    }
    if spec.groups > 1:
        sizes = {"g": spec.groups, "k": spec.c, "o": spec.o}
        alone = set(re.findall(r"\w+", re.sub(r"\(.*?\)", "", rule)))  # Shardy reads these off the arrays
        words |= {factor: size for factor, size in sizes.items() if factor in factors and factor not in alone}
    return rule, words


def can_partition(context: Any) -> bool:
    """Whether the program being lowered is one for XLA's partitioner, on a mesh that is known."""
    axes = context.axis_context
    return (
        getattr(jax.config, "jax_use_shardy_partitioner", True)  # the rule is written for it
        and getattr(axes, "num_devices", 1) > 1
        and getattr(axes, "device_assignment", None) is not None
        and getattr(axes, "abstract_mesh", None) is not None
        and not context.lowering_parameters.for_export
    )
