"""Halves through float32, where a library was not verified with them on this processor.

    y = round(Σ float32(x̃) · float32(w))            rounded once, as sums of halves are anyway

Cost: the convolution in float32, and reading halves and writing float32, or back, of all three arrays.  XLA's
own convolution of halves does the same around a slower one.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from jconv.algorithms.derived import Compute
from jconv.algorithms.record import Algorithm, Loop, Step
from jconv.spec import ConvSpec, Role

Applies = Callable[[ConvSpec], bool]


def through_float32(inner: Algorithm, applies: Applies) -> Algorithm:
    """The algorithm that computes specs to which this applies in float32, and all others as they are."""
    bound: Any = functools.partial
    return dataclasses.replace(
        inner,
        forward=bound(_computed, inner.forward, applies),
        grad_input=inner.grad_input and bound(_computed, inner.grad_input, applies),
        grad_kernel=inner.grad_kernel and bound(_computed, inner.grad_kernel, applies),
        rejects=bound(_asked, inner.rejects, applies),
        own=bound(_asked, inner.own, applies),
        reads_channels_first=bound(_asked, inner.reads_channels_first, applies),
        steps=bound(_steps, inner, applies),
        workspace=bound(_workspace, inner, applies),
    )


def _computed(compute: Compute, applies: Applies, a: jax.Array, b: jax.Array, spec: ConvSpec) -> jax.Array:
    if applies(spec):
        a, b, spec = a.astype("float32"), b.astype("float32"), spec.with_dtype("float32")
    return compute(a, b, spec)


def _asked(question: Callable[..., Any], applies: Applies, spec: ConvSpec, *role: Role) -> Any:
    return question(spec.with_dtype("float32") if applies(spec) else spec, *role)


def _steps(inner: Algorithm, applies: Applies, spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    if not applies(spec):
        return inner.steps(spec, role)
    wide = spec.with_dtype("float32")
    return *inner.steps(wide, role), Loop(0, spec.bytes + wide.bytes)


def _workspace(inner: Algorithm, applies: Applies, spec: ConvSpec, role: Role) -> int:
    if not applies(spec):
        return inner.workspace(spec, role)
    wide = spec.with_dtype("float32")
    return inner.workspace(wide, role) + wide.bytes
