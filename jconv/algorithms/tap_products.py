"""Tap by tap: one product for each tap of a kernel that is larger than the images, read as it lies.

    z[r, n·t, o]  = Σ_c x[n·t, c] · w[r, c, o]           all taps as one batch of products
    y[n, p, o]    = Σ_r z[r, n, t, o]  over  t·L = p − lo + r·dilation      put back where the taps fall

Every other algorithm first flips the taps of a transposed convolution's kernel, swaps its channels or cuts
out its phases, which takes longer than all the arithmetic where an image has fewer pixels than channels, as
in the first layers of a generator (4×4 of stride 2 on 4², batch 1: 512→256 0.8 ms by these products, by
XLA's own convolution 1.7; 1024→512 3.5 and 13; its input gradient 1.0 and 3.2, the kernel's 1.1 and 3.2;
2026-11, jax 0.10, Intel Xeon, 2 cores).  The gradients read it the same way:

    ∂x[n·t, c] = Σ_r Σ_o g̃[r, n·t, o] · w[r, c, o]      ∂w[r, c, o] = Σ_nt x[n·t, c] · g̃[r, n·t, o]

where g̃[r] is what tap r sees of g.  Loses wherever the images are larger: x is repeated for every tap.
Without a stride `im2col` reads the kernel as it lies, in one product.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jconv.algorithm import Algorithm, Gemm, Loop, Step
from jconv.algorithms.gemm import product
from jconv.algorithms.windows import TAPS_AT_ONCE, pad, positions, put_together, tap
from jconv.spec import ConvSpec, Role, itemsize


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y: the product of every input with every tap, added up where the taps fall."""
    z = product(_repeated(x, spec), w.reshape(spec.taps, spec.c, spec.o), spec)
    z = z.reshape(spec.taps, spec.batch, *spec.spatial, spec.o)
    return put_together(reversed(list(z)), spec.as_grad_input())


def grad_input(g: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂x: what every tap sees of g times the tap, summed; the kernel is read faster as the left operand."""
    seen = jnp.swapaxes(_seen(g, spec), 1, 2)
    x = jnp.sum(product(w.reshape(spec.taps, spec.c, spec.o), seen, spec), axis=0)
    return jnp.moveaxis(x.reshape(spec.c, spec.batch, *spec.spatial), 0, -1)


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w: every input times what every tap sees of g."""
    return product(jnp.swapaxes(_repeated(x, spec), 1, 2), _seen(g, spec), spec).reshape(spec.w_shape)


def _repeated(x: jax.Array, spec: ConvSpec) -> jax.Array:
    """x for every tap: (r, n·t, c)."""
    x = x.reshape(-1, spec.c)
    return jnp.broadcast_to(x, (spec.taps, *x.shape))


def _seen(g: jax.Array, spec: ConvSpec) -> jax.Array:
    """What the taps see of g: (r, n·t, o)."""
    strided = spec.as_grad_input()
    padded = pad(g, strided)
    taps = [tap(padded, at, strided) for at in positions(strided)]
    return jnp.stack(taps[::-1]).reshape(spec.taps, -1, spec.o)


FEW = 64  # pixels; with 98 pixels of 256 channels, rearranging the kernel is faster in the gradients


def rejects(spec: ConvSpec) -> str | None:
    if all(d == 1 for d in spec.lhs_dilation):
        return "the input is not dilated: 'im2col' reads the kernel as it lies"
    if any(s != 1 for s in spec.strides) or spec.groups > 1:
        return f"stride {spec.strides}, {spec.groups} groups; it takes stride 1 and one group"
    if spec.taps > TAPS_AT_ONCE:
        return f"{spec.taps} taps are as many products; it takes at most {TAPS_AT_ONCE}"
    pixels = spec.batch * math.prod(spec.spatial)
    if not isinstance(pixels, int) or pixels > FEW:
        return f"{pixels} pixels, repeated for every tap; it takes at most {FEW}"
    return None


def own(spec: ConvSpec, role: Role) -> bool:
    return rejects(spec) is None


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    m, c, o, size = spec.batch * math.prod(spec.spatial), spec.c, spec.o, itemsize(spec.accumulator)
    x, z = (spec.taps * m * channels * size for channels in (c, o))
    if role == "grad_input":
        return Loop(0, 2 * z, o), Gemm(spec.taps, c, m, o, transposed=True), Loop(0, 2 * x, m)
    if role == "grad_kernel":
        return Loop(0, 2 * (x + z), o), Gemm(spec.taps, c, o, m, transposed=True)
    asked = Loop(spec.taps * math.prod(spec.y_shape), z, o)  # tests at every output which taps fall on it
    return Loop(0, 2 * x, c), Gemm(spec.taps, m, o, c), asked


def workspace(spec: ConvSpec, role: Role) -> int:
    rows = spec.taps * spec.batch * math.prod(spec.spatial)
    return rows * (spec.c + spec.o) * itemsize(spec.accumulator) + spec.image_bytes


TAP_PRODUCTS = Algorithm(
    "tap_products",
    forward,
    rejects,
    steps,
    workspace,
    grad_input=grad_input,
    grad_kernel=grad_kernel,
    own=own,
)
