"""Multiply first, then shift and add, a block of taps at a time: the blocks of a long kernel as channels.

    v[q, a·o] = Σ_{b < T, c}  x̃[q + b, c] · w[s_a + b, c, o]      one convolution, to A·o channels
    y[p, o]   = Σ_a v[p + s_a, a·o]                               A shifted additions

where the taps of the first axis are cut into A blocks of T, block a from tap s_a on (in steps of the
kernel's dilation).  Libraries fill a vector register with output channels, so a kernel to one or two of them
runs at a fraction of the rate however long it is; to A·o channels it runs at all of it.  Cost: v, and the
positions q that only some blocks use.  Wins for long and large kernels to few channels, so above all in the
input gradient of a filter bank; loses where a kernel is short or its channels are many.

The kernel's gradient is the transpose of that, the rows of a block of g as channels:

    v[s, ρ, c, b, o] = Σ_{n, q} x̃[n, ρ, q + s, c] · g[n, b, q, o]    every row read, every row of the block
    ∂w[r, s, c, o]   = Σ_b v[s, b + r, c, b, o]                       the diagonals added

b being a row of the block and ρ one that the block reads (in steps of the kernel's dilation), s a tap of the
other axes and q an output along them.  Cost: one GEMM per block of B rows, of which (B + k − 1) / k times as
much as is needed, and each row of x̃ written once per tap s.  Wins where both kernel axes are long and the
channels few; loses where the kernel is small against the block.

Source: block realisation of filters; Burrus, "Block realization of digital filters", 1972.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms import pieces
from jconv.algorithms.gemm import product
from jconv.algorithms.onednn import ONEDNN
from jconv.algorithms.record import Algorithm, Gemm, Loop, Step, evaluate
from jconv.algorithms.windows import WRITTEN_OUT, pad, padded_bytes, resized, spaced
from jconv.algorithms.work import steps_inside
from jconv.algorithms.work import workspace as workspace_of
from jconv.algorithms.xla import XLA
from jconv.spec import ConvSpec, Role, extent, itemsize

FEWEST = 64  # taps of a kernel that is worth cutting
FILLED = 32  # channels to make of fewer


def starts(spec: ConvSpec) -> list[int]:
    """s_a: the first tap of every block.  The last one starts early where T does not divide the taps."""
    T, k = block_length(spec), spec.kernel[0]
    return [min(at, k - T) for at in range(0, k, T)]


def block_length(spec: ConvSpec) -> int:
    """T: what leaves the fewest blocks that fill the channels."""
    return -(-spec.kernel[0] // -(-FILLED // spec.o))


def inside(spec: ConvSpec) -> ConvSpec:
    """The convolution to A·o channels."""
    T, dilation, lo = block_length(spec), spec.rhs_dilation[0], spec.padding[0][0]
    positions = spec.out_spatial[0] + (spec.kernel[0] - T) * dilation
    hi = positions - 1 + extent(T, dilation) - lo - spec.spatial[0]
    return spec.replace(
        kernel=(T, *spec.kernel[1:]),
        out_channels=len(starts(spec)) * spec.o,
        padding=((lo, hi), *spec.padding[1:]),
        y_dtype=spec.accumulator,
    )


def by(spec: ConvSpec) -> Algorithm:
    """What computes the convolution inside: oneDNN where it may and can, XLA's own elsewhere."""
    return ONEDNN if spec.onednn and ONEDNN.rejects(inside(spec)) is None else XLA


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y: the blocks' convolutions at once, shifted and added."""
    T, first, dilation = block_length(spec), starts(spec), spec.rhs_dilation[0]
    *blocks, last = (lax.slice_in_dim(w, at, at + T) for at in first)
    done = len(blocks) * T - first[-1]  # taps of the last block that are zero, and meet values of one window
    last = resized(last[done:], [(done, 0, 0)], 0)
    v = evaluate(by(spec), "forward", x, jnp.concatenate([*blocks, last], axis=-1), inside(spec))
    apart = zip(first, jnp.split(v, len(first), axis=-1), strict=True)
    shifted = (spaced(v, [s * dilation], spec.out_spatial[:1], [1]) for s, v in apart)
    return functools.reduce(lax.add, shifted)


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w: the sum over blocks of rows."""
    part = block_of_rows(spec)
    return pieces.summed(functools.partial(_of_block, spec=part), x, g, spec, part)


def block_of_rows(spec: ConvSpec) -> ConvSpec:
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


def _sides(part: ConvSpec) -> tuple[int, int, int]:
    """The product of one block of rows: rows, columns, length of its sums."""
    B, taps = part.out_spatial[0], math.prod(part.kernel[1:])
    rows = B - 1 + part.window[0]
    return taps * rows * part.c, B * part.o, part.positions // B


def own(spec: ConvSpec, role: Role) -> bool:
    """Whether the gradient given here is used: where a row of g is a sum worth a product, and the taps of a
    row are few enough to be written out."""
    return spec.ndim > 1 and math.prod(spec.kernel[1:]) <= WRITTEN_OUT


def rejects(spec: ConvSpec) -> str | None:
    if not all(isinstance(size, int) for size in spec.kernel):
        return "a kernel of a size that only a run will tell"
    if not spec.ndim or spec.strides[0] != 1 or spec.lhs_dilation[0] != 1:
        return "the blocks' results are shifted along a first axis without stride or input dilation"
    if spec.groups != 1 or spec.o >= FILLED:
        return f"{spec.groups} groups of {spec.o} output channels; it takes one group of fewer than {FILLED}"
    if spec.taps < FEWEST or len(starts(spec)) < 2:
        return f"a {spec.kernel} kernel is too short to be worth cutting"
    return by(spec).rejects(inside(spec))


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    """Those of the convolution inside, and the additions, each of which reads one value of a line."""
    if role == "grad_kernel":
        return _steps_of_gradient(spec)
    added = len(starts(spec)) * math.prod(spec.y_shape)
    return *steps_inside(by(spec), "forward", inside(spec)), Loop(added, added * 4, spec.o)


def _steps_of_gradient(spec: ConvSpec) -> tuple[Step, ...]:
    part = block_of_rows(spec)
    m, n, k = _sides(part)
    copied, added = m * k * itemsize(spec.accumulator), spec.parameters * part.out_spatial[0]
    each = Loop(0, pieces.passes(spec, part, 2) * copied), Gemm(1, m, n, k), Loop(added, 4 * added, spec.o)
    return pieces.repeated(each, spec, part)


def workspace(spec: ConvSpec, role: Role) -> int:
    """Bytes of v, and of the temporaries of what computes it; for the gradient of what the taps see of one
    block, each by itself and side by side, and of the product."""
    if role != "grad_kernel":
        return inside(spec).y_bytes + workspace_of(by(spec), "forward", inside(spec))
    part = block_of_rows(spec)
    m, n, k = _sides(part)
    size = (2 * m * k + m * n) * itemsize(spec.accumulator)
    return size + padded_bytes(part) + pieces.workspace(spec, part)


TWO_LEVEL = Algorithm(
    "overlap_add", forward, rejects, steps, workspace,
    grad_kernel=grad_kernel, own=own, variant="blocks of taps",
)  # fmt: skip
