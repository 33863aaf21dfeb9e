"""Rules for the interpreters of JAX that ask for one of their own, beside jvp, transpose, vmap and lowering:

    jet         Taylor series.  Of a bilinear map they are a product of polynomials:
                (Σ aⱼ tʲ)·(Σ bⱼ tʲ) = Σ (Σᵢ aᵢ·bⱼ₋ᵢ) tʲ
    checkify    its float checks ask of every result whether it is NaN
    checkpoint  its policies know lax's convolution by name: what they say of it holds for these
    roofline    operations and bytes
    sparsify    BCOO arrays, as far as JAX convolves them itself

The first three cost nothing to import.  The others bring SciPy and more, so their rules are given once they
have been imported: `meet` is called whenever somebody looks for a rule.
"""

import functools
import sys
from collections.abc import Mapping
from typing import Any

import jax
from jax import lax
from jax.ad_checkpoint import Offloadable, Saveable
from jax.experimental.jet import jet_rules
from jax.extend.core import JaxprEqn, Var

from jconv.algorithms import XLA
from jconv.algorithms.record import evaluate
from jconv.runtime.private import checks_for_nans, split_by_checkpoint
from jconv.spec import ConvSpec, Role
from jconv.spec.roles import OPERANDS, ROLE_OF

_MET: set[str] = set()


def give_rules(role: Role, primitive: Any) -> None:
    """Rules for the interpreters that are always there."""
    jet_rules[primitive] = functools.partial(_taylor, primitive)
    checks_for_nans(primitive)
    split_by_checkpoint(primitive, functools.partial(_checkpointed, role))


def meet(primitives: Mapping[Role, Any]) -> None:
    """Rules for the interpreters that have been imported since."""
    for name, (needed, give) in LATE.items():
        module = sys.modules.get(name)
        if name not in _MET and hasattr(module, needed):  # else it is being imported
            _MET.add(name)  # before, for whoever keeps a rule asks for the hash, too
            for role, primitive in primitives.items():
                give(module, role, primitive)


def _taylor(primitive: Any, primals: Any, series: Any, **params: Any) -> tuple[jax.Array, list[jax.Array]]:
    a, b = ([primal, *terms] for primal, terms in zip(primals, series, strict=True))
    product = functools.partial(primitive.bind, **params)
    first, *rest = (sum(product(a[i], b[j - i]) for i in range(j + 1)) for j in range(len(a)))
    return first, rest


def _checkpointed(role: Role, saveable: Any, unknown: Any, instantiated: Any, eqn: JaxprEqn) -> Any:
    """How `jax.checkpoint` splits an equation: what the forward pass computes, what the backward pass does
    (again), whether the result is unknown in the first and known in the second, and what the second needs
    of the first.  It is JAX's own way, but that the policy is asked about lax's convolution."""
    pairs = zip(eqn.invars, instantiated, strict=True)
    needed = [var for var, there in pairs if not there and isinstance(var, Var)]
    if any(unknown):
        return None, eqn, [True], [True], needed
    spec = eqn.params["spec"]
    operands = [jax.ShapeDtypeStruct(*spec.result(ROLE_OF[name])) for name in OPERANDS[role]]
    by_lax = jax.make_jaxpr(functools.partial(evaluate, XLA, role, spec=spec))(*operands)
    found = (other for other in by_lax.eqns if other.primitive is lax.conv_general_dilated_p)
    of_lax = next(found, eqn)  # there is none of empty arrays
    case = saveable(lax.conv_general_dilated_p, *(v.aval for v in of_lax.invars), **of_lax.params)
    if isinstance(case, Offloadable):
        return _offloaded(case, eqn)
    if case is True or case is Saveable:
        return eqn, None, [False], [False], []
    return eqn, eqn, [False], [True], needed


def _offloaded(case: Any, eqn: JaxprEqn) -> Any:
    """The result is put away after the forward pass and fetched in the backward pass."""

    def put(kind: str, y: jax.Array) -> jax.Array:
        return jax.device_put(y, jax.memory.Space.Host if "host" in kind else jax.memory.Space.Device)

    def computed(*operands: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = eqn.primitive.bind(*operands, **eqn.params)
        return y, put(case.dst, y)

    def as_equation(fun: Any, *avals: Any) -> JaxprEqn:
        return jax.make_jaxpr(jax.jit(fun))(*avals).eqns[0]

    forward = as_equation(computed, *(v.aval for v in eqn.invars))
    away = forward.outvars[1]
    backward = as_equation(functools.partial(put, case.src), away.aval)
    return (
        forward.replace(invars=eqn.invars, outvars=[*eqn.outvars, away]),
        backward.replace(invars=[away], outvars=eqn.outvars), [False], [True], [away],
    )  # fmt: skip


def _give_roofline(roofline: Any, role: Role, primitive: Any) -> None:
    def work(ctx: Any, *_: Any, spec: ConvSpec, **__: Any) -> Any:
        return roofline.RooflineResult(unfused_flops=spec.flops, unfused_hbm_bytes=spec.bytes)

    roofline.register_roofline(primitive)(work)


def _give_sparsify(transform: Any, role: Role, primitive: Any) -> None:
    def by_lax(spec: ConvSpec, x: jax.Array, w: jax.Array) -> jax.Array:
        """In the layout in which JAX convolves sparse arrays."""
        n = spec.ndim
        return lax.conv_general_dilated(
            x.transpose(0, n + 1, *range(1, n + 1)), w.transpose(n + 1, n, *range(n)), spec.strides,
            spec.padding, spec.lhs_dilation, spec.rhs_dilation, feature_group_count=spec.groups,
        )  # fmt: skip

    def convolve(environment: Any, *values: Any, spec: ConvSpec, **__: Any) -> Any:
        if role != "forward":
            raise NotImplementedError(f"{role} of sparse arrays; differentiate a function of dense ones")
        conv = transform.sparsify(functools.partial(by_lax, spec))
        y = conv(*transform.spvalues_to_arrays(environment, values))
        # until jax ?: the batch axes of a BCOO array cannot move
        y = y.update_layout(n_batch=0) if hasattr(y, "update_layout") else y
        result = y.transpose((0, *range(2, spec.ndim + 2), 1))
        return transform.arrays_to_spvalues(environment, [result])

    transform.sparse_rules_bcoo[primitive] = convolve


# a module, the name in it that a rule is given by, and who gives it
LATE = {
    "jax.experimental.roofline": ("register_roofline", _give_roofline),
    "jax.experimental.sparse.transform": ("sparse_rules_bcoo", _give_sparsify),
}
