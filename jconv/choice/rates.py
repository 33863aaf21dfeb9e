"""What the machines can do: measured rates, one record for each kind of device.

The rates need only be accurate enough to put the algorithms in the right order; `jconv.tune` measures where
that is not enough.  On what machine and how they were measured: docs/measured.md, "Rates".
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Route:
    """One way the platform's compiler computes a convolution.

    Args:
      rate: FLOP/s; reached are rate · k / (k + half_k) · o / (o + half_o), with k = taps·c the length of the
        sums and o the output channels of a group.
      packing: bytes/s of gathering patches, per channel that lies side by side, up to `packed` of them.
      bandwidth: bytes/s of reading x and w and writing y.
      kernel: bytes/s of reading a kernel once more that is too large to stay in cache.
      unmapped: bytes/s of mapping a buffer of input × tap products that is too large to stay mapped.
      call: seconds per group.
      cached: bytes of a kernel's panel from which it is read from memory again for every image.
    """

    rate: float
    half_k: float = 0.0
    half_o: float = 0.0
    packing: float = math.inf
    bandwidth: float = math.inf
    kernel: float = math.inf
    unmapped: float = math.inf
    call: float = 20e-6
    packed: float = 14
    cached: float = math.inf


@dataclasses.dataclass(frozen=True)
class Products:
    """Speed of products of (m, k) with (k, n): `rate` FLOP/s, halved by every side equal to its `half`."""

    rate: float
    half: tuple[float, float, float]

    def __call__(self, *sides: int) -> float:
        """FLOP/s for the sides m, n, k."""
        used = (size / (size + half) for size, half in zip(sides, self.half, strict=True))
        return self.rate * math.prod(used)


@dataclasses.dataclass(frozen=True)
class Direct:
    """oneDNN's convolution.

    Args:
      rate: FLOP/s; reached are rate · o / (o rounded up to lanes), o being a group's output channels.
      lanes: output channels of a group that fill a vector register.
      depthwise: FLOP/s where a group has one channel.
      bandwidth: bytes/s of reading x and writing y; `channels_first`: where they lie so.
      kernel: bytes/s of copying the kernel into the order in which it is multiplied.
      call: seconds.
    """

    rate: float
    lanes: int
    depthwise: float
    bandwidth: float
    channels_first: float
    kernel: float
    call: float


@dataclasses.dataclass(frozen=True)
class Platform:
    """Rates of one kind of device, in FLOP/s, bytes/s and seconds.

    Args:
      gemm: matrix products; `transposed`: those whose left operand is (k, m), transposed.
      loop: one fused elementwise loop over long runs; `half_run`: the run length that reaches half of that.
      bandwidth: the memory traffic of such a loop; `copy`: that of a loop that only moves values.
      fft: real transforms.
      native: the platform's own convolution, by route.
      onednn: oneDNN's, where there is one.
      call: starting one step; `batched`: starting each further product of a batched GEMM.
    """

    gemm: Products
    transposed: Products
    loop: float
    half_run: float
    bandwidth: float
    copy: float
    fft: float
    native: dict[str, Route]
    call: float
    onednn: Direct | None = None


# 2 cores with AVX-512, of either maker: XLA's libraries run the same code on both.
CPU = Platform(
    gemm=Products(320e9, (33, 20, 22)),
    transposed=Products(249e9, (33, 20, 22)),
    loop=36e9,
    half_run=2.4,
    bandwidth=115e9,
    copy=53e9,
    fft=13e9,
    native={
        "ynn": Route(220e9, 6, 3, 4.3e9, 45e9, kernel=10e9, call=4e-6),
        "ynn_kernel": Route(170e9, bandwidth=7e9, cached=3e6),
        "eigen": Route(460e9, 6, 3, 2.1e9, 17e9),
        "eigen_kernel": Route(160e9, half_o=30, packing=3e9),
        "eigen_1d": Route(360e9, 6, 3, 1.7e9, 24e9, call=45e-6),
        "eigen_1d_kernel": Route(150e9, packing=2e9, bandwidth=15e9, call=45e-6),
        "eigen_grouped": Route(175e9, 82, 20, bandwidth=14e9),
        "eigen_grouped_kernel": Route(40e9, half_o=30),
        "eigen_transposed": Route(300e9, packing=0.67e9, bandwidth=25e9, unmapped=2e9, packed=6),
        "eigen_3d": Route(360e9, half_o=220, packing=0.5e9),
        "naive": Route(5e9, half_o=32),
    },
    call=11e-6,
    onednn=Direct(
        350e9,
        lanes=16,
        depthwise=190e9,
        bandwidth=40e9,
        channels_first=8e9,
        kernel=8e9,
        call=12e-6,
    ),
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
        gemm=slower(record.gemm, "products", "rate"),
        transposed=slower(record.transposed, "products", "rate"),
        native={name: slower(route, "convolutions", *SPEEDS) for name, route in record.native.items()},
        onednn=record.onednn
        and slower(record.onednn, "onednn", "rate", "depthwise", "bandwidth", "channels_first", "kernel"),
    )
