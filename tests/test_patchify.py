"""Windows that tile the image: unrolled by stacking rows, or in one transposition where there are many."""

import pytest
from oracles import compiled

from jconv.algorithms import ALGORITHMS
from jconv.algorithms.windows import MAX_SLICES
from jconv.spec import ConvSpec
from jconv.spec.tolerance import tolerance
from jconv.testing import cases

TALL = MAX_SLICES + 1


@pytest.mark.parametrize("kernel", [(TALL, 3), (3, TALL), (2, TALL, 2), (2, 3, 2), (5,)])
@pytest.mark.parametrize("role", ["forward", "grad_kernel"])
def test_tiles_of_any_shape(kernel, role):
    spatial = tuple(2 * k + 1 for k in kernel)
    spec = ConvSpec.of(batch=2, spatial=spatial, kernel=kernel, strides=kernel, in_channels=3, out_channels=4)
    operands = cases.operands(role, cases.normal(spec))
    got = compiled(ALGORITHMS["patchify"], role, *operands, spec)
    bound = tolerance("float32", cases.reduction(role, spec))
    assert cases.error(got, cases.reference(role, *operands, spec)) <= bound
