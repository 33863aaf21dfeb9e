"""How long the steps of an algorithm take on a platform: a handful of measured constants.

A step is limited by arithmetic or by memory, whichever takes longer, plus what starting it costs:

    Gemm     2·m·n·k / (peak · utilisation)      small sides leave vector registers and threads idle
    Loop     max(flops / rate, bytes / bandwidth)
    Fft      2.5·N·log2 N per real transform
    Native   the platform's own convolution, by the route its compiler takes

Every constant stands with the date and the machine it was measured on.  They need not be right, only
right enough that the order of the algorithms is; `jconv.tune` measures where that is not enough.
"""

from __future__ import annotations

import dataclasses
import math

from jconv.algorithm import Fft, Gemm, Loop, Native, Step
from jconv.spec import ConvSpec

# An estimate is rarely closer than this, relative and in seconds; XLA's own wins ties.
MARGIN = 1.1
SLACK = 30e-6


@dataclasses.dataclass(frozen=True)
class Route:
    """One way the platform's compiler computes a convolution.

    Reaches `rate` FLOP/s · k / (k + half_k) · o / (o + half_o), k = taps·c the length of the sums, o
    the output channels of a group; plus gathering the patches at `packing` bytes/s per channel that lies
    side by side, the bytes of x, w and y at `bandwidth`, and `call` per group.
    """

    rate: float
    half_k: float = 0.0
    half_o: float = 0.0
    packing: float = math.inf
    bandwidth: float = math.inf
    call: float = 10e-6


@dataclasses.dataclass(frozen=True)
class Platform:
    """Rates of one kind of device, in FLOP/s, bytes/s and seconds.

    Args:
      gemm: matrix products; `half` are the sides m, n, k at which half of it is reached.
      loop: one fused elementwise loop over long runs; `half_run` is the run at which half is.
      bandwidth: the memory traffic of such a loop; `copy`: of one that only moves values.
      fresh: extra seconds per byte of temporaries of more than `large` bytes.
      fft: real transforms.
      native: the platform's own convolution, by route.
      call: starting one step; `batched`: each further product of a batched GEMM.
      measured: whether these are measured times, or only what a data sheet promises.
    """

    gemm: float
    half: tuple[float, float, float]
    loop: float
    half_run: float
    bandwidth: float
    copy: float
    fresh: float
    large: float
    fft: float
    native: dict[str, Route]
    call: float
    batched: float
    measured: bool = True


# 2 cores, jax 0.10.2, 2026-11: fitted to 2123 times measured on an AMD EPYC with AVX-512, and the platform's
# own convolutions mended by 4841 measured on an Intel Xeon (263 convolutions in three roles).  There the
# algorithm taken takes 1.12 times the best one's time in the geometric mean, and XLA's programs 1.3 times
# what is estimated, most of them alike.
CPU = Platform(
    gemm=320e9,
    half=(33, 36, 22),
    loop=36e9,
    half_run=2.4,
    bandwidth=115e9,
    copy=53e9,
    fresh=0.04e-9,
    large=16e6,
    fft=13e9,
    native={
        "ynn": Route(220e9, 7, 3, 4.3e9, 45e9, call=4e-6),
        "ynn_kernel": Route(150e9, bandwidth=6e9, call=9e-6),
        "eigen": Route(560e9, 13, 6, 2.3e9, 18e9, call=6e-6),
        "eigen_kernel": Route(160e9, packing=3e9, bandwidth=66e9, call=50e-6),
        "eigen_1d": Route(490e9, 8, 4, 1.7e9, 24e9, call=45e-6),
        "eigen_1d_kernel": Route(150e9, bandwidth=15e9, call=63e-6),
        "eigen_grouped": Route(175e9, 82, 20, 1.2e9, 14e9, call=27e-6),
        "eigen_grouped_kernel": Route(9e9, call=1e-3),
        "eigen_transposed": Route(270e9, 60, 8, bandwidth=25e9, call=20e-6),
        "eigen_3d": Route(300e9, 0, 220, 2e9, call=39e-6),
        "eigen_3d_kernel": Route(150e9, 0, 220, 2e9, call=9e-6),
        "naive": Route(1.2e9, call=9e-6),
    },
    call=11e-6,
    batched=0.3e-6,
)
# Not measured: from the data sheet of an H200, so that "auto" has an order to follow there.
GPU = Platform(
    gemm=40e12,
    half=(64, 64, 64),
    loop=30e12,
    half_run=1,
    bandwidth=3e12,
    copy=3e12,
    fresh=0.0,
    large=math.inf,
    fft=5e12,
    native={"cudnn": Route(40e12, 32, 32, bandwidth=3e12, call=4e-6)},
    call=4e-6,
    batched=0.0,
    measured=False,
)
PLATFORMS = {"cpu": CPU, "cuda": GPU, "gpu": GPU, "rocm": GPU}

PACKED_RUN = 24  # values side by side beyond which gathering gets no faster
LARGE_IMAGE = 3e4  # output positions at which YNNPACK's stride-1 convolution takes twice as long


def platform(name: str) -> Platform:
    """The constants of a platform; an unknown one is taken to be a GPU-like accelerator."""
    return PLATFORMS.get(name, GPU)


def total(steps: tuple[Step, ...], workspace: int, rates: Platform) -> float:
    """Estimated seconds of all steps, one after the other, with `workspace` bytes of temporaries."""
    fresh = rates.fresh * workspace if workspace > rates.large else 0.0
    return sum(seconds(step, rates) for step in steps) + fresh + rates.call


def seconds(step: Step, rates: Platform) -> float:
    """Estimated seconds of one step."""
    match step:
        case Gemm(count, m, n, k):
            used = math.prod(size / (size + h) for size, h in zip((m, n, k), rates.half, strict=True))
            return 2 * count * m * n * k / (rates.gemm * used) + rates.call + (count - 1) * rates.batched
        case Loop(flops, size, run):
            used = run / (run + rates.half_run)
            moving = size / (rates.bandwidth if flops else rates.copy)
            return max(flops / rates.loop, moving) / used + rates.call
        case Fft(count, length):
            return 2.5 * count * length * math.log2(max(length, 2)) / rates.fft + rates.call
        case Native(spec):
            return native(spec, rates)
    raise TypeError(f"not a step: {step!r}")


def native(spec: ConvSpec, rates: Platform) -> float:
    """Estimated seconds of the platform's own convolution."""
    taken = "cudnn" if "cudnn" in rates.native else route(spec)
    way = rates.native[taken]
    time = _multiplying(spec, taken, way) + _gathering(spec, taken, way) + spec.bytes / way.bandwidth
    return time * _slowed(spec, taken) + way.call * spec.groups


def _multiplying(spec: ConvSpec, taken: str, way: Route) -> float:
    k, flops = float(spec.taps * spec.c), float(spec.flops)
    if taken in ("eigen_transposed", "naive"):  # they leave the zeros between the inputs out
        k, flops = (size / math.prod(spec.lhs_dilation) for size in (k, flops))
    return flops / (way.rate * k / (k + way.half_k) * spec.o / (spec.o + way.half_o))


def _gathering(spec: ConvSpec, taken: str, way: Route) -> float:
    """Of patches; one as large as an image without a frame is the image as it lies."""
    framed = any(side > 0 for sides in spec.padding for side in sides)
    if taken.endswith("_kernel") and not framed:
        return 0.0
    run = spec.c * spec.kernel[-1] if taken == "ynn" and spec.ndim else spec.c
    return 4 * spec.positions * spec.taps * spec.c / (way.packing * min(run, PACKED_RUN))


def _slowed(spec: ConvSpec, taken: str) -> float:
    if taken == "ynn" and all(s == 1 for s in spec.strides):
        return 1 + (math.prod(spec.out_spatial) / LARGE_IMAGE) ** 1.8
    return 1.0


def route(spec: ConvSpec) -> str:
    """Which of XLA:CPU's ways a convolution takes, read in its source (jaxlib 0.10).

    YNNPACK: 2-D, one group, f32, f64 or int8 to int32 (in groups too), more than 16 channels on a side,
    output and kernel no larger than the input, no input dilation.  Eigen: other f32 and halves in 1 to
    3 dimensions, group by group; with a dilated input in 1 or 2 without strides (in groups its zeros are
    multiplied).  Else a naive loop.  A kernel larger than the output (a kernel gradient) has rates of
    its own.
    """
    plain = all(d == 1 for d in spec.lhs_dilation)
    kernel = "_kernel" if spec.taps > math.prod(spec.out_spatial) else ""
    bytes_in_words_out = (spec.x_dtype, spec.y_dtype) == ("int8", "int32")
    one_group = spec.groups == 1 or bytes_in_words_out
    if plain and spec.ndim == 2 and one_group and max(spec.c, spec.o) > 16:
        shrinks = all(p <= h for p, h in zip(spec.out_spatial, spec.spatial, strict=True))
        fits = all(k <= h for k, h in zip(spec.kernel, spec.spatial, strict=True))
        if shrinks and fits and (bytes_in_words_out or spec.x_dtype in ("float32", "float64")):
            return "ynn" + kernel
    halves = ("float32", "bfloat16", "float16")
    if not (1 <= spec.ndim <= 3 and spec.x_dtype in halves):
        return "naive"
    if not plain and (kernel or spec.ndim == 3 or any(s != 1 for s in spec.strides)):
        return "naive"
    if not plain and spec.groups == 1:
        return "eigen_transposed"
    if spec.groups > 1 and (spec.ndim < 3 or kernel):
        return "eigen_grouped" + kernel
    return "eigen" + {1: "_1d", 2: "", 3: "_3d"}[spec.ndim] + kernel
