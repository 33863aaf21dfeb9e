"""Multiply first, then shift and add: the GEMM of im2col, run backwards.

    z[n, t, r, o] = Σ_c x[n, t, c] · w[r, c, o]            one GEMM, every input with every tap
    y[n, p, o]    = Σ z[n, t, r, o]  over  t·L − r = p − lo      col2im: overlapping blocks added up

L is the input's dilation.  Cost: for a transposed convolution each z is used exactly once, so nothing is
wasted; the taps are cut into Π ⌈k/L⌉ blocks of L, each added by one shifted addition of the whole image.
Wins for transposed convolutions in 3-D, where the phases are many and small (4 times as fast as by phase);
loses to phases where the GEMM's output is large against the input.

Source: Vasudevan, Anderson & Gregg, "Parallel multi channel convolution using general matrix
multiplication" (kn2row), 2017; PyTorch's and Caffe's deconvolution.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms.gemm import as_they_lie, by_image, product
from jconv.algorithms.pieces import IN_CACHE, REUSED
from jconv.algorithms.record import Algorithm, Gemm, Loop, Step
from jconv.algorithms.windows import WRITTEN_OUT, from_planes, planes, resized
from jconv.algorithms.work import FLIPPED
from jconv.spec import ConvSpec, Ints, Role, itemsize
from jconv.spec.roles import rewritten


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y: the sum of the shifted blocks, interleaved: p = q·L + r."""
    n, before = spec.ndim, [K - 1 - lo for K, (lo, _) in zip(spec.window, spec.padding, strict=True)]
    w = _blocked_kernel(w, spec)
    z = (_one_by_one if _is_large(spec) else _at_once)(x, w, spec)
    lengths = [q * L for q, L in zip(z.shape[1 : n + 1], spec.lhs_dilation, strict=True)]
    y = z.transpose(0, *(axis for d in range(n) for axis in (1 + d, 1 + n + d)), 2 * n + 1)
    sizes = zip(before, lengths, spec.out_spatial, strict=True)
    cuts = [(-b, p + b - length, 0) for b, length, p in sizes]
    return resized(y.reshape(spec.batch, *lengths, spec.o), cuts)


def _at_once(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """(n, *(h + blocks − 1), *L, o): the products of every input with every tap, in the order of x in memory,
    block by block moved to where they belong and added."""
    shifts = list(itertools.product(*map(range, _blocks(spec))))
    if not spec.channels_first:
        blocks = jnp.split(product(x.reshape(-1, spec.c), w, spec), len(shifts), axis=-1)
    else:  # without the barrier, or if it was transposed before it is split, the compiler would copy all of z
        z = lax.optimization_barrier(as_they_lie(w, planes(x), spec))
        blocks = [from_planes(block, spec.spatial) for block in jnp.split(z, len(shifts), axis=1)]
    return functools.reduce(lax.add, map(_shifted, blocks, shifts, [spec] * len(shifts)))


def _one_by_one(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """The same in a loop over the blocks."""
    n, shifts = spec.ndim, jnp.array([*itertools.product(*map(range, _blocks(spec)))])
    x, w = x.reshape(-1, spec.c), w.reshape(spec.c, len(shifts), -1)

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        z = product(x, lax.dynamic_index_in_dim(w, i, 1, keepdims=False), spec)
        z = z.reshape(spec.batch, *spec.spatial, *spec.lhs_dilation, spec.o)
        for axis, (L, k) in enumerate(zip(spec.lhs_dilation, spec.kernel, strict=True)):
            real = shifts[i, axis] * L + jnp.arange(L) < k  # as in `_shifted`
            z = jnp.where(real.reshape(-1, *[1] * (n - axis)), z, 0)
        corner = (0, *shifts[i], *[0] * (n + 1))
        seen = lax.dynamic_slice(total, corner, z.shape)
        return lax.dynamic_update_slice(total, seen + z, corner)

    rows = [h + blocks - 1 for h, blocks in zip(spec.spatial, _blocks(spec), strict=True)]
    nothing = jnp.zeros((spec.batch, *rows, *spec.lhs_dilation, spec.o), spec.accumulator)
    return lax.fori_loop(0, len(shifts), add, nothing)


def _blocks(spec: ConvSpec) -> Ints:
    """Blocks of L taps per dimension."""
    return tuple(-(-k // L) for k, L in zip(spec.kernel, spec.lhs_dilation, strict=True))


def _blocked_kernel(w: jax.Array, spec: ConvSpec) -> jax.Array:
    """(*k, c, o) → (c, blocks · taps of a block · o), flipped so that z lands in increasing order.  Where the
    channels come first c goes last, as in the user's OIHW kernel."""
    n, blocks = spec.ndim, list(zip(_blocks(spec), spec.lhs_dilation, strict=True))
    missing = [(0, b * L - k, 0) for (b, L), k in zip(blocks, spec.kernel, strict=True)]
    w = resized(lax.rev(w, tuple(range(n))), missing, 0)
    w = w.reshape(*itertools.chain(*blocks), spec.c, spec.o)
    rows = *range(0, 2 * n, 2), *range(1, 2 * n, 2), 2 * n + 1
    if spec.channels_first and not _is_large(spec):
        return lax.optimization_barrier(w.transpose(*rows, 2 * n).reshape(-1, spec.c))
    return lax.optimization_barrier(w.transpose(2 * n, *rows).reshape(spec.c, -1))


def _shifted(z: jax.Array, by: Ints, spec: ConvSpec) -> jax.Array:
    """One block of z moved by so many blocks: (n, *(h + blocks − 1), *L, o).

    The last block has taps beyond the kernel, which are 0.  What they make is cut off, as 0·NaN is NaN.
    """
    z = z.reshape(spec.batch, *spec.spatial, *spec.lhs_dilation, spec.o)
    taps = zip(by, spec.lhs_dilation, spec.kernel, strict=True)
    unreal = [max(0, (at + 1) * L - k) for at, L, k in taps]
    z = resized(z, [(0, -cut, 0) for cut in unreal], spec.ndim + 1)
    room = [(at, count - 1 - at, 0) for at, count in zip(by, _blocks(spec), strict=True)]
    return resized(z, [*room, *((0, cut, 0) for cut in unreal)])


def rejects(spec: ConvSpec) -> str | None:
    if spec.groups != 1:
        return f"{spec.groups} groups; it multiplies all channels with all"
    if spec.is_strided:
        return f"stride {spec.strides}: most of the products would be thrown away"
    if any(d != 1 for d in spec.rhs_dilation):
        return f"dilation {spec.rhs_dilation}: the taps do not come in blocks"
    if math.prod(_blocks(spec)) > WRITTEN_OUT:
        return f"{math.prod(_blocks(spec))} shifted blocks; it adds at most {WRITTEN_OUT}"
    return None


def _columns(spec: ConvSpec) -> int:
    """Columns of the products: the taps of all blocks times o, with zeros for those missing in the last."""
    return math.prod(_blocks(spec)) * math.prod(spec.lhs_dilation) * spec.o


def _bytes(spec: ConvSpec) -> tuple[int, int]:
    """Bytes of the products and of y."""
    products = math.prod(spec.x_shape[:-1]) * _columns(spec) * itemsize(spec.accumulator)
    return products, spec.wide.y_bytes


def _is_large(spec: ConvSpec) -> bool:
    """Whether the products are too many to be held at once."""
    products = _bytes(spec)[0]
    return isinstance(products, int) and products > REUSED


def _by_image(spec: ConvSpec) -> bool:
    """Whether the images are multiplied, and the products added up, channels first."""
    return by_image(spec, math.prod(spec.spatial)) and not _is_large(spec)


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    added, y = _bytes(spec)
    flip = Loop(0, 2 * FLIPPED * spec.kernel_bytes)
    m, n, k = math.prod(spec.spatial), _columns(spec), spec.c
    if _by_image(spec):
        run = spec.spatial[-1] if spec.lhs_dilation[-1] == 1 else 1
        added *= 3 if added > IN_CACHE else 1  # what no cache holds is written to memory and read again
        return flip, Gemm(spec.batch, n, m, k), Loop(0, added + 2 * y, run)
    if _is_large(spec):
        added *= 8  # each block's product and the sum are written to memory and read again
    return flip, Gemm(1, spec.batch * m, n, k), Loop(0, added, spec.o), Loop(0, 2 * y, spec.o)


def reads_channels_first(spec: ConvSpec, role: Role) -> bool:
    return _by_image(rewritten(spec, role))


def workspace(spec: ConvSpec, role: Role) -> int:
    products, y = _bytes(spec)
    if _by_image(spec):  # one loop adds and interleaves
        return products
    return max(y, products // math.prod(_blocks(spec))) if _is_large(spec) else products + y


OVERLAP_ADD = Algorithm(
    "overlap_add", forward, rejects, steps, workspace,
    reads_channels_first=reads_channels_first, reads_kernel=True,
)  # fmt: skip
