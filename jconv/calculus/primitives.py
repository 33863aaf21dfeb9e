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

The same formulas are attached three ways: `convolve` (the primitives: every mode of JAX, and the
algorithm is chosen at lowering, after vmap and grad have rewritten the problem), `by_custom_vjp`
(the backward by hand, reverse mode only) and `by_autodiff` (JAX differentiates the algorithm itself).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import Algorithm, evaluate, serves
from jconv.calculus import interpreters
from jconv.choice.candidates import POLICIES
from jconv.choice.pick import resolve
from jconv.mesh import explicit, partition
from jconv.runtime.private import needs_devices
from jconv.spec import ROLES, ConvSpec, Role
from jconv.spec.roles import OPERANDS, RESULT, ROLE_OF

Named = str | Algorithm

EXPORTED = "the program is exported, and one that calls oneDNN cannot be"
PLAIN = "JAX differentiates the program, and calls of oneDNN it cannot"


class Bilinear(Primitive):
    """One of the three.  Whoever looks for a rule asks for the hash: it is there by then."""

    def __hash__(self) -> int:
        interpreters.meet(PRIMITIVES)
        return object.__hash__(self)


PRIMITIVES: dict[Role, Primitive] = {role: Bilinear(f"jconv_{role}") for role in ROLES}


def convolve(
    role: Role, a: jax.Array, b: jax.Array, spec: ConvSpec, algorithm: Named, out_sharding: Any = None
) -> jax.Array:
    """`role` of `spec` by the bilinear primitives: the default."""
    a, b = _equally_varying(a, b)
    return PRIMITIVES[role].bind(a, b, spec=spec, algorithm=algorithm, out_sharding=out_sharding)


def by_autodiff(role: Role, a: jax.Array, b: jax.Array, spec: ConvSpec, algorithm: Named) -> jax.Array:
    """`role` of `spec` as plain JAX code, differentiated by JAX.

    Raises:
      ValueError: "onednn" was named, whose calls cannot be differentiated.
    """
    return _plainly(role, a, b, spec, algorithm, PLAIN)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3, 4))
def by_custom_vjp(role: Role, a: jax.Array, b: jax.Array, spec: ConvSpec, algorithm: Named) -> jax.Array:
    """`role` of `spec` with the hand-written backward as a `jax.custom_vjp`."""
    return _plainly(role, a, b, spec, algorithm, PLAIN if algorithm in POLICIES else None)


def _plainly(
    role: Role, a: jax.Array, b: jax.Array, spec: ConvSpec, algorithm: Named, portable: str | None
) -> jax.Array:
    record, _ = resolve(algorithm, role, spec, jax.default_backend(), portable)
    return evaluate(record, role, a, b, spec)


def _custom_fwd(role, a, b, spec, algorithm):
    return by_custom_vjp(role, a, b, spec, algorithm), (a, b)


def _custom_bwd(role, spec, algorithm, residuals, ct):
    arrays = dict(zip(OPERANDS[role], residuals, strict=True)) | {RESULT[role]: ct}
    return tuple(
        _third(name, arrays, functools.partial(by_custom_vjp, spec=spec, algorithm=algorithm))
        for name in OPERANDS[role]
    )


by_custom_vjp.defvjp(_custom_fwd, _custom_bwd)


def _third(name: str, arrays: dict[str, jax.Array], how: Any) -> jax.Array:
    """The map whose result is `name`, applied to the other two arrays."""
    role = ROLE_OF[name]
    return how(role, *(arrays[operand] for operand in OPERANDS[role]))


# -- evaluation ------------------------------------------------------------------------------------


def _abstract(role: Role, a: Any, b: Any, *, spec: ConvSpec, algorithm: Named, out_sharding: Any) -> Any:
    shape, dtype = spec.result(role)
    sharding = explicit.result_sharding(role, a, b, spec, out_sharding)
    weak = a.weak_type and b.weak_type
    return a.update(shape=shape, dtype=jnp.dtype(dtype), weak_type=weak, sharding=sharding)


def _equally_varying(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Inside shard_map both operands must vary over the same mesh axes."""
    axes = [jax.typeof(v).manual_axis_type.varying for v in (a, b)]
    if axes[0] == axes[1]:
        return a, b
    union = functools.reduce(operator.or_, axes)
    varied = [
        jax.lax.pcast(v, tuple(union - own), to="varying") if union - own else v
        for v, own in zip((a, b), axes, strict=True)
    ]
    return varied[0], varied[1]


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
        fun, ctx = explicit.untyped(fun), ctx.replace(avals_in=explicit.without_mesh(ctx.avals_in))
    return mlir.lower_fun(fun, multiple_results=False)(ctx, a, b)


def _chosen(
    role: Role, platform: str, a: Any, b: Any, *, spec: ConvSpec, algorithm: Named, **more: Any
) -> Any:
    record, known = resolve(algorithm, role, spec, platform, **more)
    return evaluate(record, role, a, b, known)


# -- transposition ---------------------------------------------------------------------------------


def _transpose(role: Role, position: int, ct: Any, a: Any, b: Any, **params: Any) -> Any:
    operands = OPERANDS[role]
    arrays = dict(zip(operands, (a, b), strict=True)) | {RESULT[role]: ct}
    params["out_sharding"] = explicit.typed_sharding((a, b)[position].aval)  # a cotangent is sharded likewise
    return _third(operands[position], arrays, functools.partial(convolve, **params))


# -- batching --------------------------------------------------------------------------------------

LETTERS = {"x": "n.gc", "w": ".cgo", "y": "n.go"}  # . stands for the spatial axes


def _batch(
    role: Role, args: Any, dims: Any, *, spec: ConvSpec, algorithm: Named, out_sharding: Any
) -> tuple[Any, int]:
    if out_sharding is not None:  # the folded axes have no say in it
        plain = functools.partial(_batch, role, dims=dims, spec=spec, algorithm=algorithm, out_sharding=None)
        sharding = explicit.with_mapped_axis(out_sharding, args, dims)
        return explicit.automatically(lambda *args: plain(args)[0], sharding, *args), 0
    batched = {name for name, dim in zip(OPERANDS[role], dims, strict=True) if dim is not None}
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    letter = _joined_letter(batched | {RESULT[role]})
    folded = spec.folded(size, letter)
    if not _takes(algorithm, folded):
        return _one_by_one(role, args, dims, spec, algorithm), 0
    a, b = (
        array if dim is None else _fold(array, dim, name, letter, spec)
        for array, dim, name in zip(args, dims, OPERANDS[role], strict=True)
    )
    result = convolve(role, a, b, folded, algorithm)
    return _unfold(result, size, RESULT[role], letter, spec), 0


def _takes(algorithm: Named, spec: ConvSpec) -> bool:
    """Whether the algorithm that the user named, if any, can compute the folded problem."""
    named = ALGORITHMS.get(algorithm) if isinstance(algorithm, str) else algorithm
    return named is None or serves(named, spec)


def _one_by_one(role: Role, args: Any, dims: Any, spec: ConvSpec, algorithm: Named) -> jax.Array:
    """The convolutions in a loop, each by the algorithm that was named, which takes them as they are."""
    mapped = [jnp.moveaxis(a, dim, 0) for a, dim in zip(args, dims, strict=True) if dim is not None]

    def one(some: list[jax.Array]) -> jax.Array:
        left = iter(some)
        a, b = (array if dim is None else next(left) for array, dim in zip(args, dims, strict=True))
        return convolve(role, a, b, spec, algorithm)

    return jax.lax.map(one, mapped)


def _joined_letter(batched: set[str]) -> str:
    """The letter that the batched arrays share and the third, if there is one, lacks."""
    if len(batched) == 3:
        return "g"
    first, second = batched
    (third,) = set(LETTERS) - batched
    (letter,) = set(LETTERS[first]) & set(LETTERS[second]) - set(LETTERS[third])
    return letter


def _separated(name: str, spec: ConvSpec) -> tuple[tuple[int, ...], str]:
    """Shape of an array with the group axis on its own, and its letters, one an axis."""
    sizes = {"n": (spec.batch,), "g": (spec.groups,), "c": (spec.c,), "o": (spec.o,)}
    space = {"x": spec.spatial, "w": spec.kernel, "y": spec.out_spatial}[name]
    shape = sum((space if letter == "." else sizes[letter] for letter in LETTERS[name]), ())
    return shape, LETTERS[name].replace(".", "." * spec.ndim)


def _fold(array: Any, dim: int, name: str, letter: str, spec: ConvSpec) -> Any:
    size = array.shape[dim]
    shape, letters = _separated(name, spec)
    array = jnp.moveaxis(array, dim, 0).reshape(size, *shape)
    array = jnp.moveaxis(array, 0, letters.index(letter))
    return array.reshape(_shape(name, spec.folded(size, letter)))


def _unfold(array: Any, size: int, name: str, letter: str, spec: ConvSpec) -> Any:
    shape, letters = _separated(name, spec)
    at = letters.index(letter)
    array = array.reshape(*shape[:at], size, *shape[at:])
    return jnp.moveaxis(array, at, 0).reshape(size, *_shape(name, spec))


def _shape(name: str, spec: ConvSpec) -> tuple[int, ...]:
    return {"x": spec.x_shape, "w": spec.w_shape, "y": spec.y_shape}[name]


# -- registration ----------------------------------------------------------------------------------


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
