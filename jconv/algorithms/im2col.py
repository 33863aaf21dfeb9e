"""Explicit GEMM: unroll the patches into columns, multiply once, reshape.

    y[n, p, g, o] = Σ_{r, c} patches[n, p, r, g, c] · w[r, c, g, o]

Cost: one GEMM of (n·p) × (r·c) × o per group, after writing r copies of the input.  Wins for small
kernels over many channels, where the GEMM dwarfs the copy; loses where the copy is the work
(depthwise, large images with few channels).  grad_kernel is patchesᵀ · g: the same columns again.

Source: Chellapilla, Puri & Simard, "High performance convolutional neural networks for document
processing", 2006.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jconv.algorithm import Algorithm, Gemm, Loop, Step, size_of
from jconv.algorithms.windows import patches
from jconv.spec import ConvSpec, Role, itemsize


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """Columns times kernel."""
    w = w.reshape(spec.taps, spec.c, spec.groups, spec.o)
    return jnp.einsum(
        "nprgc,rcgo->npgo", _columns(x, spec), w,
        precision=spec.precision, preferred_element_type=spec.accumulator,
    )  # fmt: skip


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """Columns transposed times the output gradient."""
    g = g.reshape(spec.batch, -1, spec.groups, spec.o)
    return jnp.einsum(
        "nprgc,npgo->rcgo", _columns(x, spec), g,
        precision=spec.precision, preferred_element_type=spec.accumulator,
    )  # fmt: skip


def _columns(x: jax.Array, spec: ConvSpec) -> jax.Array:
    return patches(x, spec).reshape(spec.batch, -1, spec.taps, spec.groups, spec.c)


def columns_bytes(spec: ConvSpec) -> int:
    """Bytes of the column matrix."""
    return spec.positions * spec.taps * spec.in_channels * itemsize(spec.x_dtype)


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    copy = Loop(0, 2 * columns_bytes(spec))
    gemm = Gemm(spec.groups, spec.positions, spec.o, spec.taps * spec.c)
    if role == "grad_kernel":
        gemm = Gemm(spec.groups, spec.taps * spec.c, spec.o, spec.positions)
    return copy, gemm


def workspace(spec: ConvSpec, role: Role) -> int:
    return columns_bytes(spec) + size_of(spec.x_shape) * itemsize(spec.x_dtype)


IM2COL = Algorithm(
    "im2col", forward, steps=steps, workspace=workspace, grad_kernel=grad_kernel
)
