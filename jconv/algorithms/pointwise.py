"""1×1 convolution: a matrix product over the channels, nothing else.

    y[n·p, o] = Σ_c x[n·p, c] · w[c, o]            pixels side by side with their channels
    y[n, o, p] = Σ_c w[c, o] · x[n, c, p]          image by image, where the channels come first

Cost: one GEMM, in the order in which the arrays lie, so that none is transposed: in NCHW that takes a fifth
of the time of the way via channels last.  Always wins where it applies (one tap, one group); with a stride
the input is subsampled first, with padding it is framed by zeros.

Source: Lin, Chen & Yan, "Network in network", 2014.
"""

import math

import jax
import jax.numpy as jnp

from jconv.algorithms.gemm import as_they_lie, by_image, by_rows, product, transposed_product
from jconv.algorithms.record import Algorithm, Gemm, Loop, Step
from jconv.algorithms.windows import from_planes, pad, planes, put_back, tap
from jconv.spec import ConvSpec, Role, itemsize


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y: the pixels that are read, a row of channels each, times the kernel."""
    x = _seen(x, spec)
    if not spec.channels_first:
        return product(x.reshape(-1, spec.c), w.reshape(spec.c, spec.o), spec)
    return from_planes(as_they_lie(_rows(w, spec), planes(x), spec), spec.out_spatial)


def grad_input(g: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂x: g times the kernel transposed, each row put back where it was read."""
    if spec.channels_first:
        rows = from_planes(as_they_lie(_rows(w, spec), planes(g), spec, "grad_input"), spec.out_spatial)
    else:
        rows = by_rows(g.reshape(-1, spec.o), w.reshape(spec.c, spec.o), spec)
    rows = rows.reshape(spec.batch, *spec.out_spatial, spec.c).astype(spec.x_dtype)
    return put_back(rows, (0,) * spec.ndim, spec)


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w: the pixels that are read, transposed, times g."""
    x = _seen(x, spec)
    if not spec.channels_first:
        return transposed_product(x.reshape(-1, spec.c), g.reshape(-1, spec.o), spec)
    x, g = planes(x), planes(g)
    if summed_by_image(spec):
        w = by_rows(g, x, spec).sum(0)
    else:
        w = jnp.einsum("nop,ncp->oc", g, x, precision=spec.precision, preferred_element_type=spec.accumulator)
    return jnp.swapaxes(w.reshape(*spec.kernel, spec.o, spec.c), -1, -2)


def _rows(w: jax.Array, spec: ConvSpec) -> jax.Array:
    """The kernel as (o, c), the order in memory of a user's OIHW kernel."""
    return jnp.swapaxes(w, -1, -2).reshape(spec.o, spec.c)


def _seen(x: jax.Array, spec: ConvSpec) -> jax.Array:
    """(n, *p, c): the pixels that an output reads."""
    return tap(pad(x, spec), (0,) * spec.ndim, spec)


def summed_by_image(spec: ConvSpec) -> bool:
    """Whether grad_kernel sums one product per image, since those are smaller than the arrays that one
    product over all images would transpose."""
    pixels = math.prod(spec.out_spatial)
    return isinstance(pixels, int) and 4 * spec.parameters < (spec.c + spec.o) * pixels


def rejects(spec: ConvSpec) -> str | None:
    if spec.taps != 1:
        return f"the kernel has {spec.taps} taps; pointwise means 1"
    if spec.groups != 1:
        return f"{spec.groups} groups; a product per group is what 'im2col' does"
    if spec.has_gaps:
        return f"the input is dilated by {spec.lhs_dilation}; only 1 is a plain product"
    return None


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    c, o, pixels, size = spec.c, spec.o, math.prod(spec.out_spatial), itemsize(spec.accumulator)
    run = 1 if spec.is_padded else c  # every value is tested for being inside
    subsampled = Loop(0, (math.prod(spec.x_shape) + spec.positions * c) * itemsize(spec.x_dtype), run)
    moved = [subsampled] if spec.out_spatial != spec.spatial or any(map(any, spec.padding)) else []
    if role != "grad_kernel":
        n, k = (o, c) if role == "forward" else (c, o)
        if by_image(spec, pixels, role):
            return Gemm(spec.batch, n, pixels, k), *moved
        return Gemm(1, spec.positions, n, k), *moved
    if spec.channels_first and summed_by_image(spec):
        added = Loop(0, spec.batch * spec.parameters * size)
        return *moved, Gemm(spec.batch, c, o, pixels), added
    transposed = Loop(0, 8 * spec.positions * min(c, o), c)
    beside = [transposed] if spec.channels_first and spec.batch > 1 else []
    return *moved, Gemm(1, c, o, spec.positions), *beside


def reads_channels_first(spec: ConvSpec, role: Role) -> bool:
    return role == "grad_kernel" or by_image(spec, math.prod(spec.out_spatial), role)


POINTWISE = Algorithm(
    "pointwise", forward, rejects, steps,
    grad_input=grad_input, grad_kernel=grad_kernel,
    reads_channels_first=reads_channels_first, reads_kernel=True,
)  # fmt: skip
