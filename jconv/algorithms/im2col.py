"""Explicit GEMM: unroll the patches into columns, multiply once, reshape.

    y[g, n·p, o] = Σ_{r, c} columns[g, n·p, r·c] · w[g, r·c, o]        one product per group, batched

Cost: one GEMM of (n·p) × (r·c) × o per group, after writing every input value once per tap, piece by piece
(`pieces`).  ∂w is columnsᵀ · g; ∂x is g · wᵀ, the gradient of the columns, added up where they were read
(col2im), which reads the kernel as it lies; one that lies swapped, as in a transposed convolution, is read
and written by a product per tap.  Wins for small kernels over many channels, where the GEMM dwarfs the copy,
for dtypes that XLA has no fast convolution for (integers, complex), and for kernels under vmap; loses where
the copy is the work (depthwise, large images with few channels).

Source: Chellapilla, Puri & Simard, "High performance convolutional neural networks for document
processing", 2006.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms import pieces
from jconv.algorithms.gemm import LINE, by_rows, product, takes, transposed_product
from jconv.algorithms.record import Algorithm, Gemm, Loop, Repeated, Step
from jconv.algorithms.windows import (
    MOST_CALLS,
    WRITTEN_OUT,
    columns_bytes,
    each_group,
    groups_as_batch,
    overlap_add,
    padded_bytes,
    patches,
    put_together,
    stacked_taps,
)
from jconv.algorithms.work import splitting
from jconv.spec import ConvSpec, Role

ASKED = 9  # taps up to which, with a stride, all are added in one loop


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y: the columns times the kernel, piece by piece."""
    w, part = _matrices(w, spec), pieces.cut(spec, columns_bytes(spec))

    def compute(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(product(columns(x, part), w, part), 0, 1).reshape(part.y_shape)

    return pieces.mapped(compute, x, spec, part)


def grad_input(g: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂x: g times the kernel transposed, added up where it was read, tap by tap or axis by axis."""
    each = each_group(spec)
    taps = _gradient_of_columns(g, w, spec).reshape(spec.taps, each.batch, *spec.out_spatial, spec.c)
    if _is_by_axis(spec):
        taps = taps.reshape(*spec.kernel, each.batch, *spec.out_spatial, spec.c)
        x = overlap_add(jnp.moveaxis(taps, range(spec.ndim), range(-1 - spec.ndim, -1)), each)
    else:
        x = put_together(taps, spec)
    x = x.reshape(spec.groups, spec.batch, *spec.spatial, spec.c)
    return jnp.moveaxis(x, 0, -2).reshape(spec.x_shape)


def _gradient_of_columns(g: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """(r, g, n·p, c): g times the kernel transposed, in one product for all taps or, where the kernel lies
    swapped, in one for every tap."""
    if reads_swapped(spec, "grad_input"):
        w = jnp.swapaxes(w, -1, -2).reshape(spec.taps, spec.o, spec.c)
        return lax.optimization_barrier(product(g.reshape(1, -1, spec.o), w, spec))
    taps = lax.optimization_barrier(by_rows(_matrices(g, spec), _matrices(w, spec), spec))
    return jnp.moveaxis(taps.reshape(spec.groups, spec.positions, spec.taps, spec.c), 2, 0)


def _is_by_axis(spec: ConvSpec) -> bool:
    """Whether taps are added along one axis after the other: with a stride, and too many of them to be tested
    at every pixel."""
    return spec.is_strided and spec.taps > ASKED


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w: the columns transposed times g, summed over the pieces."""
    part = pieces.cut(spec, columns_bytes(spec))

    def compute(x: jax.Array, g: jax.Array) -> jax.Array:
        if not reads_swapped(part, "grad_kernel"):
            w = transposed_product(columns(x, part), _matrices(g, part), part)
            return jnp.moveaxis(w, 0, 1).reshape(part.w_shape)
        seen = stacked_taps(x, part).reshape(part.taps, -1, part.c)
        w = transposed_product(g.reshape(1, -1, part.o), seen, part)  # (r, o, c), as the kernel lies
        return jnp.swapaxes(w.reshape(*part.kernel, part.o, part.c), -1, -2)

    return pieces.summed(compute, x, g, spec, part)


def _matrices(a: jax.Array, spec: ConvSpec) -> jax.Array:
    """w or g (…, g·o) → (g, …, o), a matrix for each group: (g, r·c, o) or (g, n·p, o)."""
    return jnp.moveaxis(a.reshape(-1, spec.groups, spec.o), 1, 0)


def columns(x: jax.Array, spec: ConvSpec) -> jax.Array:
    """(g, n·p, r·c): the patches of each group, one a row."""
    return patches(*groups_as_batch(x, spec)).reshape(spec.groups, spec.positions, spec.taps * spec.c)


def own(spec: ConvSpec, role: Role) -> bool:
    """Whether the gradient given here is used: always for the kernel, for the input if it is not dilated and
    its columns are few."""
    if role == "grad_kernel":
        return True
    size = columns_bytes(spec)
    few = isinstance(size, int) and size <= pieces.IN_CACHE
    return few and not spec.has_gaps and 1 <= spec.taps <= WRITTEN_OUT


def reads_swapped(spec: ConvSpec, role: Role) -> bool:
    """Whether a gradient reads or writes a kernel that lies swapped so, in a product for every tap: by
    oneDNN, which reads g again for each, if a tap's product is not too narrow."""
    if role == "forward" or not spec.kernel_swapped or spec.channels_first:
        return False
    if spec.groups > 1 or spec.c < LINE or not 1 <= spec.taps <= WRITTEN_OUT:
        return False
    g, w = (1, spec.positions, spec.o), (spec.taps, spec.o, spec.c)
    return takes(g, w, spec.c, spec.y_dtype, spec)


def rejects(spec: ConvSpec) -> str | None:
    if sum(spec.kernel) > MOST_CALLS:
        return f"the columns of a {spec.kernel} kernel are {sum(spec.kernel)} slices; it takes {MOST_CALLS}"
    return None


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    part = pieces.cut(spec, columns_bytes(spec))
    count = math.prod(pieces.counts(spec, part))
    m, k = part.positions, spec.taps * spec.c
    moved = math.prod(part.x_shape) + math.prod(part.y_shape) if spec.groups > 1 else 0  # split by group
    skips = max(spec.strides, default=1) > 1 and spec.c < LINE
    passes = pieces.passes(spec, part, 2) + skips  # values of a cache line that a stride skips are read, too
    copy = Loop(0, passes * columns_bytes(part) + 8 * moved, spec.c)
    if role == "grad_input":
        return *splitting(spec), Gemm(spec.groups, m, k, spec.o), *_putting_back(spec), copy
    rows = (spec.taps, spec.c) if reads_swapped(part, role) else (spec.groups, k)
    multiplied = Gemm(spec.groups, m, spec.o, k) if role == "forward" else Gemm(*rows, spec.o, m)
    return *splitting(spec), Repeated((copy, multiplied), count)


def _putting_back(spec: ConvSpec) -> tuple[Step, ...]:
    """The further steps of grad_input: with a stride, testing at every pixel which taps read it, or adding
    along each axis; and where the channels come first, reading the columns in that order."""
    tested = Loop(spec.taps * 72 * spec.groups * spec.batch * math.prod(spec.spatial), 0)
    added = Loop(0, 2 * columns_bytes(spec), spec.c)
    asked = (added if _is_by_axis(spec) else tested,) if spec.is_strided else ()
    return *asked, *((Loop(0, 8 * columns_bytes(spec), 1),) if spec.channels_first else ())


def workspace(spec: ConvSpec, role: Role) -> int:
    part = pieces.cut(spec, columns_bytes(spec))
    split = spec.kernel_bytes * (spec.groups > 1)
    return split + 2 * columns_bytes(part) + padded_bytes(part) + pieces.workspace(spec, part)


IM2COL = Algorithm(
    "im2col", forward, rejects, steps, workspace,
    grad_input=grad_input, grad_kernel=grad_kernel, own=own, reads_swapped=reads_swapped,
)  # fmt: skip
