"""The calculus: three bilinear maps that are each other's transposes.

A convolution ties three arrays together.  Dropping space, with n batch, g group, c and o channels:

    forward      (x, w) → y      [n, gc] [c, go] → [n, go]
    grad_input   (y, w) → x      [n, go] [c, go] → [n, gc]
    grad_kernel  (x, y) → w      [n, gc] [n, go] → [c, go]

Each is linear in both operands, and the transpose in one operand is the map that has it as result:
two of x, w, y in, the third out.  So the three close under differentiation to any order, forward and
reverse, and one rule of each kind serves them all:

    jvp        t(a·b) = ta·b + a·tb                            (bilinear)
    transpose  of (a, b) → r in a  is  (b, r) → a
    vmap       two of the three arrays carry the new axis; it joins the one letter (n, c or o) that
               they share and the third lacks; if all three carry it, it joins g

The algorithm is chosen at lowering, after vmap and grad have rewritten the problem.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jconv.algorithms import ALGORITHMS
from jconv.algorithms.derived import carried
from jconv.algorithms.record import Algorithm, evaluate, serves
from jconv.calculus import interpreters
from jconv.choice.pick import resolve
from jconv.mesh import explicit, partition
from jconv.runtime.private import needs_devices
from jconv.spec import ROLES, ConvSpec, Role
from jconv.spec.roles import OPERANDS, RESULT, ROLE_OF, canonical

Named = str | Algorithm
Found = Callable[[ConvSpec], Named]  # the algorithm for the problem as it is posed

EXPORTED = "the program is exported, and one that calls oneDNN cannot be"


class Bilinear(Primitive):
    """One of the three.  Whoever looks for a rule asks for the hash: it is there by then."""

    def __hash__(self) -> int:
        interpreters.meet(PRIMITIVES)
        return object.__hash__(self)


PRIMITIVES: dict[Role, Primitive] = {role: Bilinear(f"jconv_{role}") for role in ROLES}


def convolve(
    role: Role, a: jax.Array, b: jax.Array, spec: ConvSpec, algorithm: Named | Found = "auto"
) -> jax.Array:
    """`role` of `spec` by the bilinear primitives: the default.

    Unless an algorithm is named, a convolution that dilates its input at stride 1 is bound as a role of the
    strided convolution B behind it (`roles.canonical`): x and y change places, the kernel's channels too, and
    either the kernel or the images are flipped.
    """
    if isinstance(algorithm, Algorithm) or algorithm in ALGORITHMS:
        return _bind(role, a, b, spec=spec, algorithm=algorithm)
    B, played = canonical(spec, role)
    algorithm = algorithm(B) if callable(algorithm) else algorithm
    if B is spec:
        return _bind(role, a, b, spec=spec, algorithm=algorithm)
    kernel, image = carried(B)
    if role == "grad_kernel":
        return kernel(_bind(role, image(b), image(a), spec=B, algorithm=algorithm), B)
    return image(_bind(played, image(a), kernel(b, spec), spec=B, algorithm=algorithm))


def _bind(role: Role, a: jax.Array, b: jax.Array, out_sharding: Any = None, **params: Any) -> jax.Array:
    """The primitive; inside shard_map both operands must vary over the same mesh axes."""
    axes = [jax.typeof(v).manual_axis_type.varying for v in (a, b)]
    union = axes[0] | axes[1]
    a, b = (
        jax.lax.pcast(v, tuple(union - own), to="varying") if union - own else v
        for v, own in zip((a, b), axes, strict=True)
    )
    return PRIMITIVES[role].bind(a, b, out_sharding=out_sharding, **params)


def _abstract(role: Role, a: Any, b: Any, *, spec: ConvSpec, algorithm: Named, out_sharding: Any) -> Any:
    shape, dtype = spec.result(role)
    sharding = explicit.result_sharding(role, a, b, spec, out_sharding)
    weak = a.weak_type and b.weak_type
    return a.update(shape=shape, dtype=jnp.dtype(dtype), weak_type=weak, sharding=sharding)


@functools.lru_cache(maxsize=1024)
def _compiled(role: Role, **params: Any) -> Any:
    bind = functools.partial(PRIMITIVES[role].bind, **params)
    functools.update_wrapper(bind, PRIMITIVES[role].bind)
    bind._apply_primitive = True  # type: ignore[attr-defined]  # jax_debug_nans: there is nothing to look into
    return jax.jit(bind)


def _evaluate(role: Role, a: jax.Array, b: jax.Array, **params: Any) -> jax.Array:
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]  # `_compiled` would come back here
        params.pop("out_sharding")
        return _chosen(role, jax.default_backend(), a, b, **params)
    return _compiled(role, **params)(a, b)


def _lower(role: Role, platform: str, ctx: Any, a: Any, b: Any, *, out_sharding: Any, **params: Any) -> Any:
    """Choose for this platform and lower; on a mesh, hand XLA's partitioner the map in one piece."""
    portable = EXPORTED if ctx.module_context.lowering_parameters.for_export else None
    fun: Callable[..., Any] = functools.partial(_chosen, role, platform, portable=portable, **params)
    if partition.can_partition(ctx.module_context):
        fun = functools.partial(partition.partitioned, role, platform, **params)
    if explicit.is_explicit(*ctx.avals_in):
        fun = functools.partial(explicit.automatically, fun, ctx.avals_out[0].sharding)
    else:
        fun, avals = explicit.untyped(fun, ctx.avals_in)
        ctx = ctx.replace(avals_in=avals)
    return mlir.lower_fun(fun, multiple_results=False)(ctx, a, b)


def _chosen(
    role: Role, platform: str, a: Any, b: Any, *, spec: ConvSpec, algorithm: Named, **more: Any
) -> Any:
    record, known = resolve(algorithm, role, spec, platform, **more)
    return evaluate(record, role, a, b, known)


def _transpose(role: Role, position: int, ct: Any, a: Any, b: Any, **params: Any) -> Any:
    """The map whose result is the operand at `position`, of the other operand and the cotangent."""
    operands = OPERANDS[role]
    arrays = dict(zip(operands, (a, b), strict=True)) | {RESULT[role]: ct}
    sharding = explicit.typed_sharding((a, b)[position].aval)  # a cotangent is sharded likewise
    back = ROLE_OF[operands[position]]
    first, second = (arrays[name] for name in OPERANDS[back])
    return _bind(back, first, second, **params | {"out_sharding": sharding})


LETTERS = {"x": "n.gc", "w": ".cgo", "y": "n.go"}  # . stands for the spatial axes


def _batch(
    role: Role, args: Any, dims: Any, *, spec: ConvSpec, algorithm: Named, out_sharding: Any
) -> tuple[Any, int]:
    if out_sharding is not None:  # the folded axes have no say in it
        plain = functools.partial(_batch, role, dims=dims, spec=spec, algorithm=algorithm, out_sharding=None)
        sharding = explicit.with_mapped_axis(out_sharding, args, dims)
        return explicit.automatically(lambda *args: plain(args)[0], sharding, *args), 0
    names, result = OPERANDS[role], RESULT[role]
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    letter = _joined({name for name, dim in zip(names, dims, strict=True) if dim is not None} | {result})
    folded = spec.folded(size, letter)
    named = ALGORITHMS.get(algorithm) if isinstance(algorithm, str) else algorithm
    if named is not None and not serves(named, folded):
        return _one_by_one(role, args, dims, spec=spec, algorithm=algorithm), 0
    a, b = (
        array if dim is None else _fold(array, dim, name, letter, spec)
        for array, dim, name in zip(args, dims, names, strict=True)
    )
    y = _bind(role, a, b, spec=folded, algorithm=algorithm)
    shape, letters = _separated(result, spec)
    at = letters.index(letter)
    y = jnp.moveaxis(y.reshape(*shape[:at], size, *shape[at:]), at, 0)
    return y.reshape(size, *spec.result(role)[0]), 0


def _one_by_one(role: Role, args: Any, dims: Any, **params: Any) -> jax.Array:
    """The convolutions in a loop, each by the algorithm that was named, which takes them as they are."""
    mapped = [jnp.moveaxis(a, dim, 0) for a, dim in zip(args, dims, strict=True) if dim is not None]

    def one(some: list[jax.Array]) -> jax.Array:
        left = iter(some)
        a, b = (array if dim is None else next(left) for array, dim in zip(args, dims, strict=True))
        return _bind(role, a, b, **params)

    return jax.lax.map(one, mapped)


def _joined(batched: set[str]) -> str:
    """The letter that the batched arrays share and the third, if there is one, lacks."""
    shared = set.intersection(*(set(LETTERS[name]) for name in batched))
    (letter,) = shared.difference(".", *(LETTERS[name] for name in set(LETTERS) - batched))
    return letter


def _separated(name: str, spec: ConvSpec) -> tuple[tuple[int, ...], str]:
    """Shape of an array with the group axis on its own, and its letters, one an axis."""
    space = {"x": spec.spatial, "w": spec.kernel, "y": spec.out_spatial}[name]
    sizes = {"n": (spec.batch,), "g": (spec.groups,), "c": (spec.c,), "o": (spec.o,), ".": space}
    shape = sum((sizes[letter] for letter in LETTERS[name]), ())
    return shape, LETTERS[name].replace(".", "." * spec.ndim)


def _fold(array: Any, dim: int, name: str, letter: str, spec: ConvSpec) -> Any:
    size = array.shape[dim]
    shape, letters = _separated(name, spec)
    array = jnp.moveaxis(array, dim, 0).reshape(size, *shape)
    array = jnp.moveaxis(array, 0, letters.index(letter))
    return array.reshape(spec.folded(size, letter).result(ROLE_OF[name])[0])


def _register(role: Role, primitive: Primitive) -> None:
    primitive.def_impl(functools.partial(_evaluate, role))
    primitive.def_abstract_eval(functools.partial(_abstract, role))
    ad.defbilinear(primitive, functools.partial(_transpose, role, 0), functools.partial(_transpose, role, 1))
    batching.primitive_batchers[primitive] = functools.partial(_batch, role)
    interpreters.give_rules(role, primitive)
    needs_devices(primitive)
    for platform in (None, "cpu", "cuda", "rocm", "tpu"):
        rule = functools.partial(_lower, role, platform or "cpu")
        mlir.register_lowering(primitive, rule, platform=platform)


for _role, _primitive in PRIMITIVES.items():
    _register(_role, _primitive)
