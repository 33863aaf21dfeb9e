"""Grouped convolution as fewer, larger dense ones.

    per_group   y[…, g, :] = conv(x[…, g, :], w[…, g, :])     one dense convolution per group
    merged      m neighbouring groups as one with a block-diagonal kernel: m times the flops, G/m calls

Cost: that of the dense convolutions inside, plus splitting the channels by group and joining them.
per_group wins for a handful of wide groups, merged where a group is narrower than a vector register
is long (32 groups of 4, 3×3 on 56²: 0.83 ms with m = 4, 2.6 ms per group, 2026-11, AMD EPYC); for one
or two channels a group, `broadcast` needs no product at all, and for many groups of middling width
the batched product of `im2col` wins.  In 3-D `unrolled` is the best to compute each group with (16
groups of 64→16, 3×3×3 of stride 2 on 4×28²: 5.9 ms, by xla per group 19.5, 2026-11, Intel Xeon).

**NaN and Inf.**  In a merged group the other groups' inputs meet a zero of the kernel, and 0·NaN is NaN: a
NaN or Inf in x (or g) reaches the outputs of all groups merged with its own, at the places that see it.
Finite numbers are summed as exactly as by the algorithm inside.

Source of groups: Krizhevsky, Sutskever & Hinton, 2012; Xie et al. (ResNeXt), 2017.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from jconv.algorithm import Algorithm, Loop, Run, Step, run
from jconv.spec import ConvSpec, Role, itemsize
from jconv.work import steps_inside
from jconv.work import workspace as workspace_of

MAX_GROUPS = 32  # 32 convolutions compile in 1 s


def one_group(spec: ConvSpec) -> ConvSpec:
    """The dense convolution that each group is."""
    return spec.replace(groups=1, in_channels=spec.c, out_channels=spec.o)


def _each(inner: Algorithm, role: Role, a: jax.Array, b: jax.Array, spec: ConvSpec) -> jax.Array:
    sub = one_group(spec)
    cut = functools.partial(jnp.split, indices_or_sections=spec.groups, axis=-1)
    parts = [run(inner, role, *pair, sub) for pair in zip(cut(a), cut(b), strict=True)]
    return jnp.concatenate(parts, axis=-1)


def _rejects_each(inner: Algorithm, spec: ConvSpec) -> str | None:
    if spec.groups > MAX_GROUPS:
        return f"{spec.groups} groups would be as many convolutions; it takes at most {MAX_GROUPS}"
    return inner.rejects(one_group(spec))


def _steps_each(inner: Algorithm, spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    moved = Loop(0, (math.prod(spec.x_shape) + math.prod(spec.y_shape)) * itemsize(spec.x_dtype))
    return *(steps_inside(inner, role, one_group(spec)) * spec.groups), moved


def _workspace_each(inner: Algorithm, spec: ConvSpec, role: Role) -> int:
    """Bytes of the channels split by group, of the results to be joined, and of two groups at a time."""
    return spec.image_bytes + 2 * workspace_of(inner, role, one_group(spec))


def per_group(inner: Algorithm) -> Algorithm:
    """The algorithm that computes every group with `inner`."""
    return Algorithm(
        f"per_group_{inner.name}",
        functools.partial(_each, inner, "forward"),
        functools.partial(_rejects_each, inner),
        functools.partial(_steps_each, inner),
        functools.partial(_workspace_each, inner),
        functools.partial(_each, inner, "grad_input"),
        functools.partial(_each, inner, "grad_kernel"),
        inner.exact,
    )


# -- merged ----------------------------------------------------------------------------------------

WIDTH = 16  # channels of a merged group: one AVX-512 register of float32


def _together(spec: ConvSpec) -> int:
    """How many groups to merge: the largest divisor that keeps a merged group within WIDTH."""
    wanted = max(1, WIDTH // max(spec.c, spec.o))
    return max(m for m in range(1, wanted + 1) if spec.groups % m == 0)


def merged_spec(spec: ConvSpec) -> ConvSpec:
    """The same channels in fewer groups."""
    return spec.replace(groups=spec.groups // _together(spec))


def block_diagonal(w: jax.Array, spec: ConvSpec) -> jax.Array:
    """(*k, c, g·m·o) → (*k, m·c, g·m·o), zero where input and output come from different groups."""
    m = _together(spec)
    w = w.reshape(*spec.kernel, 1, spec.c, spec.groups // m, m, spec.o)
    own = jnp.eye(m, dtype=bool).reshape(m, 1, 1, m, 1)
    return jnp.where(own, w, jnp.zeros((), w.dtype)).reshape(merged_spec(spec).w_shape)


def diagonal(w: jax.Array, spec: ConvSpec) -> jax.Array:
    """The transpose of `block_diagonal`: the blocks on the diagonal."""
    m = _together(spec)
    w = w.reshape(-1, m, spec.c, spec.groups // m, m, spec.o)
    w = jnp.diagonal(w, axis1=1, axis2=4)  # (r, c, g, o, m)
    return jnp.swapaxes(w, -1, -2).reshape(spec.w_shape)


def merged(inner: Algorithm) -> Algorithm:
    """The algorithm that merges groups and hands the rest to `inner`."""

    def rejects(spec: ConvSpec) -> str | None:
        if _together(spec) == 1:
            return f"no two of the {spec.groups} groups of {spec.c} fit into {WIDTH} channels"
        return inner.rejects(merged_spec(spec))

    forward: Run = lambda x, w, spec: run(  # noqa: E731
        inner, "forward", x, block_diagonal(w, spec), merged_spec(spec)
    )
    grad_input: Run = lambda g, w, spec: run(  # noqa: E731
        inner, "grad_input", g, block_diagonal(w, spec), merged_spec(spec)
    )
    grad_kernel: Run = lambda x, g, spec: diagonal(  # noqa: E731
        run(inner, "grad_kernel", x, g, merged_spec(spec)), spec
    )
    return Algorithm(
        f"merged_{inner.name}", forward, rejects,
        lambda spec, role: steps_inside(inner, role, merged_spec(spec)),
        lambda spec, role: workspace_of(inner, role, merged_spec(spec)),
        grad_input, grad_kernel, exact=False,
    )  # fmt: skip
