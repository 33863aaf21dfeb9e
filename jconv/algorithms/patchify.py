"""Patchify: windows that tile the image (stride = kernel), so unrolling is a reshape.

    x[n, p·k + r, c]  =  columns[n, p, r, c]        y[n·p, o] = columns · w

Cost: one transposed copy of the input and one GEMM; im2col without repeating a value.  Always wins where it
applies; grad_input puts the columns back the same way, since no two windows overlap.  A column is in the
order in which the user's kernel lies, (r, c) or (c, r), so that no large kernel is transposed.

Source: Dosovitskiy et al., "An image is worth 16×16 words", 2021 (the patch embedding).
"""

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms.gemm import product, transposed_product
from jconv.algorithms.record import Algorithm, Gemm, Loop, Step
from jconv.algorithms.windows import MAX_SLICES, columns_bytes, pad, resized
from jconv.spec import ConvSpec, Role
from jconv.spec.layout import inverse


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y: the columns times the kernel."""
    return product(_columns(x, spec), _matrix(w, spec), spec)


def grad_input(g: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂x: g times the kernel transposed, the gradient of the columns, put back in place."""
    w = lax.optimization_barrier(_matrix(w, spec).T)
    columns = product(g.reshape(-1, spec.o), w, spec).astype(spec.x_dtype)
    column = (spec.c, *spec.kernel) if spec.channels_first else (*spec.kernel, spec.c)
    columns = columns.reshape(spec.batch, *spec.out_spatial, *column)
    tiled = [p * k for p, k in zip(spec.out_spatial, spec.kernel, strict=True)]
    x = columns.transpose(inverse(_axes(spec))).reshape(spec.batch, *tiled, spec.c)
    sizes = zip(spec.padding, spec.spatial, tiled, strict=True)
    return resized(x, [(-lo, h + lo - size, 0) for (lo, _), h, size in sizes])


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w: the columns transposed times g."""
    w = transposed_product(_columns(x, spec), g.reshape(-1, spec.o), spec)
    return jnp.moveaxis(w.reshape(spec.c, *spec.kernel, spec.o), 0, -2) if spec.channels_first else w


def _columns(x: jax.Array, spec: ConvSpec) -> jax.Array:
    """(n, p0·r0, p1·r1, …, c) → (n·p, taps·c).  Where the channels come last, the last taps and the channels
    are one run already, but the compiler copies runs only from stacked slices, not in a transposition."""
    pairs = [size for pair in zip(spec.out_spatial, spec.kernel, strict=True) for size in pair]
    tiles = pad(x, spec).reshape(spec.batch, *pairs, spec.c)
    if spec.channels_first or max(spec.kernel[:-1], default=1) > MAX_SLICES:
        return tiles.transpose(_axes(spec)).reshape(-1, spec.taps * spec.c)
    for axis in reversed(range(spec.ndim - 1)):
        tiles = jnp.stack(tuple(jnp.moveaxis(tiles, 2 + 2 * axis, 0)), axis=1 + spec.ndim + axis)
    return tiles.reshape(-1, spec.taps * spec.c)


def _axes(spec: ConvSpec) -> tuple[int, ...]:
    """From tiles (n, p0, r0, p1, r1, …, c) to columns (n, p0, p1, …) of (r0, r1, …, c) or (c, r0, r1, …)."""
    n = spec.ndim
    outs, taps, c = range(1, 2 * n, 2), range(2, 2 * n + 1, 2), 2 * n + 1
    return (0, *outs, c, *taps) if spec.channels_first else (0, *outs, *taps, c)


def _matrix(w: jax.Array, spec: ConvSpec) -> jax.Array:
    """The kernel as a matrix with a column for each output channel."""
    return (jnp.moveaxis(w, -2, 0) if spec.channels_first else w).reshape(-1, spec.o)


def rejects(spec: ConvSpec) -> str | None:
    if spec.strides != spec.kernel:
        return f"stride {spec.strides} is not the kernel {spec.kernel}: the windows do not tile"
    if spec.groups != 1:
        return f"{spec.groups} groups; it multiplies all channels with all"
    if any(d != 1 for d in (*spec.rhs_dilation, *spec.lhs_dilation)):
        return "dilation: the windows do not tile"
    return None


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    rows, k, o = spec.positions, spec.taps * spec.c, spec.o
    m, n, k = {"forward": (rows, o, k), "grad_input": (rows, k, o), "grad_kernel": (k, o, rows)}[role]
    return Loop(0, columns_bytes(spec)), Gemm(1, m, n, k)


def workspace(spec: ConvSpec, role: Role) -> int:
    """Bytes of the columns; of two copies where the channels come first, as one is transposed."""
    return (2 if spec.channels_first else 1) * columns_bytes(spec)


PATCHIFY = Algorithm(
    "patchify", forward, rejects, steps, workspace,
    grad_input=grad_input, grad_kernel=grad_kernel, reads_kernel=True,
)  # fmt: skip
