"""∂w of a large image by oneDNN as a convolution along h, w and c, whose channels are blocks of a row.

A row of q outputs is cut into n blocks, which begin t = ⌊q/n⌋ apart.  The last one is t + q mod n long, and
so are the others, but what they have beyond t is zero in g', as the next block has it.  With
reach = (s − 1)·dilation,

    x'[h, u, c, b]  = x̃[h, b·t + u, c]                            u = 0 … t + q mod n + reach − 1
    ∂w[r, s, c, o]  = Σ_{p, j, b}  x'[p + r·dilation, j + s·dilation, c, b] · g'[p, b, j, o]

So x is written once, and what blocks share twice, where `onednn_rows` writes x once for each tap of a row:
three times the bytes to stream for a 3×3 kernel.  No zero of g' meets what no output sees.  Loses for small
images, which stay in cache either way: there the longer rows multiply faster.
"""

import jax
import jax.numpy as jnp

from jconv.algorithms.onednn_direct import direct
from jconv.algorithms.record import Loop, OneDnn, Step
from jconv.algorithms.windows import framing, resized
from jconv.spec import ConvSpec

MOST_BLOCKS = 16  # of a row: with as many channels oneDNN multiplies as fast as with more


def applies(spec: ConvSpec) -> bool:
    """Whether it takes the spec: one image, two dimensions, no stride, all channels in one group, and more of
    them than colours, as they are the rows that are multiplied."""
    return spec.batch == spec.groups == 1 and spec.ndim == 2 and not spec.is_strided and spec.c > 3


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w by one call."""
    kernel = _cut_outputs(g, spec)[..., None, :].transpose(0, 2, 3, 1, 4)
    lies = (4, 0, 3, 1, 2) if spec.channels_first else (0, 3, 1, 2, 4)  # its axes p, j, 1, b and o in memory
    return direct(_cut(x, spec), kernel, as_blocks(spec), lies=lies).reshape(spec.w_shape)


def _blocks(spec: ConvSpec) -> tuple[int, int, int]:
    """How many blocks, how far apart, and how much longer than that: many with few zeros, and what two share
    all in the second one."""
    q, reach = spec.out_spatial[-1], spec.window[-1] - 1
    counts = (n for n in range(1, MOST_BLOCKS + 1) if n == 1 or q % n + reach <= q // n)
    count = min(counts, key=lambda n: (q // n + q % n) * (n + MOST_BLOCKS // 2))
    return count, q // count, q % count


def _cut(x: jax.Array, spec: ConvSpec) -> jax.Array:
    """(1, h, u, c, b): the padded rows, what begins a block and then what it shares with the next."""
    (count, apart, longer), (lo, hi, _) = _blocks(spec), framing(spec)[-1]
    shared = longer + spec.window[-1] - 1
    more = apart - shared if count > 1 else 0
    rows = resized(x, [(lo, hi + more, 0)], 2, in_order=not spec.channels_first)
    if count == 1:
        return rows[..., None]
    rows = rows.reshape(1, spec.spatial[0], count + 1, apart, spec.c)
    blocks = jnp.concatenate([rows[:, :, :-1], rows[:, :, 1:, :shared]], axis=3)
    return jnp.moveaxis(blocks, 2, -1)


def _cut_outputs(g: jax.Array, spec: ConvSpec) -> jax.Array:
    """(p, b, j, o): g', which is g as it lies where the blocks divide a row."""
    (count, apart, longer), p = _blocks(spec), spec.out_spatial[0]
    blocks = g[:, :, : count * apart].reshape(p, count, apart, spec.o)
    if not longer:
        return blocks
    rest = resized(g[:, :, count * apart :].reshape(p, 1, -1, spec.o), [(count - 1, 0, 0)])
    return jnp.concatenate([blocks, rest], axis=2)


def as_blocks(spec: ConvSpec) -> ConvSpec:
    """The convolution along h, u and c that is the kernel's gradient."""
    (count, apart, longer), back = _blocks(spec), spec.as_grad_kernel()
    return spec.replace(
        in_channels=count,
        spatial=(spec.spatial[0], apart + longer + spec.window[-1] - 1, spec.c),
        kernel=(spec.out_spatial[0], apart + longer, 1),
        strides=(*spec.rhs_dilation, 1),
        padding=(back.padding[0], (0, 0), (0, 0)),
        lhs_dilation=(1, 1, 1),
        rhs_dilation=(1, 1, 1),
        w_dtype=spec.y_dtype,
        y_dtype=spec.accumulator,
        channels_first=False,
    )


def steps(spec: ConvSpec) -> tuple[Step, ...]:
    """Writing x' transposed value by value, and the convolution."""
    return Loop(0, 2 * as_blocks(spec).x_bytes, 2), OneDnn(as_blocks(spec), streamed=True)
