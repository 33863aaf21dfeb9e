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

MARGIN = 1.1  # an estimate is rarely closer than this; XLA's own wins ties


@dataclasses.dataclass(frozen=True)
class Platform:
    """Rates of one kind of device, in FLOP/s, bytes/s and seconds.

    Args:
      gemm: large matrix products; `half` is the length of a side at which half of that is reached.
      loop: one fused elementwise loop that stays in registers and cache.
      bandwidth: its memory traffic.
      fresh: extra seconds per byte of a buffer too large for the allocator to keep (`large`).
      fft: transforms.
      native: the platform's own convolution, by route.
      call: starting one step.
    """

    gemm: float
    half: tuple[float, float, float]
    loop: float
    bandwidth: float
    fresh: float
    large: float
    fft: float
    native: dict[str, float]
    call: float


# AMD EPYC with AVX-512, 2 cores, jax 0.10.2, 2026-11
CPU = Platform(
    gemm=400e9,
    half=(8, 16, 24),
    loop=60e9,
    bandwidth=30e9,
    fresh=0.27e-3 / 2**20,
    large=32 * 2**20,
    fft=6e9,
    native={"ynn": 250e9, "eigen": 320e9, "naive": 1e9},
    call=3e-6,
)
# Not measured: an H200's data sheet, so that "auto" has an order to follow there.
GPU = Platform(
    gemm=400e12,
    half=(64, 64, 64),
    loop=30e12,
    bandwidth=3e12,
    fresh=0.0,
    large=math.inf,
    fft=10e12,
    native={"cudnn": 300e12},
    call=4e-6,
)
PLATFORMS = {"cpu": CPU, "cuda": GPU, "gpu": GPU, "rocm": GPU}


def platform(name: str) -> Platform:
    """The constants of a platform; an unknown one is taken to be a GPU-like accelerator."""
    return PLATFORMS.get(name, GPU)


def total(steps: tuple[Step, ...], rates: Platform, spec: ConvSpec) -> float:
    """Estimated seconds of all steps, one after the other."""
    return sum(seconds(step, rates) for step in steps) + rates.call


def seconds(step: Step, rates: Platform) -> float:
    """Estimated seconds of one step."""
    match step:
        case Gemm(count, m, n, k):
            used = math.prod(size / (size + h) for size, h in zip((m, n, k), rates.half, strict=True))
            return 2 * count * m * n * k / (rates.gemm * used) + rates.call
        case Loop(flops, size):
            fresh = rates.fresh * size / 2 if size / 2 > rates.large else 0.0
            return max(flops / rates.loop, size / rates.bandwidth) + fresh + rates.call
        case Fft(count, length):
            return 2.5 * count * length * math.log2(max(length, 2)) / rates.fft + rates.call
        case Native(spec):
            return native(spec, rates)
    raise TypeError(f"not a step: {step!r}")


def native(spec: ConvSpec, rates: Platform) -> float:
    """Estimated seconds of the platform's own convolution."""
    if "cudnn" in rates.native:
        return spec.flops * spec.groups / rates.native["cudnn"] + rates.call
    return spec.flops / rates.native[route(spec)] + rates.call * spec.groups


def route(spec: ConvSpec) -> str:
    """Which of XLA:CPU's three ways a convolution takes, read in its source (jaxlib 0.10).

    YNNPACK: 2-D, one group, f32 or f64, more than 16 channels on a side, output and kernel no larger
    than the input, no input dilation.  Eigen: other f32 and halves in 1 to 3 dimensions.  Else a naive
    loop.
    """
    plain = all(d == 1 for d in spec.lhs_dilation)
    if spec.ndim == 2 and spec.groups == 1 and plain and max(spec.c, spec.o) > 16:
        shrinks = all(p <= h for p, h in zip(spec.out_spatial, spec.spatial, strict=True))
        fits = all(k <= h for k, h in zip(spec.kernel, spec.spatial, strict=True))
        if shrinks and fits and spec.x_dtype in ("float32", "float64"):
            return "ynn"
    halves = ("float32", "bfloat16", "float16")
    return "eigen" if 1 <= spec.ndim <= 3 and spec.x_dtype in halves and plain else "naive"
