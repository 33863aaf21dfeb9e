"""FFT: a correlation is a product of spectra.

    y = F⁻¹( Σ_c F(x̃) · conj F(w) )[0 : P : stride]       ∂w = F⁻¹( Σ_n F(x̃) · conj F(g) )[0 : K : dilation]

x̃ is x on a circle of L points, or in blocks of L points that yield L − K + 1 outputs each (overlap-save),
whichever costs less.  Cost: (n·c + c·o + n·o) real transforms of Π L points and n·c·o·Π L complex products,
whatever the kernel's size.  Wins for large kernels with few channels a group, most of all depthwise; loses
for small kernels, for many dense channels, and with a stride, as every position is computed.

Sources: Cooley & Tukey, 1965; Stockham, "High-speed convolution and correlation", 1966; Mathieu, Henaff &
LeCun, "Fast training of convolutional networks through FFTs", 2014.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jconv.algorithms import pieces
from jconv.algorithms.record import Algorithm, Fft, Loop, Step
from jconv.algorithms.windows import resized
from jconv.spec import ConvSpec, Ints, Role, extent, itemsize

Lengths = tuple[Ints, Ints]  # per dimension: L, and how many outputs a block of L yields


@functools.lru_cache(maxsize=1024)
def lengths_of(spec: ConvSpec) -> Lengths:
    """The lengths of least estimated cost, of one block for the whole image or of several shorter ones.

    With D, K and P for the extents of x, kernel and output, x sits at `lo` on a circle of

        L ≥ max(P, K, D + lo, D + hi)

    points: what is read past the end wraps into the `lo` zeros in front, so both paddings share their zeros.
    """
    options = []
    images = map(extent, spec.spatial, spec.lhs_dilation)
    for P, K, D, (lo, hi) in zip(_dense(spec), spec.window, images, spec.padding, strict=True):
        whole = fast_length(max(P, K, D + max(lo, 0) + min(hi, 0), D + max(hi, 0) + min(lo, 0)))
        shorter = {fast_length(math.ceil(2 ** (i / 2) * K)) for i in range(2, 11)}
        options.append([(whole, P), *((L, L - K + 1) for L in sorted(shorter) if whole > L)])
    best = min(itertools.product(*options), key=lambda blocks: _cost(blocks, spec))
    return tuple(L for L, _ in best), tuple(step for _, step in best)


def _cost(blocks: tuple[tuple[int, int], ...], spec: ConvSpec) -> float:
    """Estimated operations: 2.5 log₂ per point of a transform, 4 per point of a complex product."""
    points = math.prod(L for L, _ in blocks)
    count = math.prod(-(-P // step) for P, (_, step) in zip(_dense(spec), blocks, strict=True))
    images = count * (spec.batch if isinstance(spec.batch, int) else 16)  # symbolic: a guess will do
    transforms = images * (spec.in_channels + spec.out_channels) + spec.c * spec.out_channels
    return points * (2.5 * math.log2(points + 1) * transforms + 4 * images * spec.c * spec.out_channels)


@functools.cache
def fast_length(least: int) -> int:
    """The smallest 2^a 3^b 5^c 7^d that is at least `least`.

    >>> fast_length(71), fast_length(4095), fast_length(1)
    (72, 4096, 1)
    """
    most = 1 << max(0, least - 1).bit_length()
    powers = [[b**e for e in range(math.floor(math.log(most, b)) + 2)] for b in (3, 5, 7)]
    odd = (product for product in map(math.prod, itertools.product(*powers)) if product <= most)
    return min(v << max(0, (-(-least // v) - 1).bit_length()) for v in odd)


def _dense(spec: ConvSpec) -> Ints:
    """P per dimension: the output at stride 1."""
    return tuple(map(extent, spec.out_spatial, spec.strides))


def _counts(lengths: Lengths, spec: ConvSpec) -> Ints:
    """Blocks per dimension."""
    return tuple(-(-P // step) for P, step in zip(_dense(spec), lengths[1], strict=True))


@functools.lru_cache(maxsize=1024)
def piece(spec: ConvSpec) -> ConvSpec:
    """The spec of what is transformed at a time."""
    x, w, y = _spectra_bytes(spec)
    size = x + y + max(x, y)
    if not isinstance(size, int) or size + 2 * w <= pieces.REUSED:
        return spec
    # Bands of rows transform twice what they share, so there should be few of them.
    most = pieces.IN_CACHE if size <= pieces.IN_CACHE * spec.batch else pieces.REUSED
    return pieces.cut(spec, size, most)


def _spectrum(a: jax.Array, ndim: int) -> jax.Array:
    """The real transform of the last `ndim` axes, which become one axis."""
    lead = a.shape[: a.ndim - ndim]
    return lax.fft(a, lax.FftType.RFFT, a.shape[len(lead) :]).reshape(*lead, -1)


def _signal(spectrum: jax.Array, lengths: Ints) -> jax.Array:
    """The inverse of `_spectrum`: the last axis becomes `lengths` again."""
    shape = (*spectrum.shape[:-1], *lengths[:-1], lengths[-1] // 2 + 1)
    return lax.fft(spectrum.reshape(shape), lax.FftType.IRFFT, lengths)


def _of_image(
    image: jax.Array, before: Sequence[int], dilation: Ints, reads: Ints, lengths: Lengths, spec: ConvSpec
) -> jax.Array:
    """(n, *h, g·c) → (blocks·n, g, c, f): spectra of the blocks of x or g, each of so many points."""
    image = jnp.moveaxis(image.astype(spec.accumulator), -1, 1)
    image = image.reshape(image.shape[0], spec.groups, -1, *image.shape[2:])
    cuts = list(zip(reads, *lengths, _counts(lengths, spec), strict=True))
    totals = [read if count == 1 else (count + (read > step)) * step for read, _, step, count in cuts]
    sizes = map(extent, image.shape[3:], dilation)
    around = zip(before, totals, sizes, dilation, strict=True)
    image = resized(image, [(lo, total - lo - size, d - 1) for lo, total, size, d in around], 3)
    for axis, (read, _, step, count) in enumerate(cuts, 3):
        image = _blocks(image, axis, read, step, count)
    return _spectrum(resized(image, [(0, L - read, 0) for read, L, _, _ in cuts], 3), spec.ndim)


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


def _of_w(w: jax.Array, lengths: Lengths, spec: ConvSpec) -> jax.Array:
    """Conjugate spectrum of the dilated kernel: (g, c, o, f)."""
    n = spec.ndim
    w = w.astype(spec.accumulator).reshape(*spec.kernel, spec.c, spec.groups, spec.o)
    sizes = zip(lengths[0], spec.window, spec.rhs_dilation, strict=True)
    w = resized(w.transpose(n + 1, n, n + 2, *range(n)), [(0, L - K, d - 1) for L, K, d in sizes], 3)
    return jnp.conj(_spectrum(w, n))


def _strided(a: jax.Array, steps: Ints, stops: Ints) -> jax.Array:
    """Every step-th entry below stop, along the axes after the first three."""
    return a[(slice(None),) * 3 + tuple(map(slice, (0,) * len(steps), stops, steps))]


TERMS = 16  # sums of up to so many products are one fused loop, longer ones a complex GEMM per frequency


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y, piece by piece, from the kernel's spectrum."""
    part = piece(spec)
    lengths = lengths_of(part)
    w = _of_w(w, lengths, spec)

    def compute(x: jax.Array) -> jax.Array:
        x = _of_image(x, [lo for lo, _ in part.padding], part.lhs_dilation, lengths[0], lengths, part)
        if spec.c > TERMS:
            y = jnp.einsum("ngcf,gcof->ngof", x, w)
        else:
            y = functools.reduce(lax.add, [x[:, :, i, None] * w[:, i] for i in range(spec.c)])
        y, counts = _signal(y, lengths[0]), _counts(lengths, part)
        for d in reversed(range(spec.ndim)):
            y = _joined(y, d + 3, lengths[1][d], counts[d])
        y = _strided(y, spec.strides, _dense(part))
        return jnp.moveaxis(y.reshape(part.batch, spec.out_channels, *part.out_spatial), 1, -1)

    return pieces.mapped(compute, x, spec, part)


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w from the spectra of all pieces, added up."""
    part = piece(spec)
    lengths = lengths_of(part)

    def compute(x: jax.Array, g: jax.Array) -> jax.Array:
        x = _of_image(x, [lo for lo, _ in part.padding], part.lhs_dilation, lengths[0], lengths, part)
        g = jnp.conj(_of_image(g, [0] * spec.ndim, spec.strides, lengths[1], lengths, part))
        if not isinstance(x.shape[0], int) or x.shape[0] > TERMS:
            return jnp.einsum("ngcf,ngof->gcof", x, g)
        return functools.reduce(lax.add, [x[i, :, :, None] * g[i, :, None] for i in range(x.shape[0])])

    w = _signal(pieces.summed(compute, x, g, spec, part), lengths[0])
    w = _strided(w, spec.rhs_dilation, spec.window)
    n = spec.ndim  # (g, c, o, *r) → (*r, c, g·o)
    return w.transpose(*range(3, n + 3), 1, 0, 2).reshape(spec.w_shape)


def rejects(spec: ConvSpec) -> str | None:
    if not 1 <= spec.ndim <= 3:
        return f"transforms have 1 to 3 dimensions, not {spec.ndim}"
    if any(np.dtype(t).kind in "iub" for t in (spec.x_dtype, spec.w_dtype, spec.y_dtype)):
        return "transforms round, which integers must not"
    return None


def _spectra(spec: ConvSpec) -> Ints:
    """How many transforms x, w and y need."""
    images = spec.batch * math.prod(_counts(lengths_of(spec), spec))
    return images * spec.in_channels, spec.c * spec.out_channels, images * spec.out_channels


def _spectra_bytes(spec: ConvSpec) -> Ints:
    """Bytes of the spectra of x, w and y; their signals are as large."""
    lengths = lengths_of(spec)[0]
    points = math.prod(lengths) + 2 * math.prod(lengths[:-1])
    return tuple(count * points * itemsize(spec.accumulator) for count in _spectra(spec))


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    part = piece(spec)
    points, times = math.prod(lengths_of(part)[0]), math.prod(pieces.counts(spec, part))
    x, w, y = _spectra(part)
    count = times * (x + y) + w
    traffic = count * points * itemsize(spec.accumulator)
    moved = Loop(0, 2 * traffic)  # x and w are made channels first and padded, and y is made channels last
    return moved, Fft(count, points), Loop(8 * times * y * spec.c * (points // 2 + 1), traffic)


def workspace(spec: ConvSpec, role: Role) -> int:
    """Bytes of what is kept at one time: two spectra and their product, or a spectrum beside another and its
    signal.  In pieces, the kernel's spectrum is kept all the while."""
    part = piece(spec)
    x, w, y = _spectra_bytes(part)
    kept = 0 if part == spec else w
    if role == "grad_kernel":
        return max(kept + max(x + 2 * y, y + 2 * x, x + w + y), 2 * w)
    if part == spec:
        return max(x + 2 * w, w + 2 * x, x + w + y, 2 * y)
    return max(2 * w, w + max(2 * x, x + y, 2 * y))


def amplification(spec: ConvSpec) -> float:
    """Error relative to the direct sum's: √log₂ Π L roundoffs against √(number of products).

    It is the same everywhere: where y is far smaller than in the rest of the image (or block), no digit is
    right, and a NaN in x reaches every output that shares image (or block) and group with it.
    """
    points = math.prod(lengths_of(piece(spec))[0])
    return max(1.0, math.sqrt(math.log2(points + 1) / (spec.taps * spec.c)))


FFT = Algorithm(
    "fft", forward, rejects, steps, workspace,
    grad_kernel=grad_kernel, exact=False, amplification=amplification,
)  # fmt: skip
