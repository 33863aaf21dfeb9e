"""Patchify: windows that tile the image (stride = kernel), so unrolling is a reshape.

    x[n, p·k + r, c]  =  columns[n, p, r, c]        y[n·p, o] = columns · w

Cost: one transposed copy of the input and one GEMM; im2col without the blow-up.  Always wins where it
applies; grad_input puts the columns back the same way, since no two windows overlap.

Source: Dosovitskiy et al., "An image is worth 16×16 words", 2021 (the patch embedding).
"""

from __future__ import annotations

import jax
from jax import lax

from jconv.algorithm import Algorithm, Gemm, Loop, Step
from jconv.algorithms.gemm import product, transposed_product
from jconv.algorithms.windows import interleaving, pad
from jconv.spec import ConvSpec, Role, itemsize


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """Columns times kernel."""
    return product(_columns(x, spec), w.reshape(-1, spec.o), spec)


def grad_input(g: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """g times the kernel transposed: the gradient of the columns, put back in place."""
    w = lax.optimization_barrier(w.reshape(-1, spec.o).T)
    columns = product(g.reshape(-1, spec.o), w, spec).astype(spec.x_dtype)
    n = spec.ndim
    columns = columns.reshape(spec.batch, *spec.out_spatial, *spec.kernel, spec.c)
    tiles = columns.transpose(0, *interleaving(n), 2 * n + 1)
    tiles = tiles.reshape(spec.batch, *_tiled(spec), spec.c)
    sizes = zip(spec.padding, spec.spatial, _tiled(spec), strict=True)
    config = [(0, 0, 0), *((-lo, h + lo - tiled, 0) for (lo, _), h, tiled in sizes), (0, 0, 0)]
    return lax.pad(tiles, lax.full((), 0, tiles.dtype), config)


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """Columns transposed times g."""
    return transposed_product(_columns(x, spec), g.reshape(-1, spec.o), spec)


def _tiled(spec: ConvSpec) -> list[int]:
    return [p * k for p, k in zip(spec.out_spatial, spec.kernel, strict=True)]


def _columns(x: jax.Array, spec: ConvSpec) -> jax.Array:
    n = spec.ndim
    pairs = [size for pair in zip(spec.out_spatial, spec.kernel, strict=True) for size in pair]
    tiles = pad(x, spec).reshape(spec.batch, *pairs, spec.c)
    columns = tiles.transpose(0, *range(1, 2 * n, 2), *range(2, 2 * n + 1, 2), 2 * n + 1)
    return columns.reshape(-1, spec.taps * spec.c)


def rejects(spec: ConvSpec) -> str | None:
    if spec.strides != spec.kernel:
        return f"stride {spec.strides} is not the kernel {spec.kernel}: the windows do not tile"
    if spec.groups != 1:
        return f"{spec.groups} groups; it multiplies all channels with all"
    if any(d != 1 for d in (*spec.rhs_dilation, *spec.lhs_dilation)):
        return "dilation: the windows do not tile"
    return None


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    k = spec.taps * spec.c
    columns = spec.positions * k * itemsize(spec.x_dtype)
    m, n, k = {
        "forward": (spec.positions, spec.o, k),
        "grad_input": (spec.positions, k, spec.o),
        "grad_kernel": (k, spec.o, spec.positions),
    }[role]
    return Loop(0, columns), Gemm(1, m, n, k)


def workspace(spec: ConvSpec, role: Role) -> int:
    return 2 * spec.positions * spec.taps * spec.c * itemsize(spec.x_dtype)


PATCHIFY = Algorithm(
    "patchify", forward, rejects, steps, workspace, grad_input=grad_input, grad_kernel=grad_kernel
)
