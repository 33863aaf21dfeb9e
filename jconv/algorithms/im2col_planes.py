"""Explicit GEMM where the channels come first: columns of planes, and the kernel as it lies.

    y[n, g, o, p]     = Σ_{c, r} w[g, o, c·r] · columns[n, g, c·r, p]
    columns[n, g, c·r, p] = x̃[n, g, c, r + p]                    each tap's plane, copied as it lies

The same sum and cost as in `im2col` with rows and columns exchanged; ∂x adds planes up (col2im), and ∂w is g
times the columns transposed.  Where the user's arrays are NCHW and OIHW it transposes neither image nor
kernel, and transposing the kernel is most of the work of a layer of many channels and few pixels, where it
wins.  Loses where the image is larger than the kernel, and with strides, where the pixels that a tap reads in
a row are not neighbours in memory.

Source: Jia et al., "Caffe", 2014.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms import pieces
from jconv.algorithms.gemm import LINE, as_they_lie, by_image, by_rows, takes, transposed_product
from jconv.algorithms.record import Algorithm, Gemm, Loop, Step, always
from jconv.algorithms.windows import (
    WRITTEN_OUT,
    columns_bytes,
    from_planes,
    overlap_add_planes,
    pad,
    padded_bytes,
    planes,
    put_together,
    tap_along,
)
from jconv.spec import ConvSpec, Role


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y: the kernel times the columns of every image."""
    y = as_they_lie(_rows(w, spec), columns(x, spec), spec)
    return from_planes(y.reshape(spec.batch, spec.out_channels, -1), spec.out_spatial)


def grad_input(g: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂x: the kernel transposed times g, the planes of every tap added up where it read them; with a stride
    along one axis after the other, since to add them all at once every tap is tested at every input."""
    if reads_swapped(spec, "grad_input"):  # as (c, o, r), in a product for every channel
        w = jnp.moveaxis(w, (-2, -1), (0, 1)).reshape(spec.c, spec.o, spec.taps)
        taps = transposed_product(w, planes(g), spec)
    else:
        taps = as_they_lie(_rows(w, spec), _by_group(g, spec), spec, "grad_input")
    taps = lax.optimization_barrier(taps)
    if spec.is_strided:
        taps = taps.reshape(spec.batch, spec.in_channels, *spec.kernel, *spec.out_spatial)
        return jnp.moveaxis(overlap_add_planes(taps, spec), 1, -1)
    taps = taps.reshape(spec.batch, spec.in_channels, spec.taps, *spec.out_spatial)
    x = put_together((taps[:, :, i] for i in range(spec.taps)), spec, first=2)
    return jnp.moveaxis(x, 1, -1)


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w: g times the columns transposed, summed over all images."""
    if reads_swapped(spec, "grad_kernel"):
        w = by_rows(planes(g), columns(x, spec).reshape(spec.c, spec.taps, -1), spec)
        return jnp.moveaxis(w.reshape(spec.c, spec.o, *spec.kernel), (0, 1), (-2, -1))
    w = jnp.einsum(
        "ngop,ngkp->gok", _by_group(g, spec), columns(x, spec),
        precision=spec.precision, preferred_element_type=spec.accumulator,
    )  # fmt: skip
    return jnp.moveaxis(w.reshape(spec.out_channels, spec.c, *spec.kernel), (0, 1), (-1, -2))


def columns(x: jax.Array, spec: ConvSpec) -> jax.Array:
    """(n, g, c·r, Π p): what every tap sees of every plane.

    The taps of one dimension after the other, the last first: Σ k slices to compile and to run and not Π k.
    """
    seen = pad(jnp.moveaxis(x, -1, 1), spec, first=2)
    for axis in reversed(range(spec.ndim)):
        first = seen.ndim - spec.ndim
        taps = [tap_along(seen, axis, r, spec, first) for r in range(spec.kernel[axis])]
        seen = jnp.stack(taps, axis=2)
    return lax.optimization_barrier(seen.reshape(spec.batch, spec.groups, spec.c * spec.taps, -1))


def _rows(w: jax.Array, spec: ConvSpec) -> jax.Array:
    """(*k, c, g·o) → (g, o, c·r), the order in memory of a user's OIHW kernel."""
    return jnp.moveaxis(w, (-1, -2), (0, 1)).reshape(spec.groups, spec.o, spec.c * spec.taps)


def _by_group(g: jax.Array, spec: ConvSpec) -> jax.Array:
    """(n, *p, g·o) → (n, g, o, Π p)."""
    return planes(g).reshape(spec.batch, spec.groups, spec.o, -1)


def reads_swapped(spec: ConvSpec, role: Role) -> bool:
    """Whether a gradient reads or writes a kernel that lies swapped so, in a product for every channel: of a
    single image of few pixels by oneDNN, which reads g again for each."""
    if role == "forward" or not spec.kernel_swapped or not spec.channels_first:
        return False
    if spec.groups > 1 or spec.batch > 1 or 2 * spec.taps < LINE:
        return False
    pixels = math.prod(spec.out_spatial)
    known = isinstance(pixels, int) and pixels <= spec.o
    return known and takes((spec.c, spec.o, spec.taps), (1, spec.o, pixels), pixels, spec.y_dtype, spec)


def rejects(spec: ConvSpec) -> str | None:
    if not spec.ndim:
        return "there is no spatial axis to slide along"
    if spec.taps == spec.groups == 1:
        return "one tap and one group: the columns are the image, which is 'pointwise'"
    if spec.taps > WRITTEN_OUT:
        return f"the kernel has {spec.taps} taps; at most {WRITTEN_OUT} are written out"
    if spec.has_gaps:
        return f"the input is dilated by {spec.lhs_dilation}: most of the columns would be zeros"
    size = columns_bytes(spec)
    if isinstance(size, int) and size > pieces.IN_CACHE and not _is_tiled(spec):
        return f"columns of {size >> 20} MiB; at most {pieces.IN_CACHE >> 20}, 'im2col' cuts them into pieces"
    return None


def _is_tiled(spec: ConvSpec) -> bool:
    """Whether no two windows overlap, so that the columns are no larger than x."""
    return all(s >= k for s, k in zip(spec.strides, spec.kernel, strict=True))


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    """A loop that writes the columns or adds them up, one that transposes (the columns for a kernel gradient,
    the columns and y for small images, everything where the user's channels come last), and the product."""
    columns, pixels, k = columns_bytes(spec), math.prod(spec.out_spatial), spec.taps * spec.c
    copies = [_copy(spec, role)]
    if not spec.channels_first:
        copies += [Loop(0, 2 * (columns + spec.bytes), 1)]
    elif role == "grad_kernel":
        copies += [Loop(0, 2 * columns, 1)]
    elif not by_image(spec, pixels, role):
        copies += [Loop(0, 2 * (columns + spec.y_bytes), 4)]
    if role == "grad_kernel":
        return *copies, Gemm(spec.groups, spec.o, k, spec.positions)
    m, n = (spec.o, k) if role == "forward" else (k, spec.o)
    if by_image(spec, pixels, role):
        return *copies, Gemm(spec.batch * spec.groups, m, pixels, n)
    return *copies, Gemm(spec.groups, spec.positions, m, n)


def _copy(spec: ConvSpec, role: Role) -> Loop:
    """Each tap's plane is written twice (once if windows tile) or added; with a stride value by value."""
    columns, back = columns_bytes(spec), role == "grad_input"
    if not spec.is_strided:
        return Loop(0, (2 if back else 4) * columns, spec.out_spatial[-1])
    return Loop(0, (3 if back else 2 if _is_tiled(spec) else 4) * columns, 1)


def workspace(spec: ConvSpec, role: Role) -> int:
    """Bytes of the columns (twice where each tap's plane is written by itself first, or sums are kept on the
    way), of x padded, and of the kernel where it is repeated for every image."""
    written_once = role == "forward" and _is_tiled(spec)
    added_once = role == "grad_input" and not spec.is_strided
    copies = 1 if written_once or added_once else 2
    repeated = role != "grad_kernel" and by_image(spec, math.prod(spec.out_spatial), role)
    kernels = spec.batch * spec.kernel_bytes if repeated else 0
    return copies * columns_bytes(spec) + padded_bytes(spec) + kernels


IM2COL_PLANES = Algorithm(
    "im2col", forward, rejects, steps, workspace,
    grad_input=grad_input, grad_kernel=grad_kernel, reads_channels_first=always, reads_kernel=True,
    reads_swapped=reads_swapped, variant="planes, channels first",
)  # fmt: skip
