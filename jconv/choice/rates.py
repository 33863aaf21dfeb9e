"""What the machines can do: measured rates, one record for each kind of device.

The rates need only be accurate enough to put the algorithms in the right order; `jconv.tune` measures where
that is not enough.  On what machine and how they were measured: docs/measured.md, "Rates".
"""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Route:
    """One way the platform's compiler computes a convolution, whose sums have the length k = taps·c."""

    rate: float  # FLOP/s; reached are rate · k / (k + half_k) · o / (o + half_o)
    half_k: float = 6
    half_o: float = 3
    packing: float = math.inf  # bytes/s of gathering patches, per channel side by side, `packed` at most
    bandwidth: float = math.inf  # bytes/s of reading x and w and writing y
    kernel: float = math.inf  # bytes/s of reading the kernel once more
    unmapped: float = math.inf  # bytes/s of mapping a buffer of products too large to stay mapped
    call: float = 45e-6  # seconds per group
    packed: float = 14


@dataclasses.dataclass(frozen=True)
class Direct:
    """oneDNN's convolution."""

    rate: float  # FLOP/s; reached are rate · o / (o rounded up to lanes), o being a group's output channels
    lanes: int  # output channels of a group that fill a vector register
    depthwise: float  # FLOP/s where a group has one channel
    bandwidth: float  # bytes/s of reading x and writing y
    channels_first: float  # the same where they lie so
    kernel: float  # bytes/s of copying the kernel into the order in which it is multiplied
    call: float  # seconds


@dataclasses.dataclass(frozen=True)
class Platform:
    """Rates of one kind of device, in FLOP/s, bytes/s and seconds."""

    gemm: float  # matrix products of (m, k) with (k, n), halved by every side of `half_side`
    half_side: float
    loop: float  # one fused elementwise loop over long runs
    half_run: float  # the run length that reaches half of that
    bandwidth: float  # the memory traffic of such a loop
    copy: float  # that of a loop that only moves values
    fft: float  # real transforms
    native: dict[str, Route]  # the platform's own convolution, by route
    call: float  # starting one step
    onednn: Direct | None = None


# 2 cores with AVX-512, of either maker: XLA's libraries run the same code on both.
CPU = Platform(
    gemm=320e9,
    half_side=25,
    loop=36e9,
    half_run=2.4,
    bandwidth=115e9,
    copy=53e9,
    fft=13e9,
    native={
        "ynn": Route(220e9, packing=4.3e9, bandwidth=45e9, kernel=10e9, call=4e-6),
        "ynn_kernel": Route(180e9, bandwidth=7e9),
        "eigen": Route(460e9, packing=2.1e9, bandwidth=17e9),
        "eigen_kernel": Route(240e9, half_o=20, packing=4e9, bandwidth=20e9),
        "eigen_1d": Route(360e9, packing=1.7e9, bandwidth=24e9),
        "eigen_grouped": Route(140e9, half_o=20),
        "eigen_grouped_kernel": Route(36e9, half_o=20),
        "eigen_transposed": Route(300e9, packing=0.67e9, bandwidth=25e9, kernel=20e9, unmapped=2e9, packed=6),
        "eigen_3d": Route(360e9, half_o=220, packing=0.5e9),
        "naive": Route(4e9),
    },
    call=11e-6,
    onednn=Direct(350e9, 16, depthwise=190e9, bandwidth=40e9, channels_first=8e9, kernel=8e9, call=12e-6),
)


Factors = tuple[tuple[str, float], ...]
SPEEDS = ("rate", "packing", "bandwidth", "kernel", "unmapped")  # of a `Route`


def of(name: str, factors: Factors = ()) -> Platform | None:
    """The record of the platform that JAX calls `name`; None where nothing was measured.

    `factors` are those of this machine, as `jconv.tune()` measures them: how many times as long as on the
    machine of the record each kind of work takes.

    >>> of("tpu") is None
    True
    """
    record = {"cpu": CPU}.get(name)
    return scaled(record, dict(factors)) if record and factors else record


def scaled(record: Platform, factors: dict[str, float]) -> Platform:
    """The record of a machine that takes so many times as long."""

    def slower(part: Any, kind: str, *names: str) -> Any:
        by = factors.get(kind, 1.0)
        return dataclasses.replace(part, **{name: getattr(part, name) / by for name in names})

    return dataclasses.replace(
        slower(record, "loops", "loop", "bandwidth", "copy"),
        gemm=record.gemm / factors.get("products", 1.0),
        native={name: slower(route, "convolutions", *SPEEDS) for name, route in record.native.items()},
        onednn=record.onednn
        and slower(record.onednn, "onednn", "rate", "depthwise", "bandwidth", "channels_first", "kernel"),
    )
