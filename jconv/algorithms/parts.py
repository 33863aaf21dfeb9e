"""Any algorithm, some images of the batch at a time, so that its temporaries stay under a bound.

    forward, grad_input   image by image the same, each part written where it belongs
    grad_kernel           the sum of what the parts give

Cost: that of the algorithm on each part, one after the other, and a copy of the images.  "auto" takes it
where all images at once would need too much memory: without it a 3-D U-Net of batch 8 was left to XLA's
naive loop in its transposed layers, 20 s for a forward pass instead of 2.7 (2026-11, Intel Xeon, 2 cores).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithm import Algorithm, Loop, Step, refuses, run, steps_inside
from jconv.algorithm import workspace as workspace_of
from jconv.spec import ConvSpec, Role


def in_parts(inner: Algorithm, role: Role, images: int) -> Algorithm:
    """`inner` for one role, so many images at a time; they divide the batch."""
    how = functools.partial(_summed if role == "grad_kernel" else _each, inner, role, images)

    def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
        count = spec.batch // images
        return *(steps_inside(inner, role, _part(spec, images)) * count), Loop(0, 2 * spec.image_bytes)

    def workspace(spec: ConvSpec, role: Role) -> int:
        part = _part(spec, images)
        return part.image_bytes + workspace_of(inner, role, part)

    return Algorithm(
        inner.name, how if role == "forward" else inner.forward, lambda spec: refuses(inner, role, spec),
        steps, workspace, how if role == "grad_input" else None, how if role == "grad_kernel" else None,
        inner.exact, inner.amplification, inner.reads_planes,
    )  # fmt: skip


def _part(spec: ConvSpec, images: int) -> ConvSpec:
    return spec.replace(batch=images)


def _each(inner: Algorithm, role: Role, images: int, a: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    def one(i: jax.Array, whole: jax.Array) -> jax.Array:
        some = lax.dynamic_slice_in_dim(a, i * images, images)
        done = run(inner, role, some, w, _part(spec, images))
        return lax.dynamic_update_slice_in_dim(whole, done, i * images, 0)

    return lax.fori_loop(0, spec.batch // images, one, jnp.zeros(*spec.result(role)))


def _summed(
    inner: Algorithm, role: Role, images: int, x: jax.Array, g: jax.Array, spec: ConvSpec
) -> jax.Array:
    part = _part(spec, images).replace(w_dtype=spec.accumulator)

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        some_x, some_g = (lax.dynamic_slice_in_dim(a, i * images, images) for a in (x, g))
        return total + run(inner, role, some_x, some_g, part)

    return lax.fori_loop(0, spec.batch // images, add, jnp.zeros(spec.w_shape, spec.accumulator))
