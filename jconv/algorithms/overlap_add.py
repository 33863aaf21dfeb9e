"""Multiply first, then shift and add: the GEMM of im2col, run backwards.

    z[n, t, r, o] = Σ_c x[n, t, c] · w[r, c, o]            one GEMM, every input with every tap
    y[n, p, o]    = Σ z[n, t, r, o]  over  t·L − r = p − lo      col2im: overlapping blocks added up

L is the input's dilation.  For a transposed convolution each z is used exactly once, so nothing is
wasted; the taps are cut into Π ⌈k/L⌉ blocks of L, and each block is added by one shifted addition of
the whole image.  Where the channels come first the planes are multiplied, and added up, as they lie.
Wins for transposed convolutions in 3-D, where the phases are many and small (4 times as fast as by phase);
loses to phases where the GEMM's output is large against the input.

Source: Vasudevan, Anderson & Gregg, "Parallel multi channel convolution using general matrix
multiplication" (kn2row), 2017; PyTorch's and Caffe's deconvolution.
"""

from __future__ import annotations

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jconv.algorithms.gemm import as_they_lie, by_image, product
from jconv.algorithms.record import Algorithm, Gemm, Loop, Step
from jconv.algorithms.windows import from_planes, interleaving, planes
from jconv.algorithms.work import FLIPPED
from jconv.spec import ConvSpec, Ints, Role, itemsize
from jconv.spec.roles import rewritten


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y: the sum of the shifted blocks of one GEMM, or of one GEMM per block where that would be large."""
    w = _blocked_kernel(w, spec)
    shifts = list(itertools.product(*map(range, _blocks(spec))))
    if not _is_large(spec):
        z = _products(x, w, spec)
        return _cropped(functools.reduce(jnp.add, map(_shifted, z, shifts, [spec] * len(z))), spec)
    x, parts = x.reshape(-1, spec.c), w.reshape(spec.c, len(shifts), -1)
    real = np.array([_is_real(by, spec) for by in shifts])

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        z = product(x, lax.dynamic_index_in_dim(parts, i, 1, keepdims=False), spec)
        z = z.reshape(spec.batch, *spec.spatial, *spec.lhs_dilation, spec.o)
        z = jnp.where(jnp.asarray(real)[i], z, 0)
        corner = (0, *jnp.asarray(shifts)[i], *[0] * (spec.ndim + 1))
        seen = lax.dynamic_slice(total, corner, z.shape)
        return lax.dynamic_update_slice(total, seen + z, corner)

    rows = [h + blocks - 1 for h, blocks in zip(spec.spatial, _blocks(spec), strict=True)]
    nothing = jnp.zeros((spec.batch, *rows, *spec.lhs_dilation, spec.o), spec.accumulator)
    return _cropped(lax.fori_loop(0, len(shifts), add, nothing), spec)


def _products(x: jax.Array, w: jax.Array, spec: ConvSpec) -> list[jax.Array]:
    """The products of every input with every tap, an array for each block of taps, in the order in which x
    lies.  Without the barrier the product itself would transpose them for the sum; and if they were
    transposed before they are split into blocks, the compiler would copy them all."""
    count = math.prod(_blocks(spec))
    if not spec.channels_first:
        return jnp.split(product(x.reshape(-1, spec.c), w, spec), count, axis=-1)
    z = lax.optimization_barrier(as_they_lie(w, planes(x), spec))
    return [from_planes(block, spec.spatial) for block in jnp.split(z, count, axis=1)]


def _blocks(spec: ConvSpec) -> Ints:
    """Blocks of L taps per dimension."""
    return tuple(-(-k // L) for k, L in zip(spec.kernel, spec.lhs_dilation, strict=True))


def _blocked_kernel(w: jax.Array, spec: ConvSpec) -> jax.Array:
    """(*k, c, o) → (c, blocks · taps of a block · o), flipped so that z lands in increasing order.  Where the
    channels come first c goes last, as in the user's OIHW kernel."""
    n = spec.ndim
    w = lax.rev(w, tuple(range(n)))
    sizes = zip(_blocks(spec), spec.lhs_dilation, spec.kernel, strict=True)
    w = jnp.pad(w, [*((0, b * L - k) for b, L, k in sizes), (0, 0), (0, 0)])
    pairs = [size for pair in zip(_blocks(spec), spec.lhs_dilation, strict=True) for size in pair]
    w = w.reshape(*pairs, spec.c, spec.o)
    rows = *range(0, 2 * n, 2), *range(1, 2 * n, 2), 2 * n + 1
    if spec.channels_first and not _is_large(spec):
        return lax.optimization_barrier(w.transpose(*rows, 2 * n).reshape(-1, spec.c))
    return lax.optimization_barrier(w.transpose(2 * n, *rows).reshape(spec.c, -1))


def _shifted(z: jax.Array, by: Ints, spec: ConvSpec) -> jax.Array:
    """One block of z moved by so many blocks: (n, *(h + blocks − 1), *L, o).

    The last block has taps beyond the kernel, of weight 0.  What they make is cut off, as 0·NaN is NaN.
    """
    z = z.reshape(spec.batch, *spec.spatial, *spec.lhs_dilation, spec.o)
    real = [min(L, k - at * L) for at, L, k in zip(by, spec.lhs_dilation, spec.kernel, strict=True)]
    for axis, taps in enumerate(real, spec.ndim + 1):
        z = lax.slice_in_dim(z, 0, taps, axis=axis)
    room = [(at, count - 1 - at) for at, count in zip(by, _blocks(spec), strict=True)]
    cut = [(0, L - taps) for L, taps in zip(spec.lhs_dilation, real, strict=True)]
    return jnp.pad(z, [(0, 0), *room, *cut, (0, 0)])


def _is_real(by: Ints, spec: ConvSpec) -> np.ndarray:
    """Which taps of a block are the kernel's: (*L, 1)."""
    real = [at * L + np.arange(L) < k for at, L, k in zip(by, spec.lhs_dilation, spec.kernel, strict=True)]
    return functools.reduce(np.multiply.outer, real)[..., None]


def _cropped(z: jax.Array, spec: ConvSpec) -> jax.Array:
    """(n, *q, *L, o) → (n, *p, o), cutting off the positions before and after the output."""
    n = spec.ndim
    lengths = [q * L for q, L in zip(z.shape[1 : n + 1], spec.lhs_dilation, strict=True)]
    y = z.transpose(0, *interleaving(n), 2 * n + 1).reshape(spec.batch, *lengths, spec.o)
    before = [K - 1 - lo for K, (lo, _) in zip(spec.window, spec.padding, strict=True)]
    sizes = zip(before, lengths, spec.out_spatial, strict=True)
    config = [(0, 0, 0), *((-b, p + b - length, 0) for b, length, p in sizes), (0, 0, 0)]
    return lax.pad(y, jnp.zeros((), y.dtype), config)


BOUND = 24 << 20  # bytes of products held at once; more are mapped afresh at every call


def rejects(spec: ConvSpec) -> str | None:
    if spec.groups != 1:
        return f"{spec.groups} groups; it multiplies all channels with all"
    if any(s != 1 for s in spec.strides):
        return f"stride {spec.strides}: most of the products would be thrown away"
    if any(d != 1 for d in spec.rhs_dilation):
        return f"dilation {spec.rhs_dilation}: the taps do not come in blocks"
    if math.prod(_blocks(spec)) > 64:
        return f"{math.prod(_blocks(spec))} shifted blocks; it adds at most 64"
    return None


def _columns(spec: ConvSpec) -> int:
    """Columns of the products: the taps of all blocks times o, with zeros for those missing in the last."""
    return math.prod(_blocks(spec)) * math.prod(spec.lhs_dilation) * spec.o


def _is_large(spec: ConvSpec) -> bool:
    """Whether the products are added up a block at a time."""
    size = _product_bytes(spec)
    return isinstance(size, int) and size > BOUND


def _product_bytes(spec: ConvSpec) -> int:
    return math.prod(spec.x_shape[:-1]) * _columns(spec) * itemsize(spec.accumulator)


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    y, added = math.prod(spec.y_shape) * itemsize(spec.accumulator), _product_bytes(spec)
    flip = Loop(0, 2 * FLIPPED * spec.kernel_bytes)
    m, n, k = math.prod(spec.spatial), _columns(spec), spec.c
    if _by_image(spec):
        run = spec.spatial[-1] if spec.lhs_dilation[-1] == 1 else 1
        return flip, Gemm(spec.batch, n, m, k), Loop(0, added + 2 * y, run)
    if _is_large(spec):
        added *= 8  # each block's product and the sum are written to memory and read again
    return flip, Gemm(1, spec.batch * m, n, k), Loop(0, added, spec.o), Loop(0, 2 * y, spec.o)


def _by_image(spec: ConvSpec) -> bool:
    """Whether the images are multiplied, and the products added up, channels first."""
    return by_image(spec, math.prod(spec.spatial)) and not _is_large(spec)


def reads_channels_first(spec: ConvSpec, role: Role) -> bool:
    return _by_image(rewritten(spec, role))


def workspace(spec: ConvSpec, role: Role) -> int:
    every = _product_bytes(spec)
    y = math.prod(spec.y_shape) * itemsize(spec.accumulator)
    if _by_image(spec):  # one loop adds and interleaves
        return every
    return max(y, every // math.prod(_blocks(spec))) if _is_large(spec) else y + every


OVERLAP_ADD = Algorithm(
    "overlap_add",
    forward,
    rejects,
    steps,
    workspace,
    reads_channels_first=reads_channels_first,
    reads_kernel=True,
)
