"""Transposed convolution by output phase: never a multiplication by an inserted zero.

With the input dilated by L, output p sees tap r only where p·stride + r·rhs_dilation − lo is a
multiple of L.  Which taps these are depends on p mod P alone, P = L / gcd(stride, L): the phase.
Each phase is an ordinary convolution with every R-th tap, R = L / gcd(rhs_dilation, L),

    y[φ + P·q] = Σ_i x[ start + q·(stride·P/L) + i·(rhs_dilation·R/L) ] · w[r0 + R·i]

    start = (φ·stride + r0·rhs_dilation − lo) / L       r0 the first tap that phase φ sees

and the phases are interleaved.  Cost: the useful multiplications, in Π P small convolutions.  Wins
over dilating the input whenever L > 1; for large L a phase has few taps, and `overlap_add` wins.

Source: the polyphase decomposition of a rational resampler (Vaidyanathan, "Multirate systems and
filter banks", 1993).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import InconclusiveDimensionOperation

from jconv.algorithms import regions
from jconv.algorithms.record import Algorithm, Loop, Step
from jconv.algorithms.tap_blocks import KEPT
from jconv.algorithms.work import FLIPPED
from jconv.spec import ConvSpec, Role, extent, itemsize


@dataclasses.dataclass(frozen=True)
class Phase:
    """Along one dimension: the outputs ≡ φ (mod P), and the taps and inputs that they see."""

    taps: int
    first_tap: int
    tap_step: int
    start: int
    stride: int
    dilation: int


def phases(spec: ConvSpec, axis: int) -> list[Phase]:
    """The phases of one dimension, in the order of their first outputs."""
    L, s, d = spec.lhs_dilation[axis], spec.strides[axis], spec.rhs_dilation[axis]
    (lo, _), k = spec.padding[axis], spec.kernel[axis]
    if not isinstance(lo, int):  # or no tap would be found, for no comparison with it is true
        raise InconclusiveDimensionOperation(f"which taps a phase sees depends on the padding {lo}")
    P, R = _phase_count(spec, axis), L // math.gcd(d, L)
    found = []
    for phi in range(min(P, spec.out_spatial[axis])):
        first = next((r for r in range(min(R, k)) if (phi * s + r * d - lo) % L == 0), k)
        start = (phi * s + first * d - lo) // L
        found.append(Phase(len(range(first, k, R)), first, R, start, s * P // L, d * R // L))
    return found


def sub_spec(spec: ConvSpec, combination: tuple[Phase, ...]) -> ConvSpec:
    """The ordinary convolution that one combination of phases is."""
    padding = []
    for phase, length, h in zip(combination, _lengths(spec), spec.spatial, strict=True):
        read = (length - 1) * phase.stride + extent(phase.taps, phase.dilation)
        padding.append((-phase.start, read - h + phase.start))
    return spec.replace(
        kernel=tuple(phase.taps for phase in combination),
        strides=tuple(phase.stride for phase in combination),
        rhs_dilation=tuple(phase.dilation for phase in combination),
        lhs_dilation=(1,) * spec.ndim,
        padding=tuple(padding),
        y_dtype=spec.accumulator,
    )


def _lengths(spec: ConvSpec) -> list[int]:
    """Outputs per phase in each dimension: those of the longest, so that all are equally long."""
    counts = [min(_phase_count(spec, axis), p) for axis, p in enumerate(spec.out_spatial)]
    return [-(-p // P) for p, P in zip(spec.out_spatial, counts, strict=True)]


def _phase_count(spec: ConvSpec, axis: int) -> int:
    """P = L / gcd(s, L)."""
    return spec.lhs_dilation[axis] // math.gcd(spec.strides[axis], spec.lhs_dilation[axis])


def _combinations(spec: ConvSpec) -> list[tuple[Phase, ...]]:
    return list(itertools.product(*(phases(spec, axis) for axis in range(spec.ndim))))


@functools.lru_cache(maxsize=64)
def _subs(spec: ConvSpec) -> tuple[ConvSpec, ...]:
    """The ordinary convolutions of all phases but those that no tap reaches."""
    subs = (sub_spec(spec, combination) for combination in _combinations(spec))
    return tuple(sub for sub in subs if not sub.is_empty)


def _forward(
    inner: Algorithm, written_out: Count | None, x: jax.Array, w: jax.Array, spec: ConvSpec
) -> jax.Array:
    if written_out and is_framed(spec):
        x, spec = _framed(x, spec)
    parts = [_phase(inner, x, w, spec, combination) for combination in _combinations(spec)]
    return _interleaved(parts, spec)


def is_framed(spec: ConvSpec) -> bool:
    """Whether phases that are one loop read a copy of x with its padding around it.

    Where padding makes more than two runs of an axis, the loop chooses among dozens of sums value by value,
    which takes three to five times as long.  With two runs both take as long.
    """
    size = math.prod(spec.x_shape) * itemsize(spec.x_dtype)
    small = isinstance(size, int) and size <= KEPT
    axes = range(spec.ndim)
    return small and any(regions.are_many(sub, axis) for sub in _subs(spec) for axis in axes)


def _framed(x: jax.Array, spec: ConvSpec) -> tuple[jax.Array, ConvSpec]:
    """x with a zero around it for every L of padding, rounded up, and the spec that crops the excess."""
    frame = [
        tuple(-(-max(side, 0) // L) for side in sides)
        for sides, L in zip(spec.padding, spec.lhs_dilation, strict=True)
    ]
    x = lax.optimization_barrier(jnp.pad(x, [(0, 0), *frame, (0, 0)]))
    padding = tuple(
        (lo - a * L, hi - b * L)
        for (lo, hi), (a, b), L in zip(spec.padding, frame, spec.lhs_dilation, strict=True)
    )
    return x, spec.replace(spatial=x.shape[1:-1], padding=padding)


def _phase(
    inner: Algorithm, x: jax.Array, w: jax.Array, spec: ConvSpec, combination: tuple[Phase, ...]
) -> jax.Array:
    sub = sub_spec(spec, combination)
    if sub.is_empty:  # a phase that no tap reaches
        return jnp.zeros(sub.y_shape, sub.y_dtype)
    for axis, phase in enumerate(combination):
        w = lax.slice_in_dim(w, phase.first_tap, None, phase.tap_step, axis=axis)
    return inner.forward(x, w, sub).reshape(sub.y_shape).astype(sub.y_dtype)


def _interleaved(parts: list[jax.Array], spec: ConvSpec) -> jax.Array:
    """Every phase (n, *q, channels) → (n, *p, channels) with p = q·P + φ, the last axis first: stacks are
    copied in whole runs, one transpose of all value by value.  Four phases of rows of channels are spread by
    zeros and added, which is one loop."""
    if spec.ndim == 2 and len(parts) == 4 and not spec.channels_first:
        return lax.slice(_spread(parts, spec), (0,) * 4, spec.y_shape)
    for axis in reversed(range(spec.ndim)):
        count = len(phases(spec, axis))
        lines = [parts[i : i + count] for i in range(0, len(parts), count)]
        parts = [lax.collapse(jnp.stack(line, axis + 2), axis + 1, axis + 3) for line in lines]
    return lax.slice(parts[0], (0,) * parts[0].ndim, spec.y_shape)


def _spread(parts: list[jax.Array], spec: ConvSpec) -> jax.Array:
    counts = [len(phases(spec, axis)) for axis in range(spec.ndim)]
    zero = jnp.zeros((), spec.accumulator)
    places = itertools.product(*map(range, counts))
    between = ([(0, 0, 0), *((phi, P - 1 - phi, P - 1) for phi, P in zip(at, counts, strict=True)), (0, 0, 0)]
               for at in places)  # fmt: skip
    return functools.reduce(jnp.add, (lax.pad(part, zero, b) for part, b in zip(parts, between, strict=True)))


MAX_PHASES = 64
# The compiler merges phases that are loops into one loop, in a second for so many products of one channel per
# group, in as long for a third of them with more channels.
WRITTEN_OUT = 600


Count = Callable[[ConvSpec], float]


def _rejects(inner: Algorithm, written_out: Count | None, spec: ConvSpec) -> str | None:
    if all(d == 1 for d in spec.lhs_dilation):
        return "the input is not dilated, there is only one phase"
    if spec.taps > math.prod(spec.out_spatial):
        return "as a kernel gradient: each phase takes a part of g for its kernel"
    count = math.prod(spec.lhs_dilation)
    if count > MAX_PHASES:
        return f"{count} phases would be {count} convolutions; it takes at most {MAX_PHASES}"
    subs = _subs(spec)
    if reason := next((reason for sub in subs if (reason := inner.rejects(sub))), None):
        return reason
    products = sum(map(written_out, subs)) if written_out else 0
    most = WRITTEN_OUT if spec.c == 1 else WRITTEN_OUT // 3
    if products > most:
        return f"{products} products in one loop over all phases; at most {most} are written out"
    return None


def _steps(inner: Algorithm, written_out: Count | None, spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    each = sum((inner.steps(sub, "forward") for sub in _subs(spec)), ())
    if written_out:
        return (_as_one_loop([step for step in each if isinstance(step, Loop)], spec),)
    y = 2 * math.prod(spec.y_shape) * itemsize(spec.accumulator)
    if not spec.channels_first:
        return *each, Loop(0, 2 * spec.kernel_bytes), Loop(0, y, spec.out_channels)
    # every R-th tap is taken while the kernel is transposed, and y is interleaved while it is transposed
    return *each, Loop(0, 2 * FLIPPED * spec.kernel_bytes), Loop(0, y, 1)


def _as_one_loop(loops: list[Loop], spec: ConvSpec) -> Loop:
    """The one loop into which the compiler merges the phases of a multiply-add and their interleaving."""
    x, y = math.prod(spec.x_shape), math.prod(spec.y_shape)
    flops = sum(loop.flops * loop.count for loop in loops)
    return Loop(
        flops * (1 if spec.c == 1 else 1.5),  # interleaved while x is broadcast
        (x + 2 * y) * itemsize(spec.accumulator),
        max((loop.run for loop in loops), default=1),
    )


def _workspace(inner: Algorithm, written_out: Count | None, spec: ConvSpec, role: Role) -> int:
    """Bytes of the phases before they are interleaved (none where one loop does both), and of the largest
    one's temporaries, or half of all phases' if that is more, since the compiler prepares every phase before
    it multiplies the first."""
    inside = [inner.workspace(sub, "forward") for sub in _subs(spec)]
    parts = 0 if written_out else math.prod(spec.y_shape) * itemsize(spec.accumulator)
    return parts + max(max(inside, default=0), sum(inside) // 2)


def by_phase(inner: Algorithm, written_out: Count | None = None) -> Algorithm:
    """The algorithm that computes every phase with `inner`.

    `written_out` counts the products of an `inner` that is itself a loop; all phases are then one loop.
    """
    return Algorithm(
        "phase",
        functools.partial(_forward, inner, written_out),
        functools.partial(_rejects, inner, written_out),
        functools.partial(_steps, inner, written_out),
        functools.partial(_workspace, inner, written_out),
        exact=inner.exact,
        reads_channels_first=inner.reads_channels_first,
        reads_kernel=True,
        variant=f"{inner.name} inside",
    )
