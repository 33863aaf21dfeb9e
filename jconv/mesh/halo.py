"""Geometry of a convolution whose image is cut into equal pieces, and the exchange of their borders.

Along one dimension with shards of h inputs and p outputs, shard i computes the outputs i·p … i·p + p − 1.
In the dilated, padded input they read positions i·p·s − lo … i·p·s − lo + (p−1)·s + K − 1, that is

    the inputs   a_i = ⌈(i·p·s − lo) / L⌉   to   a_i + m − 1,         L = lhs_dilation

of which shard i owns i·h … i·h + h − 1.  The rest is the halo.  If p·s is a multiple of L, then m and
the zeros that input dilation leaves at either end are the same for every shard, so one program fits all:

    a_i − i·h = a_0 + i·drift,     drift = p·s / L − h

drift is 0 for every convolution that keeps the ratio of its sizes ("same", stride k on a multiple of k,
their transposes); otherwise each shard takes its own window out of the widest halo any shard needs.
What lies outside the image is zero, and a `ppermute` without a sender yields zeros: padding is free.

Source: Dryden et al., "Improving strong-scaling of CNN training by exploiting finer-grained
parallelism", 2019, whose halo this generalises to dilation on both sides and to any padding.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jconv.spec import ConvSpec, Role, itemsize

Axes = tuple[str, ...]
Link = tuple[Axes, list[int]]


class Halo(NamedTuple):
    """What a shard needs of its neighbours along one dimension."""

    shards: int
    size: int  # inputs a shard owns (h)
    left: int  # inputs it receives from before its own
    right: int  # and from after
    start: int  # where its window begins in shard 0, counted from the shard's first own input
    drift: int  # how much further the window begins in each following shard
    window: int  # inputs the outputs of one shard read (m)
    padding: tuple[int, int]  # zeros that input dilation leaves before the first and after the last of them


def refuses(spec: ConvSpec, axis: int, shards: int) -> str | None:
    """None, or why dimension `axis` of `spec` cannot be cut into `shards`."""
    size, out = spec.spatial[axis], spec.out_spatial[axis]
    stride, dilation = spec.strides[axis], spec.lhs_dilation[axis]
    if size % shards:
        return f"its {size} inputs do not divide by {shards}"
    if out % shards or out == 0:
        return f"its {out} outputs do not divide by {shards}"
    if out // shards * stride % dilation:
        each = out // shards
        return f"{each} outputs a shard times stride {stride} do not divide by input dilation {dilation}"
    return None


def halo(spec: ConvSpec, axis: int, shards: int) -> Halo:
    """The halo of dimension `axis` of `spec` cut into `shards`; the formulas of the module docstring.

    >>> spec = ConvSpec.of(spatial=(32,), kernel=(5,), padding=((2, 2),))
    >>> halo(spec, 0, 4).left, halo(spec, 0, 4).right
    (2, 2)
    """
    size, out = spec.spatial[axis] // shards, spec.out_spatial[axis] // shards
    stride, dilation, (lo, _) = spec.strides[axis], spec.lhs_dilation[axis], spec.padding[axis]
    first, last = -lo, (out - 1) * stride + spec.window[axis] - 1 - lo  # dilated positions, shard 0
    start, stop = -(-first // dilation), last // dilation + 1
    drift = out * stride // dilation - size
    starts = (start, start + (shards - 1) * drift)
    left, right = max(0, -min(starts)), max(0, max(starts) + stop - start - size)
    zeros = (start * dilation - first, last - (stop - 1) * dilation)
    return Halo(shards, size, left, right, start, drift, stop - start, zeros)


def moved(spec: ConvSpec, role: Role) -> ConvSpec:
    """The convolution whose input is exchanged: for grad_input that of g.  It takes a moved one back, too."""
    return spec.as_grad_input() if role == "grad_input" else spec


def local_spec(spec: ConvSpec, shards: Sequence[int], role: Role = "forward") -> ConvSpec:
    """The problem whose `role` each shard computes, once it has its halo."""
    whole = moved(spec, role)
    halos = [halo(whole, axis, n) for axis, n in enumerate(shards)]
    each = list(zip(halos, whole.spatial, whole.padding, strict=True))
    local = whole.replace(
        spatial=tuple(h.window if h.shards > 1 else size for h, size, _ in each),
        padding=tuple(h.padding if h.shards > 1 else pair for h, _, pair in each),
    )
    return moved(local, role)


def _hops(wanted: int, halo: Halo) -> Iterator[tuple[int, int]]:
    """(distance, inputs) per shard that has to send, the nearest first; a wide kernel has several."""
    for distance in range(1, min(math.ceil(wanted / halo.size), halo.shards - 1) + 1):
        yield distance, min(halo.size, wanted - (distance - 1) * halo.size)


def messages(spec: ConvSpec, shards: Sequence[int]) -> list[tuple[int, int]]:
    """Every `ppermute` of one convolution of the image `spec`, in their order: how many elements go over each
    link, and over how many links, which are pairs of devices.

    Dimensions are exchanged one after the other, so the later ones send the halos of the earlier
    ones along: corners need no messages of their own.
    """
    sent = []
    extents = [size // n for size, n in zip(spec.spatial, shards, strict=True)]
    for axis, n in enumerate(shards):
        if n == 1:
            continue
        h = halo(spec, axis, n)
        layer = spec.batch * spec.in_channels * math.prod(extents[:axis] + extents[axis + 1 :])
        others = math.prod(shards) // n
        for wanted in (h.left, h.right):
            sent += [(layer * rows, others * (n - hop)) for hop, rows in _hops(wanted, h)]
        extents[axis] = h.window
    return sent


def halo_bytes(spec: ConvSpec, shards: Sequence[int]) -> int:
    """Bytes on the wire, over all devices, of one forward convolution of an image cut into `shards`.

    The gradient with respect to the input sends as many back; the one with respect to the kernel
    needs the halo of x once more if it was not kept.

    >>> spec = ConvSpec.of(batch=2, spatial=(64, 64), kernel=(3, 3), padding=((1, 1), (1, 1)), in_channels=8)
    >>> halo_bytes(spec, (8, 1))  # 2 · 7 links · 2 images · 1 row of 64 · 8 channels · 4 bytes
    57344
    """
    return sum(elements * links for elements, links in messages(spec, shards)) * itemsize(spec.x_dtype)


def exchange(x: jax.Array, spec: ConvSpec, names: Sequence[Axes | None], order: Sequence[str]) -> jax.Array:
    """A shard (n, *h, channels) with the halo that `spec` needs: (n, *m, channels).

    Runs where the mesh axes `names`, one per spatial dimension, are manual (inside `shard_map`); `order` has
    those of the mesh.
    """
    for axis, name in enumerate(names):
        if name is not None and (shards := lax.axis_size(name)) > 1:
            x = _exchange_along(x, axis + 1, halo(spec, axis, shards), name, order)
    return x


def _exchange_along(x: jax.Array, axis: int, halo: Halo, name: Axes, order: Sequence[str]) -> jax.Array:
    link = _numbered(name, order)
    before = [_received(x, axis, halo, link, hop, rows) for hop, rows in _hops(halo.left, halo)]
    after = [_received(x, axis, halo, link, -hop, rows) for hop, rows in _hops(halo.right, halo)]
    # past the last shard there is nothing but padding
    lo, hi = (
        wanted - sum(piece.shape[axis] for piece in pieces)
        for wanted, pieces in ((halo.left, before), (halo.right, after))
    )
    widths = [(lo, hi) if dimension == axis else (0, 0) for dimension in range(x.ndim)]
    received = jnp.concatenate([*before[::-1], x, *after], axis)
    received = jnp.pad(received, widths) if lo or hi else received
    start = halo.left + halo.start
    if halo.drift:
        drifted = start + lax.axis_index(name) * halo.drift
        return lax.dynamic_slice_in_dim(received, drifted, halo.window, axis)
    return lax.slice_in_dim(received, start, start + halo.window, axis=axis)


def _received(x: jax.Array, axis: int, halo: Halo, link: Link, distance: int, rows: int) -> jax.Array:
    """The `rows` nearest to us of the shard `distance` before us (after us if negative)."""
    start = halo.size - rows if distance > 0 else 0
    border = lax.slice_in_dim(x, start, start + rows, axis=axis)
    names, device = link
    pairs = [(i, i + distance) for i in range(halo.shards) if 0 <= i + distance < halo.shards]
    return lax.ppermute(border, names, [(device[i], device[j]) for i, j in pairs])


def _numbered(names: Axes, order: Sequence[str]) -> Link:
    """The mesh axes that cut a dimension, in the order of the mesh, and the number of every shard's device by
    that order: so `ppermute` counts, whatever the order in which they cut."""
    ordered = tuple(sorted(names, key=order.index)) if len(names) > 1 else names
    devices = np.arange(lax.axis_size(names)).reshape([lax.axis_size(one) for one in ordered])
    return ordered, devices.transpose([ordered.index(one) for one in names]).reshape(-1).tolist()
