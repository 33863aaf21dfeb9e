"""∂w of a large image by oneDNN as a convolution along h, w and c, whose channels are blocks of a row.

A row of q outputs is cut into blocks b of `width` outputs j, and reach = (s − 1)·dilation:

    x'[h, u, c, b]  = x̃[h, b·width + u, c]                        u = 0 … width + reach − 1
    ∂w[r, s, c, o]  = Σ_{p, j, b}  x'[p + r·dilation, j + s·dilation, c, b] · g[p, b·width + j, o]

So x is written once, and what blocks share twice, where `onednn_rows` writes x once for each tap of a row:
three times the bytes to stream for a 3×3 kernel.  g is read as it lies.  Loses for small images, which stay
in cache either way: there the longer rows multiply faster.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jconv.algorithms.onednn_direct import direct
from jconv.algorithms.record import Loop, OneDnn, Step
from jconv.algorithms.windows import resized
from jconv.spec import ConvSpec, Ints

MOST_BLOCKS = 16  # of a row: with as many channels oneDNN multiplies as fast as with more


def applies(spec: ConvSpec) -> bool:
    """Whether it takes the spec: one image, two dimensions, no stride, all channels in one group; where they
    come first, only rows that blocks divide, as others are read faster as they lie."""
    plain = spec.batch == spec.groups == 1 and spec.ndim == 2 and not spec.is_strided
    return plain and not (spec.channels_first and _count(spec) == 1)


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w by one call."""
    kernel = g.reshape(spec.out_spatial[0], _count(spec), -1, 1, spec.o).transpose(0, 2, 3, 1, 4)
    return direct(_cut(x, spec), kernel, as_blocks(spec), lies=_kernel_lies(spec)).reshape(spec.w_shape)


def _count(spec: ConvSpec) -> int:
    """Blocks: as many as divide a row into equal ones that are no shorter than what two share."""
    q, reach = spec.out_spatial[-1], spec.window[-1] - 1
    return max(n for n in range(1, MOST_BLOCKS + 1) if q % n == 0 and (n == 1 or q // n >= reach))


def _cut(x: jax.Array, spec: ConvSpec) -> jax.Array:
    """(1, h, u, c, b): the padded rows, a block's own positions and then those it shares with the next."""
    q, reach, count = spec.out_spatial[-1], spec.window[-1] - 1, _count(spec)
    (lo, _), (h, w) = spec.padding[-1], spec.spatial
    width = q // count
    more = reach if count == 1 else width
    rows = resized(x, [(lo, q + more - lo - w, 0)], 2, in_order=not spec.channels_first)
    if count == 1:
        return rows[..., None]
    rows = rows.reshape(1, h, count + 1, width, spec.c)
    blocks = jnp.concatenate([rows[:, :, :-1], rows[:, :, 1:, :reach]], axis=3)
    return jnp.moveaxis(blocks, 2, -1)


def as_blocks(spec: ConvSpec) -> ConvSpec:
    """The convolution along h, u and c that is the kernel's gradient."""
    count, back = _count(spec), spec.as_grad_kernel()
    width = spec.out_spatial[-1] // count
    return spec.replace(
        in_channels=count,
        spatial=(spec.spatial[0], width + spec.window[-1] - 1, spec.c),
        kernel=(spec.out_spatial[0], width, 1),
        strides=(*spec.rhs_dilation, 1),
        padding=(back.padding[0], (0, 0), (0, 0)),
        lhs_dilation=(1, 1, 1),
        rhs_dilation=(1, 1, 1),
        w_dtype=spec.y_dtype,
        y_dtype=spec.accumulator,
        channels_first=False,
    )


def _kernel_lies(spec: ConvSpec) -> Ints:
    """How the axes p, j, 1, b and o of that kernel lie in memory."""
    return (4, 0, 3, 1, 2) if spec.channels_first else (0, 3, 1, 2, 4)


def steps(spec: ConvSpec) -> tuple[Step, ...]:
    """Writing x' transposed value by value, and the convolution."""
    return Loop(0, 2 * as_blocks(spec).x_bytes, 2), OneDnn(as_blocks(spec))
