"""How long the steps of an algorithm take on a platform: a handful of measured constants.

Every constant stands with the date and the machine it was measured on.  They need not be right, only
right enough that the order of the algorithms is; `jconv.tune` measures where that is not enough.
"""

from __future__ import annotations

import dataclasses

from jconv.algorithm import Fft, Gemm, Loop, Native, Step


@dataclasses.dataclass(frozen=True)
class Platform:
    """Rates of one kind of device."""

    gemm: float  # FLOP/s of a large float32 matrix product
    bandwidth: float  # bytes/s of one fused loop
    loop: float  # FLOP/s of one fused loop
    native: float  # FLOP/s of the compiler's own convolution, dense
    call: float  # seconds per step


CPU = Platform(gemm=350e9, bandwidth=20e9, loop=20e9, native=200e9, call=3e-6)
PLATFORMS = {"cpu": CPU}


def seconds(step: Step, platform: Platform) -> float:
    """Estimated time of one step."""
    match step:
        case Gemm(count, m, n, k):
            return 2 * count * m * n * k / platform.gemm + count * platform.call
        case Loop(flops, size):
            return max(flops / platform.loop, size / platform.bandwidth) + platform.call
        case Fft(count, length):
            return count * 5 * length / platform.loop + platform.call
        case Native(spec):
            return spec.flops * spec.groups / platform.native + platform.call
