"""The zoo: every algorithm jconv has, by name, in the order they are explained."""

from jconv.algorithms.fft import FFT, FFT_OVERLAP
from jconv.algorithms.grouped import per_group
from jconv.algorithms.im2col import IM2COL
from jconv.algorithms.im2col_planes import IM2COL_PLANES
from jconv.algorithms.multiply_add import BROADCAST, DEPTHWISE, written_out
from jconv.algorithms.onednn import ONEDNN
from jconv.algorithms.overlap_add import OVERLAP_ADD
from jconv.algorithms.patchify import PATCHIFY
from jconv.algorithms.planes import PLANES
from jconv.algorithms.pointwise import POINTWISE
from jconv.algorithms.record import Algorithm
from jconv.algorithms.shift import SHIFT
from jconv.algorithms.transposed import by_phase
from jconv.algorithms.unrolled import by_plane
from jconv.algorithms.winograd import WINOGRAD, WINOGRAD2, WINOGRAD4
from jconv.algorithms.xla import XLA
from jconv.algorithms.xla_eigen import XLA_EIGEN

DIRECT = (
    *(ONEDNN, XLA, XLA_EIGEN, POINTWISE, PATCHIFY, DEPTHWISE, BROADCAST),
    *(PLANES, IM2COL, IM2COL_PLANES, SHIFT, OVERLAP_ADD),
)
UNROLLED = tuple(map(by_plane, (XLA, XLA_EIGEN, WINOGRAD)))
GROUPED = tuple(map(per_group, (XLA, XLA_EIGEN, UNROLLED[0])))
TRANSPOSED = (
    *map(by_phase, (XLA, XLA_EIGEN, IM2COL)),
    *(by_phase(inner, written_out) for inner in (DEPTHWISE, BROADCAST)),
    *map(by_phase, (PLANES, per_group(XLA_EIGEN))),
)
TRANSFORMS = (WINOGRAD, WINOGRAD2, WINOGRAD4, FFT, FFT_OVERLAP)

ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm for algorithm in (*DIRECT, *UNROLLED, *GROUPED, *TRANSPOSED, *TRANSFORMS)
}

__all__ = ["ALGORITHMS", "DEPTHWISE", "IM2COL", "ONEDNN", "POINTWISE", "SHIFT", "XLA"]
