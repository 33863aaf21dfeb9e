"""Which algorithm "auto" takes of those it has estimates for."""

import pytest

from jconv import cost
from jconv.choice import _preferred as preferred
from jconv.choice import choose
from jconv.spec import ConvSpec

MS = 1e-3


@pytest.mark.parametrize(
    ("seconds", "taken"),
    [
        (dict(im2col=1 * MS, xla=cost.MARGIN * MS), "xla"),  # promises too little
        (dict(im2col=1 * MS, xla=1.5 * MS), "im2col"),
        (dict(im2col=0.02 * MS, xla=0.02 * MS + cost.SLACK), "xla"),  # too little in seconds
        (dict(winograd=1 * MS, im2col=1.1 * MS, xla=2 * MS), "im2col"),  # exact, as soon done
        (dict(winograd=1 * MS, im2col=1.3 * MS, xla=2 * MS), "winograd"),
        (dict(winograd=1 * MS, fft=1.1 * MS, xla=2 * MS), "winograd"),  # neither is exact
        (dict(pointwise=1 * MS, xla=1.1 * MS), "pointwise"),  # the same product with less around it
        (dict(pointwise=0.1 * MS, xla=0.1 * MS), "xla"),  # whose threads take longer to start
    ],
)
def test_of_estimates_that_tie(seconds, taken):
    assert preferred(dict(sorted(seconds.items(), key=lambda item: item[1]))) == taken


def test_a_kernel_larger_than_its_output_is_no_kernel_gradient():
    """A grouped forward to a few outputs takes 0.3 ms, not 1 ms a group."""
    spec = ConvSpec.of(batch=8, spatial=(8, 7), kernel=(5, 5), strides=(2, 2), padding=((2, 2), (2, 2)),
                       in_channels=32, out_channels=128, groups=16)  # fmt: skip
    assert choose(spec, "forward", "cpu").seconds["xla"] < 2 * MS
