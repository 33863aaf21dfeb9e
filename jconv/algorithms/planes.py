"""Planes: multiply-add over whole planes, for arrays that lie channels first in memory.

    y[n, g, o, p] = Σ_r Σ_c  x̃[n, g, c, r + p] · w[r, c, g, o]      one fused loop, inner axis a row of pixels

The same sum and cost as in `multiply_add` with another inner axis: there the channels lie side by side, here
the pixels of a row.  Wins where the user's arrays are NCHW, of which the sum over channels last would read
and write every value alone, which takes 3 to 6 times as long.  Loses where the channels come last, and with
strides, where the pixels that a tap reads in a row are not neighbours in memory.
"""

import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms.chains import added, share
from jconv.algorithms.record import Algorithm, Loop, Step, always
from jconv.algorithms.windows import WRITTEN_OUT, pad, positions, tap
from jconv.spec import ConvSpec, Role


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
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
    y = added(products).reshape(spec.batch, spec.out_channels, *spec.out_spatial)
    return jnp.moveaxis(y, 1, -1)


def rejects(spec: ConvSpec) -> str | None:
    if not spec.ndim:
        return "there is no spatial axis to slide along"
    products = spec.taps * spec.c
    if not isinstance(products, int) or products > WRITTEN_OUT:
        return f"{products} products per output; at most {WRITTEN_OUT} are written out"
    return None


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    wide = spec.wide
    x, y = wide.x_bytes, wide.y_bytes
    # in a kernel gradient the taps are the pixels of g, and each is gathered
    gathered = spec.taps >= math.prod(spec.out_spatial)
    run = 1 if spec.is_strided or gathered else spec.out_spatial[-1]
    transposed = () if spec.channels_first else (Loop(0, 2 * x, 1), Loop(0, 2 * y, 1))
    flops = share(spec.taps * spec.c) * spec.flops
    return (Loop(0, 2 * x, spec.spatial[-1]), Loop(flops, x + y, run), *transposed)


def workspace(spec: ConvSpec, role: Role) -> int:
    wide = spec.wide
    return wide.x_bytes if spec.channels_first else wide.x_bytes + wide.image_bytes


PLANES = Algorithm(
    "depthwise", forward, rejects, steps, workspace, reads_channels_first=always, reads_kernel=True,
    variant="planes, channels first",
)  # fmt: skip
