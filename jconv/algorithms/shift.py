"""Implicit GEMM: one tap at a time, no patches.

    y[n, p, g, o] = Σ_r ( x̃[n, r + p·stride, g, c] · w[r, c, g, o] )     one GEMM per tap

Cost: as many GEMMs of (n·p) × c × o as there are taps, each reading a shifted view of the same input,
accumulated in the output.  Wins where c is wide enough to fill a GEMM by itself and the columns of im2col
would not fit the cache; loses where c is small.

Source: Cho & Brand, "MEC"; Anderson et al., "Low-memory GEMM-based convolution algorithms", 2017.
"""

import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms.gemm import product, transposed_product
from jconv.algorithms.record import Algorithm, Gemm, Loop, Step
from jconv.algorithms.windows import MOST_CALLS, groups_as_batch, pad, padded_bytes, positions, tap
from jconv.algorithms.work import splitting
from jconv.spec import ConvSpec, Ints, Role, itemsize


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y: the sum over taps of what each sees times its matrix, all groups in one batched product."""
    w = jnp.moveaxis(w.reshape(*spec.kernel, spec.c, spec.groups, spec.o), -2, spec.ndim)
    terms = (product(view, w[at], spec) for at, view in _views(x, spec))
    return jnp.moveaxis(functools.reduce(lax.add, terms), 0, 1).reshape(spec.y_shape)


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w: for each tap, what it sees of x, transposed, times g."""
    g = jnp.moveaxis(g.reshape(-1, spec.groups, spec.o), 1, 0)
    taps = [transposed_product(view, g, spec) for _, view in _views(x, spec)]
    return jnp.moveaxis(jnp.stack(taps), 1, 2).reshape(spec.w_shape)


def _views(x: jax.Array, spec: ConvSpec) -> Iterator[tuple[Ints, jax.Array]]:
    """Every tap, and what it sees of each group: (g, n·p, c)."""
    x, each = groups_as_batch(x, spec)
    padded = pad(x, each)
    return ((at, tap(padded, at, each).reshape(spec.groups, -1, spec.c)) for at in positions(spec))


def rejects(spec: ConvSpec) -> str | None:
    if spec.taps > MOST_CALLS:
        return f"{spec.taps} taps would be {spec.taps} matrix products; it takes at most {MOST_CALLS}"
    return None


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    count = spec.taps * spec.groups
    moved = 8 * (math.prod(spec.x_shape) + math.prod(spec.y_shape))
    apart = (Loop(0, moved, spec.c), *splitting(spec)) if spec.groups > 1 else ()
    if role == "grad_kernel":
        cut = Loop(0, 12 * spec.positions * spec.c * count, spec.c)
        return Gemm(count, spec.c, spec.o, spec.positions), cut, *apart
    partial = 3 * spec.wide.y_bytes
    return (Gemm(count, spec.positions, spec.o, spec.c), Loop(0, partial, count=spec.taps - 1), *apart)


def workspace(spec: ConvSpec, role: Role) -> int:
    """Bytes of the padded copy, and of what every tap sees, as the compiler may slice all of it first."""
    seen = spec.positions * spec.in_channels * itemsize(spec.x_dtype)
    return padded_bytes(spec) + (spec.taps * seen if spec.taps > 1 else 0)


SHIFT = Algorithm("shift", forward, rejects, steps, workspace, grad_kernel=grad_kernel)
