"""The kernel gradient of a large kernel between few channels: a block of g's rows as channels.

    v[s, ρ, c, b, o] = Σ_{n, q} x̃[n, ρ, q + s, c] · g[n, b, q, o]    every row read, every row of the block
    ∂w[r, s, c, o]   = Σ_b v[s, b + r, c, b, o]                       the diagonals added

b being a row of the block and ρ one that the block reads (in steps of the kernel's dilation), s a tap of the
other axes and q an output along them.  A gradient to one or two channels leaves most of a vector register
empty; to B·o it fills it.  Cost: one GEMM per block, of which (B + k − 1) / k times as much as is needed, and
each row of x̃ written once per tap s.  Wins where both kernel axes are long and the channels few; loses where
the kernel is small against the block, or the channels fill a register themselves.

Source: the transpose of `two_level`.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms import pieces
from jconv.algorithms.gemm import product
from jconv.algorithms.record import Gemm, Loop, Step
from jconv.algorithms.windows import WRITTEN_OUT, pad, padded_bytes, spaced
from jconv.spec import ConvSpec, Role, extent, itemsize

FILLED = 32  # channels to make of fewer


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w: the sum over blocks of rows."""
    part = block(spec)
    return pieces.summed(functools.partial(_of_block, spec=part), x, g, spec, part)


def block(spec: ConvSpec) -> ConvSpec:
    """The spec of one block: as many rows as fill the channels, of as many images as stay in cache."""
    part = pieces.piece(spec, spec.batch, min(spec.out_spatial[0], -(-FILLED // spec.o)))
    rows, _, length = _sides(part)
    return pieces.some_images(part, rows * length * itemsize(spec.accumulator), pieces.IN_CACHE)


def _of_block(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w of one block: a product, and its diagonals added."""
    seen, B, dilation = _seen(x, spec), spec.out_spatial[0], spec.rhs_dilation[0]
    g = jnp.moveaxis(g, 1, -2).reshape(-1, B * spec.o)
    v = lax.optimization_barrier(product(seen.reshape(-1, g.shape[0]), g, spec))
    v = v.reshape(*seen.shape[:3], B, spec.o)
    ends = range(extent(spec.kernel[0], dilation), v.shape[1] + 1)
    diagonals = (v[:, b:end:dilation, :, b] for b, end in enumerate(ends))
    return jnp.moveaxis(functools.reduce(lax.add, diagonals), 1, 0).reshape(spec.w_shape)


def _seen(x: jax.Array, spec: ConvSpec) -> jax.Array:
    """(s, ρ, c, n, *q): what every tap of the other axes sees of every row."""
    rows = jnp.moveaxis(pad(x, spec), (1, -1), (0, 1))
    taps = itertools.product(*map(range, spec.kernel[1:]))
    starts = ([r * d for r, d in zip(tap, spec.rhs_dilation[1:], strict=True)] for tap in taps)
    seen = [spaced(rows, start, spec.out_spatial[1:], spec.strides[1:], 3) for start in starts]
    return lax.optimization_barrier(jnp.stack(seen))


def own(spec: ConvSpec, role: Role) -> bool:
    """Whether the gradient given here is used: where a row of g is a sum worth a product, and the taps of a
    row are few enough to be written out."""
    return spec.ndim > 1 and math.prod(spec.kernel[1:]) <= WRITTEN_OUT


def steps(spec: ConvSpec) -> tuple[Step, ...]:
    part = block(spec)
    m, n, k = _sides(part)
    copied, added = m * k * itemsize(spec.accumulator), spec.parameters * part.out_spatial[0]
    each = Loop(0, pieces.passes(spec, part, 2) * copied), Gemm(1, m, n, k), Loop(added, 4 * added, spec.o)
    return pieces.repeated(each, spec, part)


def workspace(spec: ConvSpec) -> int:
    """Bytes of what the taps see of one block, each by itself and side by side, and of the product."""
    part = block(spec)
    m, n, k = _sides(part)
    return (
        (2 * m * k + m * n) * itemsize(spec.accumulator) + padded_bytes(part) + pieces.workspace(spec, part)
    )


def _sides(part: ConvSpec) -> tuple[int, int, int]:
    """The product of one block: rows, columns, length of its sums."""
    B, taps = part.out_spatial[0], math.prod(part.kernel[1:])
    rows = B - 1 + part.window[0]
    return taps * rows * part.c, B * part.o, part.positions // B
