"""How long the steps of an algorithm take on a platform.

A step is limited by arithmetic or by memory, whichever takes longer, plus what starting it costs:

    Gemm     2·m·n·k / (peak · utilisation)      small sides leave vector registers and threads idle
    Loop     max(flops / rate, bytes / bandwidth)
    Fft      2.5·N·log2 N per real transform
    Native   the platform's own convolution, by the route its compiler takes
    OneDnn   2·macs / (peak · utilisation) + bytes / bandwidth

The rates are those of `rates.py`.
"""

import math

from jconv.algorithms.pieces import CACHED
from jconv.algorithms.record import Fft, Gemm, Loop, Native, OneDnn, Repeated, Step
from jconv.choice.rates import Direct, Platform, Route
from jconv.spec import ConvSpec, itemsize

# An algorithm replaces XLA's own convolution only if that is estimated to take at least MARGIN times as long
# plus SLACK seconds; estimates that differ by less than MARGIN count as equal.
MARGIN = 1.2
SLACK = 20e-6
THREADS = 50e-6  # seconds that oneDNN takes to start its threads
STREAMED = 1.15  # times that oneDNN takes longer with a kernel that no cache holds
HALVES = 1.3  # times that bfloat16 takes longer on a processor that has no instructions for it
TINY = 4e5  # FLOPs below which oneDNN starts fewer, and what replaces XLA's own has to gain 4·SLACK

WRITTEN = 8e9  # bytes/s of writing a copy, and of mapping a large buffer for it anew
STREAMING = 30e9  # FLOP/s of YNNPACK with a kernel that no cache holds and every few outputs read anew
KEPT_MAPPED = 32 << 20  # bytes; a larger buffer is mapped anew in every call


def total(steps: tuple[Step, ...], workspace: int, rates: Platform) -> float:
    """Estimated seconds of all steps, one after the other, with `workspace` bytes of temporaries."""
    return sum(seconds(step, rates) for step in steps) + _mapping(workspace) + rates.call


def seconds(step: Step, rates: Platform) -> float:
    """Estimated seconds of one step."""
    match step:
        case Gemm(count, m, n, k):
            rate = rates.gemm * math.prod(side / (side + rates.half_side) for side in (m, n, k))
            return 2 * count * m * n * k / rate + rates.call
        case Loop(flops, size, run, count):
            used = run / (run + rates.half_run)
            moving = size / (rates.bandwidth if flops else rates.copy)
            return count * (max(flops / rates.loop, moving) / used + rates.call)
        case Fft(count, length):
            return 2.5 * count * length * math.log2(max(length, 2)) / rates.fft + rates.call
        case Native(spec):
            return native(spec, rates)
        case OneDnn(spec, streamed) if rates.onednn:
            return onednn(spec, rates.onednn, streamed)
        case Repeated(steps, count):
            return count * sum(seconds(step, rates) for step in steps)
    raise TypeError(f"not a step: {step!r}")


def onednn(spec: ConvSpec, way: Direct, streamed: bool = False) -> float:
    """Estimated seconds of a convolution by oneDNN; longer if its kernel is streamed, the more so the fewer
    products of a row and its channels share what starting them costs."""
    channels = spec.out_channels if spec.is_depthwise else spec.o  # side by side in a vector
    used = channels / (-(-channels // way.lanes) * way.lanes)  # a last one that is not full takes as long
    wide = 2 if spec.x_dtype == "bfloat16" else 1  # two fit where one float32 does
    rate = used * (way.depthwise if spec.is_depthwise else way.rate * wide)
    transposed = spec.channels_first and spec.taps > 1  # a 1×1 kernel multiplies planes as they lie
    images = spec.image_bytes / (way.channels_first if transposed else way.bandwidth)
    apart = 2 if spec.is_depthwise and any(d > 1 for d in spec.rhs_dilation) else 1  # taps share no loads
    working = apart * (spec.flops / rate + images) + spec.kernel_bytes / way.kernel
    started = (2 if transposed else 1) * min(1.0, spec.flops / TINY)  # x and y are copied beside it
    time = working + way.call + THREADS * started
    return time * (STREAMED + way.lanes / (spec.out_spatial[-1] * spec.c)) if streamed else time


def native(spec: ConvSpec, rates: Platform) -> float:
    """Estimated seconds of the platform's own convolution."""
    taken = route(spec)
    way = rates.native[taken]
    time = _multiplying(spec, taken, rates) + _gathering(spec, taken, way)
    time += spec.bytes / way.bandwidth + spec.kernel_bytes / way.kernel
    copied = 2 * spec.bytes if taken == "eigen" and spec.is_half else 0  # halves as float32
    if taken == "ynn" and spec.taps > 1 and not spec.is_padded and not spec.is_strided:
        copied = spec.positions * spec.taps * spec.c * itemsize(spec.x_dtype)  # all patches
    return time + copied / WRITTEN + _mapping(copied) + way.call * spec.groups


def _multiplying(spec: ConvSpec, taken: str, rates: Platform) -> float:
    """Seconds of the products alone."""
    way, k, flops = rates.native[taken], float(spec.taps * spec.c), float(spec.flops)
    if taken in ("eigen_transposed", "naive"):  # these skip the zeros between the inputs
        k, flops = (size / math.prod(spec.lhs_dilation) for size in (k, flops))
    time = flops / (way.rate * k / (k + way.half_k) * spec.o / (spec.o + way.half_o))
    if taken == "ynn_kernel" and spec.kernel_bytes > CACHED // 2:  # half is one core's
        return max(time, flops / STREAMING)
    larger = any(k > h for k, h in zip(spec.kernel, spec.spatial, strict=True))
    return time + flops / rates.native["naive"].rate if taken == "eigen_kernel" and larger else time


def _mapping(size: int, rate: float = WRITTEN) -> float:
    """Seconds of mapping a buffer of so many bytes, where it does not stay mapped."""
    return size / rate if size > KEPT_MAPPED else 0.0


def _gathering(spec: ConvSpec, taken: str, way: Route) -> float:
    """Seconds spent writing patches (for a dilated input: writing and summing every input × tap product, and
    longer where their buffer is mapped anew)."""
    if taken == "eigen_transposed":
        size = 4 * spec.batch * math.prod(spec.spatial) * spec.taps * spec.out_channels
        return size / (way.packing * min(spec.o, way.packed)) + _mapping(size, way.unmapped)
    run = spec.c * spec.kernel[-1] if taken == "ynn" and spec.ndim else spec.c
    size = 4 * spec.positions * spec.taps * spec.c
    passes = 1
    if taken == "eigen_3d":  # computes the address of every few values instead, unless there is only one tap
        passes = spec.groups * (spec.taps > 1)
    elif taken.endswith("_kernel"):  # a patch is nearly the whole image: a copy for padding, one for dilation
        passes = (spec.ndim > 1 and spec.is_padded) + any(d > 1 for d in spec.rhs_dilation)
    return passes * size / (way.packing * min(run, way.packed))


def route(spec: ConvSpec) -> str:
    """The name of the way that XLA:CPU computes a convolution, as read in its source (jaxlib 0.10).

    YNNPACK takes 2-D convolutions of one group in f32, f64 or int8 to int32 (the last in groups too) with
    more than 16 channels in or out, output and kernel no larger than the input, and no input dilation.
    Eigen takes the other f32 and half-precision ones in 1 to 3 dimensions, group by group; a dilated input
    only in 1 or 2 dimensions without strides (in groups it multiplies the zeros).  A naive loop takes the
    rest.  A kernel larger than the output (a kernel gradient) has rates of its own ("…_kernel") but in 3-D.
    """
    kernel = "_kernel" if spec.taps > math.prod(spec.out_spatial) else ""
    bytes_in_words_out = (spec.x_dtype, spec.y_dtype) == ("int8", "int32")
    one_group = spec.groups == 1 or bytes_in_words_out
    if not spec.has_gaps and spec.ndim == 2 and one_group and max(spec.c, spec.o) > 16:
        shrinks = all(p <= h for p, h in zip(spec.out_spatial, spec.spatial, strict=True))
        fits = all(k <= h for k, h in zip(spec.kernel, spec.spatial, strict=True))
        if shrinks and fits and (bytes_in_words_out or spec.x_dtype in ("float32", "float64")):
            return "ynn" + kernel
    halves = ("float32", "bfloat16", "float16")
    if not (1 <= spec.ndim <= 3 and spec.x_dtype in halves):
        return "naive"
    if spec.has_gaps and (kernel or spec.ndim == 3 or spec.is_strided):
        return "naive"
    if spec.has_gaps and spec.groups == 1:
        return "eigen_transposed"
    if spec.groups > 1 and spec.ndim < 3:
        return "eigen_grouped" + kernel
    return "eigen" + {1: kernel or "_1d", 2: kernel, 3: "_3d"}[spec.ndim]


def duration(seconds: float) -> str:
    """Three digits with a unit.

    >>> duration(0.00123), duration(4.2e-6), duration(12.0)
    ('1.23 ms', '4.2 µs', '12 s')
    """
    unit, size = ("s", 1.0) if seconds >= 1 else ("ms", 1e-3) if seconds >= 1e-3 else ("µs", 1e-6)
    return f"{seconds / size:.3g} {unit}"
