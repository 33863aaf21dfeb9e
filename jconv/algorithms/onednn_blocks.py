"""∂w of a large image by oneDNN as a convolution along h, w and c, whose channels are blocks of a row.

A row of q outputs is cut into blocks b of `width` outputs j, and reach = (s − 1)·dilation:

    x'[h, u, c, b]  = x̃[h, b·width + u, c]                        u = 0 … width + reach − 1
    ∂w[r, s, c, o]  = Σ_{p, j, b}  x'[p + r·dilation, j + s·dilation, c, b] · g[p, b·width + j, o]

So x is written once, and what blocks share twice, where `onednn_rows` writes x once for each tap of a row:
three times the bytes to stream for a 3×3 kernel.  g is read as it lies, or ends in zeros where no count of
blocks divides a row.  Loses for small images, which stay in cache either way: there the longer rows multiply
faster.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jconv.algorithms.onednn_direct import direct
from jconv.algorithms.record import Loop, OneDnn, Step
from jconv.algorithms.windows import framing, resized
from jconv.spec import ConvSpec, Ints

MOST_BLOCKS = 16  # of a row: with as many channels oneDNN multiplies as fast as with more


def applies(spec: ConvSpec) -> bool:
    """Whether it takes the spec: one image, two dimensions, no stride, all channels in one group, and more of
    them than colours, as they are the rows that are multiplied."""
    return spec.batch == spec.groups == 1 and spec.ndim == 2 and not spec.is_strided and spec.c > 3


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w by one call."""
    count, width = _blocks(spec)
    g = resized(g, [(0, count * width - spec.out_spatial[-1], 0)], 2)
    kernel = g.reshape(spec.out_spatial[0], count, width, 1, spec.o).transpose(0, 2, 3, 1, 4)
    return direct(_cut(x, spec), kernel, as_blocks(spec), lies=_kernel_lies(spec)).reshape(spec.w_shape)


def _blocks(spec: ConvSpec) -> tuple[int, int]:
    """How many blocks, and their width, which is no less than what two share: of many that which adds the
    fewest zeros to a row."""
    q, reach = spec.out_spatial[-1], spec.window[-1] - 1
    most = max(1, min(MOST_BLOCKS, q // max(1, reach)))
    count = min(range(most, most // 2, -1), key=lambda count: count * -(-q // count))
    return count, -(-q // count)


def _cut(x: jax.Array, spec: ConvSpec) -> jax.Array:
    """(1, h, u, c, b): the padded rows, a block's own positions and then those it shares with the next."""
    (count, width), reach = _blocks(spec), spec.window[-1] - 1
    (lo, hi, _), h = framing(spec)[-1], spec.spatial[0]
    more = count * width - spec.out_spatial[-1] + (width - reach if count > 1 else 0)
    x = resized(x, [(0, min(0, hi), 0)], 2)  # what no output sees must not meet a zero
    rows = resized(x, [(lo, max(0, hi) + more, 0)], 2, in_order=not spec.channels_first)
    if count == 1:
        return rows[..., None]
    rows = rows.reshape(1, h, count + 1, width, spec.c)
    blocks = jnp.concatenate([rows[:, :, :-1], rows[:, :, 1:, :reach]], axis=3)
    return jnp.moveaxis(blocks, 2, -1)


def as_blocks(spec: ConvSpec) -> ConvSpec:
    """The convolution along h, u and c that is the kernel's gradient."""
    (count, width), back = _blocks(spec), spec.as_grad_kernel()
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
