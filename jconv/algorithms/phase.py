"""Transposed convolution by output phase: never a multiplication by an inserted zero.

With the input dilated by L, output p sees tap r only where p·stride + r·rhs_dilation − lo is a multiple of L.
Which taps these are depends on p mod P alone, P = L / gcd(stride, L): the phase φ.  Each phase is an ordinary
convolution with every R-th tap from r0 on, R = L / gcd(rhs_dilation, L), and the phases are interleaved:

    y[φ + P·q] = Σ_i x[ (φ·stride + r0·rhs_dilation − lo + q·stride·P + i·rhs_dilation·R) / L ] · w[r0 + R·i]

Cost: the useful multiplications, in Π P small convolutions.  Wins over dilating the input whenever L > 1;
for large L a phase has few taps, and `overlap_add` wins.

Source: the polyphase decomposition of a rational resampler (Vaidyanathan, "Multirate systems and filter
banks", 1993).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import InconclusiveDimensionOperation

from jconv.algorithms import regions
from jconv.algorithms.pieces import IN_CACHE
from jconv.algorithms.record import Algorithm, Loop, Step
from jconv.algorithms.windows import WRITTEN_OUT, resized
from jconv.algorithms.work import FLIPPED
from jconv.spec import ConvSpec, Role, extent

# The compiler merges phases that are loops into one loop, in a second for so many products of one channel per
# group, in as long for a third of them with more channels.
IN_ONE_LOOP = 600


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
    P, R = L // math.gcd(s, L), L // math.gcd(d, L)
    found = []
    for phi in range(min(P, spec.out_spatial[axis])):
        first = next((r for r in range(min(R, k)) if (phi * s + r * d - lo) % L == 0), k)
        start = (phi * s + first * d - lo) // L
        found.append(Phase(len(range(first, k, R)), first, R, start, s * P // L, d * R // L))
    return found


def _combinations(spec: ConvSpec) -> list[tuple[tuple[Phase, ...], ConvSpec]]:
    """Every combination of phases, and the ordinary convolution that it is, all equally long."""
    along = [phases(spec, axis) for axis in range(spec.ndim)]
    lengths = [-(-p // len(found)) for p, found in zip(spec.out_spatial, along, strict=True)]

    def convolution(chosen: tuple[Phase, ...]) -> ConvSpec:
        read = [(n - 1) * f.stride + extent(f.taps, f.dilation) for f, n in zip(chosen, lengths, strict=True)]
        sizes = zip(chosen, read, spec.spatial, strict=True)
        return spec.replace(
            kernel=tuple(f.taps for f in chosen),
            strides=tuple(f.stride for f in chosen),
            rhs_dilation=tuple(f.dilation for f in chosen),
            lhs_dilation=(1,) * spec.ndim,
            padding=tuple((-f.start, r - h + f.start) for f, r, h in sizes),
            y_dtype=spec.accumulator,
        )

    return [(chosen, convolution(chosen)) for chosen in itertools.product(*along)]


@functools.lru_cache(maxsize=64)
def _subs(spec: ConvSpec) -> tuple[ConvSpec, ...]:
    """The ordinary convolutions of all phases but those that no tap reaches."""
    return tuple(sub for _, sub in _combinations(spec) if not sub.is_empty)


def is_framed(spec: ConvSpec) -> bool:
    """Whether phases that are one loop read a copy of x with its padding around it.

    Where padding makes more than two runs of an axis, the loop chooses among dozens of sums value by value,
    which takes three to five times as long.  With two runs both take as long.
    """
    size = spec.x_bytes
    small = isinstance(size, int) and size <= IN_CACHE
    return small and any(regions.are_many(sub, axis) for sub in _subs(spec) for axis in range(spec.ndim))


def _framed(x: jax.Array, spec: ConvSpec) -> tuple[jax.Array, ConvSpec]:
    """x with a zero around it for every L of padding, rounded up, and the spec that crops the excess."""
    sides = list(zip(spec.padding, spec.lhs_dilation, strict=True))
    frame = [(-(-max(lo, 0) // L), -(-max(hi, 0) // L), 0) for (lo, hi), L in sides]
    x = lax.optimization_barrier(resized(x, frame))
    left = tuple((lo - a * L, hi - b * L) for ((lo, hi), L), (a, b, _) in zip(sides, frame, strict=True))
    return x, spec.replace(spatial=x.shape[1:-1], padding=left)


Count = Callable[[ConvSpec], float]


def _forward(
    inner: Algorithm, written_out: Count | None, x: jax.Array, w: jax.Array, spec: ConvSpec
) -> jax.Array:
    if written_out and is_framed(spec):
        x, spec = _framed(x, spec)
    parts = []
    for chosen, sub in _combinations(spec):
        seen = tuple(slice(phase.first_tap, None, phase.tap_step) for phase in chosen)
        taps = w[seen] if written_out else _gathered(w, seen, spec)
        y = jnp.zeros(sub.y_shape) if sub.is_empty else inner.forward(x, taps, sub)
        parts.append(y.reshape(sub.y_shape).astype(sub.y_dtype))
    counts = [len(phases(spec, axis)) for axis in range(spec.ndim)]
    spread = len(parts) == 4 and spec.ndim == 2 and not spec.channels_first and not written_out
    y = _spread(parts, counts) if spread else _stacked(parts, counts)
    y = lax.slice(y, (0,) * y.ndim, spec.y_shape)
    return lax.optimization_barrier(y) if written_out and not spec.channels_first else y


def _gathered(w: jax.Array, seen: tuple[slice, ...], spec: ConvSpec) -> jax.Array:
    """w[seen], by the numbers of the taps: the compiler makes one function of gathers that differ in numbers
    alone, and one of every slice."""
    numbers = np.arange(spec.taps).reshape(spec.kernel)[seen]
    rows = w.reshape(spec.taps, *w.shape[spec.ndim :])
    taken = rows.at[numbers.reshape(-1)].get(mode="promise_in_bounds")
    return taken.reshape(*numbers.shape, *rows.shape[1:])


def _spread(parts: list[jax.Array], counts: list[int]) -> jax.Array:
    """Every phase (n, *q, channels) → (n, *p, channels) with p = q·P + φ, spread by zeros and added, which is
    one loop over four phases of rows of channels."""
    places = itertools.product(*map(range, counts))
    between = ([(phi, P - 1 - phi, P - 1) for phi, P in zip(at, counts, strict=True)] for at in places)
    return functools.reduce(lax.add, map(resized, parts, between))


def _stacked(parts: list[jax.Array], counts: list[int]) -> jax.Array:
    """The same, the last axis first: stacks are copied in whole runs, one transpose of all value by value."""
    for axis, count in reversed(list(enumerate(counts))):
        lines = [parts[i : i + count] for i in range(0, len(parts), count)]
        parts = [lax.collapse(jnp.stack(line, axis + 2), axis + 1, axis + 3) for line in lines]
    return parts[0]


def _rejects(inner: Algorithm, written_out: Count | None, spec: ConvSpec) -> str | None:
    if not spec.has_gaps:
        return "the input is not dilated, there is only one phase"
    if spec.taps > math.prod(spec.out_spatial):
        return "as a kernel gradient: each phase takes a part of g for its kernel"
    count = math.prod(spec.lhs_dilation)
    if count > WRITTEN_OUT:
        return f"{count} phases would be {count} convolutions; it takes at most {WRITTEN_OUT}"
    subs = _subs(spec)
    if reason := next((reason for sub in subs if (reason := inner.rejects(sub))), None):
        return reason
    products = sum(map(written_out, subs)) if written_out else 0
    most = IN_ONE_LOOP if spec.c == 1 else IN_ONE_LOOP // 3
    if products > most:
        return f"{products} products in one loop over all phases; at most {most} are written out"
    return None


def _steps(inner: Algorithm, written_out: Count | None, spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    each = sum((inner.steps(sub, "forward") for sub in _subs(spec)), ())
    if written_out:
        return (_as_one_loop([step for step in each if isinstance(step, Loop)], spec),)
    y = 2 * spec.wide.y_bytes
    if not spec.channels_first:
        return *each, Loop(0, 2 * spec.kernel_bytes), Loop(0, y, spec.out_channels)
    # every R-th tap is taken while the kernel is transposed, and y is interleaved while it is transposed
    return *each, Loop(0, 2 * FLIPPED * spec.kernel_bytes), Loop(0, y, 1)


def _workspace(inner: Algorithm, written_out: Count | None, spec: ConvSpec, role: Role) -> int:
    """Bytes of the phases before they are interleaved (none where one loop does both), and of the largest
    one's temporaries, or half of all phases' if that is more, since the compiler prepares every phase
    before it multiplies the first."""
    inside = [inner.workspace(sub, "forward") for sub in _subs(spec)]
    parts = 0 if written_out else spec.wide.y_bytes
    return parts + max(max(inside, default=0), sum(inside) // 2)


def _as_one_loop(loops: list[Loop], spec: ConvSpec) -> Loop:
    """The one loop into which the compiler merges the phases of a multiply-add and their interleaving."""
    flops = sum(loop.flops * loop.count for loop in loops)
    if spec.c > 1:  # interleaved while x is broadcast
        flops *= 1.5
    moved = spec.wide.image_bytes + spec.wide.y_bytes
    return Loop(flops, moved, max((loop.run for loop in loops), default=1))


def by_phase(inner: Algorithm, written_out: Count | None = None) -> Algorithm:
    """The algorithm that computes every phase with `inner`.

    `written_out` counts the products of an `inner` that is itself a loop; all phases are then one loop.
    """
    bound = functools.partial
    return Algorithm(
        "phase",
        bound(_forward, inner, written_out),
        bound(_rejects, inner, written_out),
        bound(_steps, inner, written_out),
        bound(_workspace, inner, written_out),
        exact=inner.exact,
        reads_channels_first=inner.reads_channels_first,
        reads_kernel=True,
        variant=f"{inner.name} inside",
    )
