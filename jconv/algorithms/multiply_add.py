"""Multiply-add over taps and channels: no matrix product at all.

    y[n, p, g, o] = Σ_r Σ_c  x̃[n, r + p·stride, g, c] · w[r, c, g, o]      one fused loop, c unrolled

With one channel per group (depthwise) there is nothing for a GEMM to do: a value of x meets no more values
of w than there are taps.  The sum is written out, and the compiler makes one vectorised loop of it, along the
channels.  Cost: 2·taps·c flops per output, x read from cache.  Wins for depthwise, for groups of
two to eight channels and for images of one to three channels; loses once c can fill a GEMM.

Small kernels need no padded copy of x: the outputs that see the same taps are a sum of their own (`regions`),
and the compiler joins these sums in one loop, in half to two thirds of the time.

Where the channels come first, the same sum at the same cost runs over whole planes, its inner axis a row of
pixels (`PLANES`): the sum over channels last would read and write every value alone, which takes 3 to 6 times
as long.  That loses with strides, where the pixels that a tap reads in a row are not neighbours in memory.

The kernel gradient is the same products summed over the positions: `multiply_add_gradient`.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms import multiply_add_gradient as gradient
from jconv.algorithms import regions
from jconv.algorithms.pieces import IN_CACHE, kept, tap_block, taps_from
from jconv.algorithms.record import Algorithm, Loop, Step, always
from jconv.algorithms.windows import MOST_CALLS, WRITTEN_OUT, pad, padded_bytes, positions, tap
from jconv.spec import ConvSpec, Ints, Role

IN_REGISTERS = 36  # products per output that fit the vector registers
MOST_REPEATED = 16 << 20  # bytes; fresh memory for more costs more than repeating gains
CHAINS = 4  # sums side by side
SHORTEST = 6  # terms of a chain
GAIN = 0.75  # the time of a sum in CHAINS chains, in that of one


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y, where regions are joined between barriers: the compiler would move slices of y, or sums over it,
    through the join, and compute each region again for them (a second convolution of y takes five times as
    long, and ten in a row a minute to compile)."""
    if spec.channels_first or not by_region(spec):
        return in_the_open(x, w, spec)
    return lax.optimization_barrier(in_the_open(lax.optimization_barrier(x), w, spec))


def in_the_open(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y: the sum over taps and channels, in blocks of taps along the first kernel axis."""
    x, w = x.astype(spec.accumulator), w.astype(spec.accumulator)
    if spec.c > 1 and not spec.channels_first:
        # A gradient's kernel is swapped before the loop, which would gather its values one by one.
        w = lax.optimization_barrier(w)
    if is_repeated(spec):
        x, spec = _repeated(x, spec)
    if by_region(spec):
        return _by_region(x, w, spec)
    block = tap_block(spec, WRITTEN_OUT)
    if block.kernel == spec.kernel:
        return _written_out(kept(pad(x, spec)), w, spec)
    x, height = pad(x, spec), block.kernel[0]

    def add(i: jax.Array, y: jax.Array) -> jax.Array:
        # The last block starts early, with zeros for its rows that are done already.  If it ended late, its
        # zero taps would meet values that no output sees, and 0·NaN is NaN.
        start = jnp.minimum(i * height, spec.kernel[0] - height)
        taps = lax.dynamic_slice_in_dim(w, start, height)
        is_new = (start + jnp.arange(height) >= i * height).reshape(-1, *[1] * (w.ndim - 1))
        return y + _written_out(taps_from(start, x, spec, block), jnp.where(is_new, taps, 0), block)

    return lax.fori_loop(0, -(-spec.kernel[0] // height), add, jnp.zeros(spec.y_shape, x.dtype))


def is_repeated(spec: ConvSpec) -> bool:
    """Whether the channels of x are repeated, one for each output, before they are multiplied.

    If the loop broadcasts them instead, the o outputs of a channel fill no vector where o is not a power of
    two, and it is slow where the taps are many.
    """
    if not spec.is_depthwise or not 1 < spec.o < 16:
        return False
    size = spec.wide.x_bytes * spec.o
    if not isinstance(size, int) or size > MOST_REPEATED:
        return False
    return spec.o & (spec.o - 1) != 0 or spec.taps > 16


def _repeated(x: jax.Array, spec: ConvSpec) -> tuple[jax.Array, ConvSpec]:
    """x (n, *h, g) → (n, *h, g·o): a convolution with one output per channel."""
    x = jnp.broadcast_to(x[..., None], (*x.shape, spec.o)).reshape(*x.shape[:-1], spec.out_channels)
    return x, spec.replace(in_channels=spec.out_channels, groups=spec.out_channels)


def _written_out(padded: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    return _sum_of_products([(tap(padded, at, spec), at) for at in positions(spec)], _taps(w, spec), spec)


Taps = dict[tuple[Ints, int], jax.Array]


def _taps(w: jax.Array, spec: ConvSpec) -> Taps:
    """What every tap and channel c multiplies by: (g, o)."""
    w = w.reshape(-1, spec.groups, spec.o)
    places = itertools.product(positions(spec), range(spec.c))
    return {at: lax.index_in_dim(w, i, keepdims=False) for i, at in enumerate(places)}


def _sum_of_products(views: list[tuple[jax.Array, Ints]], taps: Taps, spec: ConvSpec) -> jax.Array:
    """Σ over taps and channels of the tap's view (n, *p, g·c) times the tap: (n, *p, g·o)."""
    separate = (*views[0][0].shape[:-1], spec.groups, spec.c)
    apart = [(view.reshape(separate), at) for view, at in views]
    products = [
        lax.slice_in_dim(view, c, c + 1, axis=-1) * taps[at, c] for view, at in apart for c in range(spec.c)
    ]
    return _added(products).reshape(*separate[:-2], spec.out_channels)


def _added(terms: Sequence[jax.Array]) -> jax.Array:
    """The sum of all terms, a long one as a few sums side by side.

    Added up one after the other, every multiply-add waits four cycles for the last one, and the compiler
    keeps the order of a sum as it is written.  Of nine products the processor overlaps several sums itself.
    """
    count = max(1, min(CHAINS, len(terms) // SHORTEST))
    return functools.reduce(lax.add, (functools.reduce(lax.add, terms[i::count]) for i in range(count)))


def _share(terms: float) -> float:
    """The time that a sum of so many terms takes, in that of one chain."""
    return GAIN if terms >= CHAINS * SHORTEST else 1.0


def by_region(spec: ConvSpec) -> bool:
    """Whether x is padded, and the regions are so few that the products of all can be written out."""
    return regions.taps(spec, MOST_CALLS // spec.c) < math.inf


def written_out(spec: ConvSpec) -> float:
    """The number of products in the one loop that `forward` compiles to."""
    count = regions.taps(spec, MOST_CALLS // spec.c) if by_region(spec) else tap_block(spec, WRITTEN_OUT).taps
    return spec.c * count


def _by_region(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    taps = _taps(w, spec)

    def compute(region: regions.Region) -> jax.Array:
        if views := regions.views(x, region, spec):
            return _sum_of_products(views, taps, spec)
        return jnp.zeros((spec.batch, *(run.count for run in region), spec.out_channels), x.dtype)

    return regions.joined(compute, spec)


def _rejects_depthwise(spec: ConvSpec) -> str | None:
    if spec.c != 1:
        return f"a group has {spec.c} input channels; depthwise means 1"
    return _rejects_taps(spec)


def _rejects_broadcast(spec: ConvSpec) -> str | None:
    if spec.c == 1:
        return "a group has 1 input channel: that is 'depthwise'"
    if not isinstance(spec.c, int) or spec.c > 8:
        return f"a group has {spec.c} input channels; above 8 a matrix product is faster"
    if spec.taps == 1 and spec.groups > 1:
        return "1×1 in groups: a matrix product each is faster"
    return _rejects_taps(spec)


def _rejects_taps(spec: ConvSpec) -> str | None:
    if not spec.ndim:
        return "there is no spatial axis to slide along"
    inner = math.prod(spec.kernel[1:]) * spec.c
    if inner > 2 * WRITTEN_OUT:
        return f"{inner} products per row of the kernel; at most {2 * WRITTEN_OUT} are written out"
    return None


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    """One loop per block of taps.  With one group a channel is loaded once for all its outputs, which is 2.5
    times the rate of a multiply-add per pair of loads (half of that with more products than fit the
    registers); with few products, writing the outputs takes longest."""
    if role == "grad_kernel":
        return gradient.steps(spec)
    count = -(-spec.kernel[0] // tap_block(spec, WRITTEN_OUT).kernel[0])
    wide = spec.wide
    x, y = wide.x_bytes, wide.y_bytes
    # where the user's channels come first, the compiler reads and writes x and y as they lie, value by value
    run = 1 if spec.channels_first else spec.out_channels if spec.c == 1 else spec.o
    if spec.in_channels == spec.out_channels == 1:  # a row's pixels lie side by side
        run = spec.out_spatial[-1]
    loaded_again = spec.c == 1 or spec.channels_first
    one_image = spec.groups == 1 and not loaded_again
    flops = spec.flops / count * ((0.4 if spec.taps * spec.c <= IN_REGISTERS else 0.8) if one_image else 1.0)
    flops *= _share(spec.taps * spec.c / count)
    if spec.has_gaps:  # neighbours in memory are not neighbours in the sum
        flops *= 1.5
    copied = (Loop(0, x * (1 + spec.o), run),) if is_repeated(spec) else ()
    moved = x + (7 if one_image else 1 if count == 1 else 2) * y
    return *copied, Loop(flops, moved, run, count=count)


def workspace(spec: ConvSpec, role: Role) -> int:
    """Bytes of the repeated channels, and of the padded copy of x where it is kept."""
    if role == "grad_kernel":
        return gradient.workspace(spec)
    x = spec.wide.x_bytes
    if is_repeated(spec):
        return spec.o * (x if by_region(spec) else x + padded_bytes(spec))
    if by_region(spec):
        return 0
    if spec.has_gaps:  # zeros between the inputs are always written out
        return padded_bytes(spec)
    return x if x <= IN_CACHE else 0


def _planes(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y: the sum over taps and channels, computed channels first."""
    x = pad(jnp.moveaxis(x.astype(spec.accumulator), -1, 1), spec, first=2)
    x = x.reshape(spec.batch, spec.groups, spec.c, *x.shape[2:])
    w = w.astype(spec.accumulator).reshape(-1, spec.groups, spec.o, *[1] * spec.ndim)
    channels = [lax.slice_in_dim(x, c, c + 1, axis=2) for c in range(spec.c)]
    places = itertools.product(positions(spec), channels)  # in the order of the kernel's memory
    products = [  # (n, g, 1, *p) times (g, o, 1, …)
        tap(channel, at, spec, first=3) * lax.index_in_dim(w, i, keepdims=False)
        for i, (at, channel) in enumerate(places)
    ]
    y = _added(products).reshape(spec.batch, spec.out_channels, *spec.out_spatial)
    return jnp.moveaxis(y, 1, -1)


def _rejects_planes(spec: ConvSpec) -> str | None:
    if not spec.ndim:
        return "there is no spatial axis to slide along"
    products = spec.taps * spec.c
    if not isinstance(products, int) or products > WRITTEN_OUT:
        return f"{products} products per output; at most {WRITTEN_OUT} are written out"
    return None


def _planes_steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    wide = spec.wide
    x, y = wide.x_bytes, wide.y_bytes
    # in a kernel gradient the taps are the pixels of g, and each is gathered
    gathered = spec.taps >= math.prod(spec.out_spatial)
    run = 1 if spec.is_strided or gathered else spec.out_spatial[-1]
    transposed = () if spec.channels_first else (Loop(0, 2 * x, 1), Loop(0, 2 * y, 1))
    flops = _share(spec.taps * spec.c) * spec.flops
    return (Loop(0, 2 * x, spec.spatial[-1]), Loop(flops, x + y, run), *transposed)


def _planes_workspace(spec: ConvSpec, role: Role) -> int:
    wide = spec.wide
    return wide.x_bytes if spec.channels_first else wide.x_bytes + wide.image_bytes


DEPTHWISE = Algorithm(
    "depthwise", forward, _rejects_depthwise, steps, workspace,
    grad_kernel=gradient.grad_kernel, reads_channels_first=always, reads_kernel=True,
)  # fmt: skip
IN_THE_OPEN = dataclasses.replace(DEPTHWISE, forward=in_the_open)  # which joins a loop around it
BROADCAST = dataclasses.replace(DEPTHWISE, name="broadcast", rejects=_rejects_broadcast)
PLANES = Algorithm(
    "depthwise", _planes, _rejects_planes, _planes_steps, _planes_workspace,
    reads_channels_first=always, reads_kernel=True, variant="planes, channels first",
)  # fmt: skip
