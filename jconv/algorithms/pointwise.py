"""1×1 convolution: a matrix product over the channels, nothing else.

    y[n·p, o] = Σ_c x[n·p, c] · w[c, o]

Cost: one GEMM.  Always wins where it applies (one tap, one group); with a stride the input is
subsampled first, with padding it is framed by zeros.

Source: Lin, Chen & Yan, "Network in network", 2014.
"""

from __future__ import annotations

import jax
from jax import lax

from jconv.algorithm import Algorithm, Gemm, Loop, Step
from jconv.algorithms.gemm import product, transposed_product
from jconv.algorithms.windows import pad, tap
from jconv.spec import ConvSpec, Role


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """Positions by channels times channels by channels."""
    return product(_seen(x, spec), w.reshape(spec.c, spec.o), spec)


def grad_input(g: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """g times the kernel transposed, each row put back where it was read."""
    w = lax.optimization_barrier(w.reshape(spec.c, spec.o).T)
    rows = product(g.reshape(-1, spec.o), w, spec).astype(spec.x_dtype)
    rows = rows.reshape(spec.batch, *spec.out_spatial, spec.c)
    return put_back(rows, spec)


def put_back(rows: jax.Array, spec: ConvSpec) -> jax.Array:
    """The transpose of reading every stride-th position of the padded input: zeros in between."""
    config = [
        (-lo, h + lo - (p - 1) * s - 1, s - 1)
        for (lo, _), h, p, s in zip(spec.padding, spec.spatial, spec.out_spatial, spec.strides, strict=True)
    ]
    if all(entry == (0, 0, 0) for entry in config):
        return rows
    return lax.pad(rows, lax.full((), 0, rows.dtype), [(0, 0, 0), *config, (0, 0, 0)])


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """Channels by positions times positions by channels."""
    return transposed_product(_seen(x, spec), g.reshape(-1, spec.o), spec)


def _seen(x: jax.Array, spec: ConvSpec) -> jax.Array:
    return tap(pad(x, spec), (0,) * spec.ndim, spec).reshape(-1, spec.c)


def rejects(spec: ConvSpec) -> str | None:
    if spec.taps != 1:
        return f"the kernel has {spec.taps} taps; pointwise means 1"
    if spec.groups != 1:
        return f"{spec.groups} groups; a product per group is what 'im2col' does"
    if any(d != 1 for d in spec.lhs_dilation):
        return f"the input is dilated by {spec.lhs_dilation}; only 1 is a plain product"
    return None


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    moved = spec.positions * spec.c * 8 if any(s != 1 for s in spec.strides) else 0
    m, n, k = {
        "forward": (spec.positions, spec.o, spec.c),
        "grad_input": (spec.positions, spec.c, spec.o),
        "grad_kernel": (spec.c, spec.o, spec.positions),
    }[role]
    turned = 8 * spec.positions * min(spec.c, spec.o) if role == "grad_kernel" else 0
    return Gemm(1, m, n, k), *([Loop(0, moved + turned, spec.c)] if moved + turned else [])


POINTWISE = Algorithm("pointwise", forward, rejects, steps, grad_input=grad_input, grad_kernel=grad_kernel)
