"""Interpreters of JAX that ask for a rule of their own, and get one for the three bilinear primitives.

jvp, transpose, vmap and lowering are in `primitives.py`; jit, scan, cond, checkpoint, `custom_vjp` and
`jax.export` work on any primitive.  Besides there are

    jet        Taylor series.  Of a bilinear map they are a product of polynomials:
               (Σ aⱼ tʲ)·(Σ bⱼ tʲ) = Σ (Σᵢ aᵢ·bⱼ₋ᵢ) tʲ
    checkify   its float checks ask of every result whether it is NaN
    roofline   operations and bytes
    sparsify   BCOO arrays, as far as JAX convolves them itself

The first two cost nothing to import.  The others bring SciPy and more, so their rules are given as soon as
they are met: whoever uses one has imported it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from typing import Any

import jax
from jax import lax
from jax.experimental.jet import jet_rules

from jconv.runtime.private import checks_for_nans
from jconv.spec import ConvSpec, Role

_MET: set[str] = set()


def give_rules(primitive: Any) -> None:
    """Rules for the interpreters that are always there."""
    jet_rules[primitive] = functools.partial(_taylor, primitive)
    checks_for_nans(primitive)


def meet(primitives: Mapping[Role, Any]) -> None:
    """Rules for the interpreters that have been imported since."""
    for name, give in LATE.items():
        if name not in _MET and name in sys.modules:
            for role, primitive in primitives.items():
                give(sys.modules[name], role, primitive)
            _MET.add(name)


def _taylor(primitive: Any, primals: Any, series: Any, **params: Any) -> tuple[jax.Array, list[jax.Array]]:
    a, b = ([primal, *terms] for primal, terms in zip(primals, series, strict=True))
    product = functools.partial(primitive.bind, **params)
    first, *rest = (sum(product(a[i], b[j - i]) for i in range(j + 1)) for j in range(len(a)))
    return first, rest


def _give_roofline(roofline: Any, role: Role, primitive: Any) -> None:
    def work(ctx: Any, *_: Any, spec: ConvSpec, **__: Any) -> Any:
        return roofline.RooflineResult(unfused_flops=spec.flops, unfused_hbm_bytes=spec.bytes)

    roofline.register_roofline(primitive)(work)


def _give_sparsify(transform: Any, role: Role, primitive: Any) -> None:
    def convolve(environment: Any, *values: Any, spec: ConvSpec, **__: Any) -> Any:
        if role != "forward":
            raise NotImplementedError(f"{role} of sparse arrays; differentiate a function of dense ones")
        conv = transform.sparsify(functools.partial(_channels_first, spec))
        y = conv(*transform.spvalues_to_arrays(environment, values))
        # until jax ?: the batch axes of a BCOO array cannot move
        y = y.update_layout(n_batch=0) if hasattr(y, "update_layout") else y
        result = y.transpose((0, *range(2, spec.ndim + 2), 1))
        return transform.arrays_to_spvalues(environment, [result])

    transform.sparse_rules_bcoo[primitive] = convolve


def _channels_first(spec: ConvSpec, x: jax.Array, w: jax.Array) -> jax.Array:
    """lax's convolution in the layout in which JAX convolves sparse arrays."""
    n = spec.ndim
    return lax.conv_general_dilated(
        x.transpose(0, n + 1, *range(1, n + 1)), w.transpose(n + 1, n, *range(n)), spec.strides, spec.padding,
        spec.lhs_dilation, spec.rhs_dilation, feature_group_count=spec.groups,
    )  # fmt: skip


LATE = {"jax.experimental.roofline": _give_roofline, "jax.experimental.sparse.transform": _give_sparsify}
