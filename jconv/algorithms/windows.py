"""Slices of the padded input: the one piece of geometry the direct algorithms share.

    tap r of dimension d sees   x̃[r·rhs_dilation + p·stride],   p = 0 … out−1

so a tap is one strided slice, and patches are all taps side by side.  Run backwards, patches add up where
they overlap: at t those of the taps r·rhs_dilation ≡ t (mod stride), one *phase* of them.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jconv.spec import ConvSpec, Ints, extent, itemsize

# For the time they take to compile:
WRITTEN_OUT = 64  # products, slices or phases in one loop
MOST_CALLS = 150  # in several loops or matrix products, about 10 ms each
MAX_SLICES = 16  # along one dimension, before a loop takes over

Config = Sequence[tuple[int, int, int]]  # (low, high, interior) of each axis, as `lax.pad` takes them
NONE = (0, 0, 0)


def resized(x: jax.Array, config: Config, first: int = 1, *, in_order: bool = False) -> jax.Array:
    """x with zeros (or cuts) around and between the entries of its axes from `first` on.

    `in_order`: the axes lie in memory as they follow each other.  Then one that stays as it is is made one
    with the axis before it, as a loop over fewer axes compiles in down to a fifth of the time.
    """
    if all(entry == NONE for entry in config):
        return x
    whole = [*[NONE] * first, *config, *[NONE] * (x.ndim - first - len(config))]
    zero = jnp.zeros((), x.dtype)
    if not in_order or not all(isinstance(size, int) for size in x.shape):
        return lax.pad(x, zero, whole)
    sizes, merged = _merged(x.shape, whole)
    around = zip(x.shape, whole, strict=True)
    shape = [lo + size + max(0, size - 1) * between + hi for size, (lo, hi, between) in around]
    return lax.pad(x.reshape(sizes), zero, merged).reshape(shape)


def _merged(shape: Ints, config: Config) -> tuple[list[int], list[tuple[int, int, int]]]:
    """Sizes and config of fewer axes."""
    sizes, merged = [shape[0]], [config[0]]
    for size, entry in zip(shape[1:], config[1:], strict=True):
        lo, hi, between = merged[-1]
        if entry == NONE and not between:
            sizes[-1], merged[-1] = sizes[-1] * size, (lo * size, hi * size, 0)
        else:
            sizes.append(size)
            merged.append(entry)
    return sizes, merged


def pad(x: jax.Array, spec: ConvSpec, first: int = 1) -> jax.Array:
    """x dilated, padded and cut to exactly the extent the taps read; `first` is its first spatial axis: 2 of
    planes, which lie as they are written where the user's channels come first, 1 of what does where not."""
    return resized(x, framing(spec), first, in_order=spec.channels_first == (first == 2))


def framing(spec: ConvSpec) -> Config:
    """What `pad` does to every spatial axis."""
    needed = [(p - 1) * s + K for p, s, K in zip(spec.out_spatial, spec.strides, spec.window, strict=True)]
    sizes = zip(spec.padding, needed, spec.padded, spec.lhs_dilation, strict=True)
    return [(lo, hi + need - have, dilation - 1) for (lo, hi), need, have, dilation in sizes]


def padded_bytes(spec: ConvSpec) -> int:
    """Bytes of the padded copy of x; none where there is nothing to pad."""
    if all(entry == NONE for entry in framing(spec)):
        return 0
    return spec.batch * math.prod(spec.padded) * spec.in_channels * itemsize(spec.x_dtype)


def columns_bytes(spec: ConvSpec) -> int:
    """Bytes of all patches side by side, each value once per tap that sees it."""
    return spec.positions * spec.taps * spec.in_channels * itemsize(spec.x_dtype)


def planes(x: jax.Array) -> jax.Array:
    """(n, *p, c) → (n, c, Π p), which moves nothing where the user's channels come first.  The axis moves
    before any reshape, or the compiler would not see that it undoes the conversion to channels last."""
    x = jnp.moveaxis(x, -1, 1)
    return x.reshape(*x.shape[:2], -1)


def from_planes(x: jax.Array, spatial: Ints) -> jax.Array:
    """(n, c, Π p) → (n, *p, c)."""
    return jnp.moveaxis(x.reshape(*x.shape[:2], *spatial), 1, -1)


def each_group(spec: ConvSpec) -> ConvSpec:
    """The spec of (g·n, *h, c): every group is an image of its own."""
    return spec.replace(batch=spec.groups * spec.batch, in_channels=spec.c, groups=1)


def groups_as_batch(x: jax.Array, spec: ConvSpec) -> tuple[jax.Array, ConvSpec]:
    """x as (g·n, *h, c), and a spec without groups for it, each tap of which is one slice of all groups."""
    each = each_group(spec)
    x = jnp.moveaxis(x.reshape(spec.batch, *spec.spatial, spec.groups, spec.c), -2, 0)
    return x.reshape(each.x_shape), each


def positions(spec: ConvSpec) -> Iterator[Ints]:
    """Every tap (r, s, …) in the order of the kernel's memory."""
    return itertools.product(*map(range, spec.kernel))


def spaced(
    x: jax.Array, starts: Sequence[int], counts: Sequence[int], strides: Sequence[int], first: int = 1
) -> jax.Array:
    """`counts` positions, `strides` apart, of as many axes of x from `first` on.

    It is one slice: of one along each axis XLA writes out what neighbouring taps share.
    """
    sizes = zip(starts, counts, strides, strict=True)
    ends = [start + extent(count, stride) for start, count, stride in sizes]
    before, after = x.shape[:first], x.shape[first + len(ends) :]
    steps = (*[1] * first, *strides, *[1] * len(after))
    return lax.slice(x, (*[0] * first, *starts, *[0] * len(after)), (*before, *ends, *after), steps)


def tap_along(padded: jax.Array, axis: int, r: int, spec: ConvSpec, first: int = 1) -> jax.Array:
    """The slice of one spatial axis that tap `r` sees."""
    start, count = r * spec.rhs_dilation[axis], spec.out_spatial[axis]
    return spaced(padded, [start], [count], [spec.strides[axis]], first + axis)


def tap(padded: jax.Array, at: Sequence[int], spec: ConvSpec, first: int = 1) -> jax.Array:
    """What the tap `at` sees of the padded input, whose first spatial axis is `first`."""
    starts = [r * dilation for r, dilation in zip(at, spec.rhs_dilation, strict=True)]
    return spaced(padded, starts, spec.out_spatial, spec.strides, first)


def stacked_taps(x: jax.Array, spec: ConvSpec) -> jax.Array:
    """(r, n, *p, c): what every tap sees, one after the other."""
    padded = pad(x, spec)
    return jnp.stack([tap(padded, at, spec) for at in positions(spec)])


def put_back(seen: jax.Array, at: Sequence[int], spec: ConvSpec, first: int = 1) -> jax.Array:
    """What a tap saw, put where it saw it in an undilated x, with zeros elsewhere: the adjoint of `tap`."""
    starts = [lo - r * d for (lo, _), r, d in zip(spec.padding, at, spec.rhs_dilation, strict=True)]
    sizes = zip(starts, spec.spatial, spec.out_spatial, spec.strides, strict=True)
    return resized(seen, [(-start, h + start - extent(p, s), s - 1) for start, h, p, s in sizes], first)


def put_together(seen: Iterable[jax.Array], spec: ConvSpec, first: int = 1) -> jax.Array:
    """What every tap saw, in the order of the kernel's memory, added up where it saw it."""
    taps = zip(seen, positions(spec), strict=True)
    return functools.reduce(lax.add, (put_back(one, at, spec, first) for one, at in taps))


# All taps, one dimension at a time, so that Σ k slices or terms are traced and not Π k
def patches(x: jax.Array, spec: ConvSpec) -> jax.Array:
    """All taps side by side: (n, *p, *r, channels), the values copied bit for bit."""
    columns, at = pad(x, spec), spec.ndim + 1
    for axis in reversed(range(spec.ndim)):
        # columns: (n, *h[:axis], h[axis], *p[axis+1:], *r[axis+1:], channels)
        taps = spec.kernel[axis]
        if taps <= MAX_SLICES:
            columns = jnp.stack([tap_along(columns, axis, r, spec) for r in range(taps)], axis=at)
            continue
        span = extent(spec.out_spatial[axis], spec.strides[axis])

        def view(r: jax.Array, columns: jax.Array = columns, axis: int = axis, span: int = span) -> jax.Array:
            seen = lax.dynamic_slice_in_dim(columns, r * spec.rhs_dilation[axis], span, axis=axis + 1)
            return lax.slice_in_dim(seen, 0, span, spec.strides[axis], axis=axis + 1)

        columns = jnp.moveaxis(lax.map(view, jnp.arange(taps)), 0, at)
    return columns


def overlap_add(columns: jax.Array, spec: ConvSpec) -> jax.Array:
    """The adjoint of `patches`: (n, *p, *r, channels) → x (n, *h, channels), overlaps added."""
    for axis in range(spec.ndim):
        # columns: (n, *h[:axis], p[axis], *p[axis+1:], r[axis], *r[axis+1:], channels)
        columns = _added_up(jnp.moveaxis(columns, spec.ndim + 1, 0), axis, axis + 1, spec)
    return _cropped(columns, spec, 1)


def overlap_add_planes(columns: jax.Array, spec: ConvSpec) -> jax.Array:
    """The same channels first: (n, c, *r, *p) → x (n, c, *h)."""
    for axis in range(spec.ndim):
        # columns: (n, c, r[axis], *r[axis+1:], *h[:axis], p[axis], *p[axis+1:])
        columns = _added_up(jnp.moveaxis(columns, 2, 0), axis, spec.ndim + 1, spec)
    return _cropped(columns, spec, 2)


def _cropped(summed: jax.Array, spec: ConvSpec, first: int) -> jax.Array:
    """Of all positions that a tap saw those of x."""
    wanted = map(extent, spec.spatial, spec.lhs_dilation)
    sizes = zip(spec.padding, wanted, summed.shape[first:], strict=False)
    x = resized(summed, [(-lo, want + lo - have, 0) for (lo, _), want, have in sizes], first)
    rest = [1] * (x.ndim - first - spec.ndim)
    return lax.slice(x, (0,) * x.ndim, x.shape, (*[1] * first, *spec.lhs_dilation, *rest))


def _added_up(terms: jax.Array, axis: int, at: int, spec: ConvSpec) -> jax.Array:
    """The terms of one spatial axis, of which each is axis `at`, added up."""
    unrolled = max(spec.kernel[axis], spec.strides[axis]) <= MAX_SLICES
    return (_add_by_phase if unrolled else _add_in_a_loop)(terms, axis, at, spec)


def _add_by_phase(terms: jax.Array, axis: int, at: int, spec: ConvSpec) -> jax.Array:
    """Each phase is a sum of shifted terms, and all are interleaved."""
    stride = spec.strides[axis]
    needed = extent(spec.out_spatial[axis], stride) + spec.window[axis] - 1
    length = -(-needed // stride)
    phases: dict[int, jax.Array] = {}
    for r, term in enumerate(terms):
        shift, phase = divmod(r * spec.rhs_dilation[axis], stride)
        term = resized(term, [(shift, length - term.shape[at] - shift, 0)], at)
        phases[phase] = phases[phase] + term if phase in phases else term
    nothing = jnp.zeros_like(phases[0])
    whole = jnp.stack([phases.get(phase, nothing) for phase in range(stride)], axis=at + 1)
    return lax.slice_in_dim(lax.collapse(whole, at, at + 2), 0, needed, axis=at)


def _add_in_a_loop(terms: jax.Array, axis: int, at: int, spec: ConvSpec) -> jax.Array:
    """Each term is added at its strided place."""
    stride, dilation = spec.strides[axis], spec.rhs_dilation[axis]
    span = extent(spec.out_spatial[axis], stride)

    def add(total: jax.Array, r_and_term: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        r, term = r_and_term
        there = lax.dynamic_slice_in_dim(total, r * dilation, span, axis=at)
        there = there + resized(term, [(0, 0, stride - 1)], at)
        return lax.dynamic_update_slice_in_dim(total, there, r * dilation, axis=at), None

    start = resized(terms[0], [(0, spec.window[axis] - 1, stride - 1)], at)
    return lax.scan(add, start, (jnp.arange(1, len(terms)), terms[1:]))[0]
