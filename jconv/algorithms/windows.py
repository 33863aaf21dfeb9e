"""Slices of the padded input: the one piece of geometry the direct algorithms share.

    tap r of dimension d sees   x̃[r·rhs_dilation + p·stride],   p = 0 … out−1

so a tap is one strided slice, and patches are all taps side by side.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jconv.spec import ConvSpec


def pad(x: jax.Array, spec: ConvSpec) -> jax.Array:
    """x (n, *h, channels) dilated, padded and cut to exactly the extent the taps read."""
    needed = [
        (p - 1) * s + K for p, s, K in zip(spec.out_spatial, spec.strides, spec.window, strict=True)
    ]
    config = [
        (lo, hi + need - have, dilation - 1)
        for (lo, hi), need, have, dilation in zip(
            spec.padding, needed, spec.padded, spec.lhs_dilation, strict=True
        )
    ]
    none = (0, 0, 0)
    if all(entry == none for entry in config):
        return x
    return lax.pad(x, jnp.zeros((), x.dtype), [none, *config, none])


def positions(spec: ConvSpec) -> Iterator[tuple[int, ...]]:
    """Every tap (r, s, …) in the order of the kernel's memory."""
    return itertools.product(*map(range, spec.kernel))


def tap(padded: jax.Array, at: Sequence[int], spec: ConvSpec) -> jax.Array:
    """What the tap `at` sees of the padded input: (n, *p, channels)."""
    for axis, r in enumerate(at):
        padded = tap_along(padded, axis, r, spec)
    return padded


def tap_along(padded: jax.Array, axis: int, r: int, spec: ConvSpec) -> jax.Array:
    """The slice of one spatial axis that tap `r` sees."""
    start, stride = r * spec.rhs_dilation[axis], spec.strides[axis]
    stop = start + (spec.out_spatial[axis] - 1) * stride + 1
    return lax.slice_in_dim(padded, start, stop, stride, axis=axis + 1)


def patches(x: jax.Array, spec: ConvSpec) -> jax.Array:
    """All taps side by side: (n, *p, *r, channels).

    One dimension at a time, so Σ k slices are traced and not Π k; the values are copied bit for bit.
    """
    columns = pad(x, spec)
    for axis in reversed(range(spec.ndim)):
        # columns: (n, *h[:axis], h[axis], *p[axis+1:], *r[axis+1:], channels)
        slices = [tap_along(columns, axis, r, spec) for r in range(spec.kernel[axis])]
        columns = jnp.stack(slices, axis=spec.ndim + 1)
    return columns
