"""Any algorithm, some images of the batch at a time, so that its temporaries stay under a bound.

    forward, grad_input   images are independent; each chunk is written where it belongs
    grad_kernel           the sum of the gradients of all chunks

Cost: that of the algorithm on each chunk, one after the other, and a copy of the images.  "auto" takes it
where all images at once would need too much memory, as otherwise only XLA's naive loop would be left.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms.record import Algorithm, Loop, Repeated, Step, always, evaluate, refuses
from jconv.algorithms.work import steps_inside
from jconv.algorithms.work import workspace as workspace_of
from jconv.spec import ConvSpec, Role


def in_chunks(inner: Algorithm, role: Role, images: int) -> Algorithm:
    """The algorithm that runs `inner` for one role, `images` at a time, of which the batch is a multiple."""
    how = functools.partial(_summed if role == "grad_kernel" else _each, inner, role, images)

    def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
        count = spec.batch // images
        part = steps_inside(inner, role, spec.replace(batch=images))
        return Repeated(part, count), Loop(0, 2 * spec.image_bytes)

    def workspace(spec: ConvSpec, role: Role) -> int:
        chunk = spec.replace(batch=images)
        return chunk.image_bytes + workspace_of(inner, role, chunk)

    own: dict[str, Any] = {"forward": inner.forward, "grad_input": None, "grad_kernel": None, role: how}
    return dataclasses.replace(
        inner, rejects=lambda spec: refuses(inner, role, spec), steps=steps, workspace=workspace,
        own=always, forms=(), **own,
    )  # fmt: skip


def _each(inner: Algorithm, role: Role, images: int, a: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    chunk = spec.replace(batch=images)

    def one(i: jax.Array, whole: jax.Array) -> jax.Array:
        done = evaluate(inner, role, lax.dynamic_slice_in_dim(a, i * images, images), w, chunk)
        return lax.dynamic_update_slice_in_dim(whole, done, i * images, 0)

    return lax.fori_loop(0, spec.batch // images, one, jnp.zeros(*spec.result(role)))


def _summed(
    inner: Algorithm, role: Role, images: int, x: jax.Array, g: jax.Array, spec: ConvSpec
) -> jax.Array:
    chunk = spec.replace(batch=images, w_dtype=spec.accumulator)
    return summed(lambda x, g: evaluate(inner, role, x, g, chunk), images, x, g, spec)


def summed(compute: Callable, images: int, x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w: the sum over the batch of compute(some images of x, the same of g)."""

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        some_x, some_g = (lax.dynamic_slice_in_dim(a, i * images, images) for a in (x, g))
        return total + compute(some_x, some_g)

    return lax.fori_loop(0, spec.batch // images, add, jnp.zeros(spec.w_shape, spec.accumulator))
