"""Every algorithm jconv has, by name, in the order they are explained.

What each is there for: where "auto" takes it on a CPU and it is faster by a tenth than the next, over the
layers of `jconv.bench.layers` in float32 (`tests/choices.txt` has all choices), and what it teaches.

    name         with oneDNN              portable                          teaches
    onednn       every kind                                                 the sum in hardware's order
    xla          1-D, transposed          1-D, transposed                   what the compiler does
    pointwise    1×1                      1×1                               1×1 is a matrix product
    patchify     patch embeddings, back   patch embeddings, back            windows that tile
    depthwise    depthwise, 1-D, dilated  depthwise of every kind           no product at all
    broadcast                             groups of few channels            the same over groups
    im2col       channels first, 1-D      dense, grouped, transposed, 3-D   explicit GEMM
    shift                                 1×1; float64: dilated             implicit GEMM
    overlap_add  transposed, long kernels transposed, long kernels          the product first
    unrolled     stems                    3-D, stems                        im2col along one axis
    per_group    a few wide groups        a few wide groups                 groups apart
    phase        depthwise with a stride  strided input gradients           no product with a zero
    winograd     "fastest": dense, 3-D                                      fewer multiplications
    fft          "fastest": large kernels                                   the convolution theorem

An idea that is written in several forms is one name (`record.of_forms`); the choice takes the cheapest.
"""

from jconv.algorithms.fft import FFT
from jconv.algorithms.im2col import IM2COL as IM2COL_ROWS
from jconv.algorithms.im2col_planes import IM2COL_PLANES
from jconv.algorithms.multiply_add import BROADCAST, IN_THE_OPEN, PLANES, written_out
from jconv.algorithms.multiply_add import DEPTHWISE as CHANNELS_LAST
from jconv.algorithms.onednn import ONEDNN
from jconv.algorithms.overlap_add import OVERLAP_ADD as ALL_TAPS
from jconv.algorithms.patchify import PATCHIFY
from jconv.algorithms.per_group import per_group
from jconv.algorithms.phase import by_phase
from jconv.algorithms.pointwise import POINTWISE
from jconv.algorithms.record import Algorithm, forms_of, of_forms
from jconv.algorithms.shift import SHIFT
from jconv.algorithms.two_level import TWO_LEVEL
from jconv.algorithms.unrolled import by_plane
from jconv.algorithms.winograd import WINOGRAD
from jconv.algorithms.xla import XLA, XLA_EIGEN

DEPTHWISE = of_forms(CHANNELS_LAST, PLANES)
IM2COL = of_forms(IM2COL_ROWS, IM2COL_PLANES)
OVERLAP_ADD = of_forms(ALL_TAPS, TWO_LEVEL)
UNROLLED = of_forms(by_plane(XLA), by_plane(XLA_EIGEN))
PER_GROUP = of_forms(per_group(XLA), per_group(by_plane(XLA)))
PHASE = of_forms(by_phase(XLA), by_phase(IM2COL_ROWS), by_phase(IN_THE_OPEN, written_out))

ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        *(ONEDNN, XLA, POINTWISE, PATCHIFY, DEPTHWISE, BROADCAST, IM2COL, SHIFT, OVERLAP_ADD),
        *(UNROLLED, PER_GROUP, PHASE, WINOGRAD, FFT),
    )
}

FORMS = tuple(form for algorithm in ALGORITHMS.values() for form in forms_of(algorithm))

__all__ = ["ALGORITHMS", "DEPTHWISE", "FORMS", "IM2COL", "ONEDNN", "POINTWISE", "SHIFT", "XLA"]
