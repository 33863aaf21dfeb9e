"""Grouped convolution as one dense convolution per group.

    y[…, g, :] = conv(x[…, g, :], w[…, g, :])

Cost: that of the dense convolutions inside, plus splitting the channels by group and joining them.
Wins for a handful of wide groups where there is no oneDNN; for few channels a group `broadcast` needs no
product at all, and for many groups of middling width the batched product of `im2col` wins.  In 3-D
`unrolled` is the best to compute each group with.

Source of groups: Krizhevsky, Sutskever & Hinton, 2012; Xie et al. (ResNeXt), 2017.
"""

import functools

import jax
import jax.numpy as jnp

from jconv.algorithms.derived import Compute
from jconv.algorithms.record import Algorithm, Loop, Repeated, Step, evaluate
from jconv.algorithms.work import steps_inside
from jconv.algorithms.work import workspace as workspace_of
from jconv.algorithms.xla import XLA
from jconv.spec import ConvSpec, Role

MAX_GROUPS = 32  # 32 convolutions compile in 1 s


def per_group(inner: Algorithm) -> Algorithm:
    """Every group computed with `inner`."""

    def one(spec: ConvSpec) -> ConvSpec:
        return spec.replace(groups=1, in_channels=spec.c, out_channels=spec.o)

    def computed(role: Role) -> Compute:
        def each(a: jax.Array, b: jax.Array, spec: ConvSpec) -> jax.Array:
            cut = functools.partial(jnp.split, indices_or_sections=spec.groups, axis=-1)
            groups = [evaluate(inner, role, *pair, one(spec)) for pair in zip(cut(a), cut(b), strict=True)]
            return jnp.concatenate(groups, axis=-1)

        return each

    def rejects(spec: ConvSpec) -> str | None:
        if spec.groups == 1 and inner is not XLA:
            return f"one group: that is {inner.name!r}"
        if spec.groups > MAX_GROUPS:
            return f"{spec.groups} groups would be as many convolutions; it takes at most {MAX_GROUPS}"
        return inner.rejects(one(spec))

    def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
        return Repeated(steps_inside(inner, role, one(spec)), spec.groups), Loop(0, spec.image_bytes)

    def workspace(spec: ConvSpec, role: Role) -> int:
        """Bytes of the channels split by group, of the results to be joined, and of two groups at a time."""
        return spec.image_bytes + 2 * workspace_of(inner, role, one(spec))

    return Algorithm(
        "per_group", computed("forward"), rejects, steps, workspace,
        computed("grad_input"), computed("grad_kernel"), inner.exact, variant=f"{inner.name} inside",
    )  # fmt: skip
