"""FFT: a correlation is a product of spectra.

    y = F⁻¹( F(x̃) · conj F(w) )[0 : P : stride]          per image, Σ over c in between

x̃ is x (with zeros between for an input dilation) placed at `lo` on a circle of L points, and w (dilated
likewise) is placed at 0.  Output q reads x̃[q … q+K−1], which is right as long as all that wraps around lands
in the lo zeros in front, so the two paddings share their zeros:

    L ≥ max(P, K, D + lo, D + hi)     D, K, P extents of x, kernel and output along the dimension

rounded up to 2^a 3^b 5^c 7^d.  Real inputs take real transforms.  Cost: (n·c + c·o + n·o) transforms
of Π L points and n·c·o·Π L complex products, whatever the kernel's size.  So it wins for large
kernels with few channels a group, most of all depthwise (31×31, 2048 taps in 1-D), and loses for
small kernels, and for many dense channels, where transforming c·o kernels is the work.  A stride
gains nothing: every position is computed and all but one in Π stride thrown away.

One form transforms the whole image.  Another cuts it into blocks of `step` outputs that read L = step +
K − 1 points each, overlapping (overlap-save), for the L of least estimated cost.  It wins for inputs much
longer than the kernel, and for dense kernels, whose transforms are then L and not h points long.

    ∂w = F⁻¹( Σ_n F(x̃) · conj F(g) )[0 : K : dilation]     the same blocks, and summed over them

grad_input is the rewritten forward, with g as the image and a circle as large.

**Errors**: the RMS error relative to y's RMS is √(log₂ Π L) roundoffs, whatever the kernel, less than a
direct sum's from a dozen taps on.  But it is the same everywhere: where y is far smaller than in the rest of
the image (or block), no digit is right.
A NaN or Inf in x makes NaN of every output that shares image (or block) and group with it; one in w, of
its whole output channel.  Halves are computed in float32.

Sources: Cooley & Tukey, 1965; Stockham, "High-speed convolution and correlation", 1966; Mathieu, Henaff &
LeCun, "Fast training of convolutional networks through FFTs", 2014.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jconv.algorithms.divisors import largest_divisor
from jconv.algorithms.fft_lengths import Lengths, counts_of, dense_extents, overlapping, whole
from jconv.algorithms.record import Algorithm, Fft, Loop, Step, of_forms
from jconv.spec import ConvSpec, Ints, Role, extent

# -- spectra ---------------------------------------------------------------------------------------


def _dtype(spec: ConvSpec) -> np.dtype:
    return np.dtype(spec.accumulator)


def _spectrum(a: jax.Array, ndim: int) -> jax.Array:
    """The real transform of the last `ndim` axes, which become one axis."""
    lead = a.shape[: a.ndim - ndim]
    return lax.fft(a, lax.FftType.RFFT, a.shape[len(lead) :]).reshape(*lead, -1)


def _signal(spectrum: jax.Array, lengths: Ints) -> jax.Array:
    """The inverse of `_spectrum`: the last axis becomes `lengths` again."""
    shape = (*spectrum.shape[:-1], *lengths[:-1], lengths[-1] // 2 + 1)
    return lax.fft(spectrum.reshape(shape), lax.FftType.IRFFT, lengths)


def _channels_first(a: jax.Array, groups: int) -> jax.Array:
    """(n, *h, g·c) → (n, g, c, *h): the transformed axes last."""
    a = jnp.moveaxis(a, -1, 1)
    return a.reshape(a.shape[0], groups, -1, *a.shape[2:])


def _resized(a: jax.Array, lead: int, config: list[tuple[int, int, int]]) -> jax.Array:
    """`a` with zeros (or cuts) around and between the entries of all axes after the first `lead`."""
    return lax.pad(a, jnp.zeros((), a.dtype), [(0, 0, 0)] * lead + config)


def _of_x(x: jax.Array, lengths: Lengths, spec: ConvSpec) -> jax.Array:
    """Spectra of the blocks of x̃: (blocks, n, g, c, f), blocks and n as one axis."""
    sizes = map(extent, spec.spatial, spec.lhs_dilation)
    counts = counts_of(lengths, spec)
    totals = [(k + 1) * step if k > 1 else L for L, step, k in zip(*lengths, counts, strict=True)]
    config = [
        (lo, total - lo - D, d - 1)
        for (lo, _), total, D, d in zip(spec.padding, totals, sizes, spec.lhs_dilation, strict=True)
    ]
    x = _resized(_channels_first(x, spec.groups).astype(_dtype(spec)), 3, config)
    for d, (L, step, count) in enumerate(zip(*lengths, counts, strict=True)):
        x = _blocks(x, d + 3, L, step, count)
    return _spectrum(x, spec.ndim)


def _of_g(g: jax.Array, lengths: Lengths, spec: ConvSpec) -> jax.Array:
    """Conjugate spectra of the blocks of g, zeros between for a stride: (blocks·n, g, o, f)."""
    g = _channels_first(g, spec.groups).astype(_dtype(spec))
    counts = counts_of(lengths, spec)
    config = [
        (0, step * count - P, s - 1)
        for step, count, P, s in zip(lengths[1], counts, dense_extents(spec), spec.strides, strict=True)
    ]
    g = _resized(g, 3, config)
    for d, (L, step, count) in enumerate(zip(*lengths, counts, strict=True)):
        g = _blocks(g, d + 3, step, step, count)
        g = _resized(g, d + 3, [(0, L - step, 0)] + [(0, 0, 0)] * (spec.ndim - d - 1))
    return jnp.conj(_spectrum(g, spec.ndim))


def _of_w(w: jax.Array, lengths: Lengths, spec: ConvSpec) -> jax.Array:
    """Conjugate spectrum of the dilated kernel: (g, c, o, f)."""
    n = spec.ndim
    w = w.astype(_dtype(spec)).reshape(*spec.kernel, spec.c, spec.groups, spec.o)
    w = w.transpose(n + 1, n, n + 2, *range(n))
    config = [(0, L - K, d - 1) for L, K, d in zip(lengths[0], spec.window, spec.rhs_dilation, strict=True)]
    return jnp.conj(_spectrum(_resized(w, 3, config), n))


def _blocks(a: jax.Array, axis: int, length: int, step: int, count: int) -> jax.Array:
    """Blocks of `length` entries, one every `step` entries, stacked along n; step ≤ length ≤ 2·step."""
    if count == 1:
        return a
    shape = (*a.shape[:axis], count, step, *a.shape[axis + 1 :])
    blocks = lax.slice_in_dim(a, 0, count * step, axis=axis).reshape(shape)
    if length > step:
        following = lax.slice_in_dim(a, step, (count + 1) * step, axis=axis).reshape(shape)
        following = lax.slice_in_dim(following, 0, length - step, axis=axis + 1)
        blocks = jnp.concatenate([blocks, following], axis + 1)
    return jnp.moveaxis(blocks, axis, 0).reshape(-1, *a.shape[1:axis], length, *a.shape[axis + 1 :])


def _joined(y: jax.Array, axis: int, step: int, count: int) -> jax.Array:
    """The first `step` entries of every block, one block after the other along the axis."""
    y = lax.slice_in_dim(y, 0, step, axis=axis)
    if count == 1:
        return y
    y = jnp.moveaxis(y.reshape(count, -1, *y.shape[1:]), 0, axis)
    return y.reshape(*y.shape[:axis], count * step, *y.shape[axis + 2 :])


# -- the three roles -------------------------------------------------------------------------------

TERMS = 16  # sums of up to so many products are one fused loop, longer ones a complex GEMM per frequency


def _product(x: jax.Array, w: jax.Array) -> jax.Array:
    """Σ_c: (n, g, c, f), (g, c, o, f) → (n, g, o, f)."""
    if x.shape[2] > TERMS:
        return jnp.einsum("ngcf,gcof->ngof", x, w)
    return functools.reduce(lax.add, [x[:, :, i, None] * w[:, i] for i in range(x.shape[2])])


def _outer_product(x: jax.Array, g: jax.Array) -> jax.Array:
    """Σ_n: (n, g, c, f), (n, g, o, f) → (g, c, o, f)."""
    if not isinstance(x.shape[0], int) or x.shape[0] > TERMS:
        return jnp.einsum("ngcf,ngof->gcof", x, g)
    return functools.reduce(lax.add, [x[i, :, :, None] * g[i, :, None] for i in range(x.shape[0])])


def _block_forward(x: jax.Array, w: jax.Array, lengths: Lengths, spec: ConvSpec) -> jax.Array:
    """y of one block from x and the spectrum of w."""
    y = _signal(_product(_of_x(x, lengths, spec), w), lengths[0])
    counts = counts_of(lengths, spec)
    for d in reversed(range(spec.ndim)):
        y = _joined(y, d + 3, lengths[1][d], counts[d])
    y = _strided(y, 3, spec.strides, dense_extents(spec)).astype(spec.y_dtype)
    return jnp.moveaxis(y.reshape(spec.batch, spec.out_channels, *spec.out_spatial), 1, -1)


def _block_grad_kernel(x: jax.Array, g: jax.Array, lengths: Lengths, spec: ConvSpec) -> jax.Array:
    """Spectrum of ∂w from one block."""
    return _outer_product(_of_x(x, lengths, spec), _of_g(g, lengths, spec))


def _forward(x: jax.Array, w: jax.Array, lengths: Lengths, spec: ConvSpec) -> jax.Array:
    block, w, middle = _block(lengths, spec), _of_w(w, lengths, spec), (0,) * spec.ndim
    if block == spec:
        return _block_forward(x, w, lengths, spec)

    def body(i: jax.Array, y: jax.Array) -> jax.Array:
        n, k = _corner(i, block, spec)
        part = lax.dynamic_slice(x, (n, *middle, k * spec.c), block.x_shape)
        kernel = lax.dynamic_slice_in_dim(w, k, block.groups)
        part = _block_forward(part, kernel, lengths, block)
        return lax.dynamic_update_slice(y, part, (n, *middle, k * spec.o))

    return lax.fori_loop(0, _count(block, spec), body, jnp.zeros(spec.y_shape, spec.y_dtype))


def _grad_kernel(x: jax.Array, g: jax.Array, lengths: Lengths, spec: ConvSpec) -> jax.Array:
    block, middle = _block(lengths, spec), (0,) * spec.ndim

    def body(i: jax.Array, total: jax.Array) -> jax.Array:
        n, k = _corner(i, block, spec)
        xs = lax.dynamic_slice(x, (n, *middle, k * spec.c), block.x_shape)
        gs = lax.dynamic_slice(g, (n, *middle, k * spec.o), block.y_shape)
        part = _block_grad_kernel(xs, gs, lengths, block)
        part += lax.dynamic_slice_in_dim(total, k, block.groups)
        return lax.dynamic_update_slice_in_dim(total, part, k, 0)

    if block == spec:
        spectrum = _block_grad_kernel(x, g, lengths, spec)
    else:
        like = jax.eval_shape(lambda: _of_w(jnp.zeros(spec.w_shape), lengths, spec))
        spectrum = lax.fori_loop(0, _count(block, spec), body, jnp.zeros(like.shape, like.dtype))
    w = _strided(_signal(spectrum, lengths[0]), 3, spec.rhs_dilation, spec.window)
    n = spec.ndim  # (g, c, o, *r) → (*r, c, g·o)
    return w.transpose(*range(3, n + 3), 1, 0, 2).reshape(spec.w_shape)


def _strided(a: jax.Array, lead: int, steps: Ints, stops: Ints) -> jax.Array:
    """Every step-th entry below stop, along the axes after `lead`."""
    return a[(slice(None),) * lead + tuple(map(slice, (0,) * len(steps), stops, steps))]


# -- blocks of images and groups: temporaries stay below the size that is mapped afresh at every call

MiB = 2**20
WHOLE = 30 * MiB  # up to here in one piece
BLOCK = 16 * MiB


def _spectra_bytes(lengths: Lengths, spec: ConvSpec) -> tuple[int, int, int]:
    """Bytes of the spectra of x, w and y; their signals are as large."""
    points = math.prod(lengths[0]) + 2 * math.prod(lengths[0][:-1])
    x, w, y = (count * points * _dtype(spec).itemsize for count in _spectra(lengths, spec))
    return x, w, y


@functools.lru_cache(maxsize=1024)
def _block(lengths: Lengths, spec: ConvSpec) -> ConvSpec:
    """The spec of what is transformed at a time: all of it, whole images, or groups of one image."""
    x, w, y = _spectra_bytes(lengths, spec)
    rest = x + y + max(x, y)
    if not isinstance(spec.batch, int) or 2 * w + rest <= WHOLE:
        return spec
    image = rest // spec.batch + 1
    images = largest_divisor(spec.batch, BLOCK // image)
    groups = spec.groups if image <= BLOCK else largest_divisor(spec.groups, BLOCK * spec.groups // image)
    return spec.replace(
        batch=images, groups=groups, in_channels=groups * spec.c, out_channels=groups * spec.o
    )


def _count(block: ConvSpec, spec: ConvSpec) -> int:
    return (spec.batch // block.batch) * (spec.groups // block.groups)


def _corner(i: jax.Array, block: ConvSpec, spec: ConvSpec) -> tuple[jax.Array, jax.Array]:
    """First image and first group of block i."""
    strips = spec.groups // block.groups
    return i // strips * block.batch, i % strips * block.groups


# -- the records -----------------------------------------------------------------------------------


def rejects(spec: ConvSpec) -> str | None:
    if not 1 <= spec.ndim <= 3:
        return f"transforms have 1 to 3 dimensions, not {spec.ndim}"
    if any(np.dtype(t).kind in "iub" for t in (spec.x_dtype, spec.w_dtype, spec.y_dtype)):
        return "transforms round, which integers must not"
    return None


def _spectra(lengths: Lengths, spec: ConvSpec) -> tuple[int, int, int]:
    """How many transforms x, w and y need."""
    images = spec.batch * math.prod(counts_of(lengths, spec))
    return images * spec.in_channels, spec.c * spec.out_channels, images * spec.out_channels


def steps_of(lengths: Lengths, spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    points, count = math.prod(lengths[0]), _spectra(lengths, spec)
    size = _dtype(spec).itemsize
    products = count[2] * spec.c * (points // 2 + 1)
    traffic = sum(count) * points * size
    moved = Loop(0, 2 * traffic)  # x and w are made channels first and padded, and y is made channels last
    return moved, Fft(sum(count), points), Loop(8 * products, traffic)


def workspace_of(lengths: Lengths, spec: ConvSpec, role: Role) -> int:
    """Bytes of the signals and spectra that are kept at one time.

    Two spectra and their product, or a spectrum beside another and the signal that it is made from (or into).
    In blocks, the kernel's spectrum is kept all the while.
    """
    block = _block(lengths, spec)
    (x, w, y), (_, all_w, _) = _spectra_bytes(lengths, block), _spectra_bytes(lengths, spec)
    if role == "grad_kernel":
        kept = 0 if block == spec else all_w  # the sum
        return max(kept + max(x + 2 * y, y + 2 * x, x + w + y), 2 * all_w)
    if block == spec:
        return max(x + 2 * w, w + 2 * x, x + w + y, 2 * y)
    return max(2 * all_w, all_w + max(2 * x, x + y, 2 * y))


def _amplification(lengths: Lengths, spec: ConvSpec) -> float:
    """Error relative to the direct sum's: √log₂ ΠL roundoffs against √(number of products)."""
    return max(1.0, math.sqrt(math.log2(math.prod(lengths[0]) + 1) / (spec.taps * spec.c)))


def _algorithm(variant: str, rule: Callable[[ConvSpec], Lengths]) -> Algorithm:
    return Algorithm(
        "fft",
        forward=lambda x, w, spec: _forward(x, w, rule(spec), spec),
        rejects=rejects,
        steps=lambda spec, role: steps_of(rule(spec), spec, role),
        workspace=lambda spec, role: workspace_of(rule(spec), spec, role),
        grad_kernel=lambda x, g, spec: _grad_kernel(x, g, rule(spec), spec),
        exact=False,
        amplification=lambda spec: _amplification(rule(spec), spec),
        variant=variant,
    )


WHOLE_IMAGES = _algorithm("whole images", whole)
OVERLAPPING = _algorithm("overlapping blocks", overlapping)
FFT = of_forms(WHOLE_IMAGES, OVERLAPPING)
