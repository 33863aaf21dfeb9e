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

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jconv import halo
from jconv.algorithm import Algorithm, refuses, run
from jconv.choose import resolve
from jconv.spec import ConvSpec, Role

ARRAYS: dict[Role, str] = {"forward": "xwy", "grad_input": "ywx", "grad_kernel": "xyw"}  # two in, one out
Cuts = dict[str, tuple[str, ...]]  # letter → mesh axes


def letters(name: str, spec: ConvSpec) -> tuple[str, ...]:
    """The letters of an array's axes, one h per spatial and one r per kernel dimension."""
    space = tuple(f"h{d}" for d in range(spec.ndim))
    taps = tuple(f"r{d}" for d in range(spec.ndim))
    c, k, o = ("g", "k", "g") if spec.groups > 1 else ("c", "c", "o")  # k: channels inside a group
    return {"x": ("n", *space, c), "w": (*taps, k, o), "y": ("n", *space, o)}[name]


# -- what a shard computes -------------------------------------------------------------------------


def local_spec(spec: ConvSpec, role: Role, parts: dict[str, int]) -> ConvSpec:
    """The problem of one shard, its halo received, when each letter is cut into so many parts."""
    g, c, o = (parts.get(letter, 1) for letter in "gco")
    local = spec.replace(
        batch=spec.batch // parts.get("n", 1),
        groups=spec.groups // g,
        in_channels=spec.in_channels // (g * c),
        out_channels=spec.out_channels // (g * o),
    )
    space = [parts.get(f"h{d}", 1) for d in range(spec.ndim)]
    if role == "grad_input":  # a convolution of g: it is g's halo that is needed
        return halo.local_spec(local.as_grad_input(), space).as_grad_input()
    return halo.local_spec(local, space)


def shard_computes(
    role: Role, a: jax.Array, b: jax.Array, spec: ConvSpec, cuts: Cuts, how: Callable[..., jax.Array]
) -> jax.Array:
    """`how(role, a, b, local spec)` of one shard, with the halo before and the all-reduce after it.

    Runs where the mesh axes of `cuts` are manual.
    """
    parts = {letter: lax.axis_size(axes) for letter, axes in cuts.items()}
    names = [cuts.get(f"h{d}") for d in range(spec.ndim)]
    moved = spec.as_grad_input() if role == "grad_input" else spec
    result = how(role, halo.exchange(a, moved, names), b, local_spec(spec, role, parts))
    first, second, last = (set(letters(name, spec)) for name in ARRAYS[role])
    summed = [axis for letter, axes in cuts.items() if letter in (first | second) - last for axis in axes]
    return lax.psum(result, tuple(summed)) if summed else result


# -- which letters are cut -------------------------------------------------------------------------


def cuts_of(role: Role, spec: ConvSpec, specs: Sequence[Sequence[Any]], sizes: dict[str, int]) -> Cuts:
    """Letter → mesh axes, out of how the two operands and the result are sharded.

    Where they disagree, letters go before each other in the order n g o c h and what is left over
    is not cut (the partitioner gathers it); so does a letter whose size does not divide.
    """
    wanted: list[tuple[str, tuple[str, ...]]] = [
        (letter, axes if isinstance(axes, tuple) else (axes,))
        for name, entries in zip(ARRAYS[role], specs, strict=True)
        for letter, axes in zip(letters(name, spec), entries, strict=False)
        if axes
    ]
    cuts: Cuts = {}
    for letter, axes in sorted(wanted, key=lambda entry: "ngochkr".index(entry[0][0])):
        free = not set(axes) & {axis for used in cuts.values() for axis in used}
        if letter not in cuts and free and _divides(role, spec, letter, math.prod(sizes[a] for a in axes)):
            cuts[letter] = axes
    return cuts


def _divides(role: Role, spec: ConvSpec, letter: str, parts: int) -> bool:
    if letter[0] == "h":
        moved = spec.as_grad_input() if role == "grad_input" else spec
        return halo.refuses(moved, int(letter[1:]), parts) is None
    size = {"n": spec.batch, "g": spec.groups, "c": spec.c, "o": spec.o}.get(letter, 1)
    return size % parts == 0


def spec_of(name: str, spec: ConvSpec, cuts: Cuts) -> P:
    """How an array is sharded under `cuts`."""
    return P(*(cuts.get(letter) for letter in letters(name, spec)))


# -- the partitioner's side ------------------------------------------------------------------------


def partitioned(
    role: Role, platform: str, a: jax.Array, b: jax.Array, spec: ConvSpec, algorithm: str | Algorithm
) -> jax.Array:
    """`role` of `spec`, to be cut by XLA's partitioner by the rule of this module."""

    def how(role: Role, a: jax.Array, b: jax.Array, spec: ConvSpec) -> jax.Array:
        return run(resolve(algorithm, role, spec, platform), role, a, b, spec)

    def partition(mesh: Any, operands: Any, result: Any) -> Any:
        specs = [array.sharding.spec for array in (*operands, result)]
        cuts = _computable(cuts_of(role, spec, specs, dict(mesh.shape)), mesh)
        first, second, last = (NamedSharding(mesh, spec_of(name, spec, cuts)) for name in ARRAYS[role])
        return mesh, lambda a, b: shard_computes(role, a, b, spec, cuts, how), last, (first, second)

    def _computable(cuts: Cuts, mesh: Any) -> Cuts:
        """Less the cuts in space if the algorithm does not take the shard's problem, or less all."""
        for fewer in (cuts, {k: v for k, v in cuts.items() if k[0] != "h"}):
            parts = {letter: math.prod(mesh.shape[a] for a in axes) for letter, axes in fewer.items()}
            local = local_spec(spec, role, parts)
            if not refuses(resolve(algorithm, role, local, platform), role, local):
                return fewer
        return {}

    whole = custom_partitioning(lambda a, b: how(role, a, b, spec))
    rule, words = sharding_rule(role, spec)
    whole.def_partition(partition, sharding_rule=rule, **words)
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


def needs_devices(primitive: Any) -> None:
    """Have jit tell the lowering of `primitive` the devices; without, it is left to the partitioner."""
    try:
        from jax._src.dispatch import prim_requires_devices_during_lowering
    except ImportError:
        return
    prim_requires_devices_during_lowering.add(primitive)


def can_partition(context: Any) -> bool:
    """Whether the program being lowered is one for XLA's partitioner, on a mesh that is known."""
    axes = context.axis_context
    return (
        getattr(axes, "num_devices", 1) > 1
        and getattr(axes, "device_assignment", None) is not None
        and getattr(axes, "abstract_mesh", None) is not None
        and not context.lowering_parameters.for_export
    )
