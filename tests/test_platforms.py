"""Which record of measured constants a machine gets."""

import dataclasses

import pytest

from jconv.algorithms import XLA
from jconv.algorithms.record import Native
from jconv.choice import cost, pick, rates
from jconv.spec import ROLES, ConvSpec

SPECS = [
    ConvSpec.of(batch=2, spatial=(23, 17), kernel=(3, 3), in_channels=24, out_channels=40),
    ConvSpec.of(spatial=(11, 9, 7), kernel=(3, 2, 3), in_channels=6, out_channels=8, groups=2),
    ConvSpec.of(batch=3, spatial=(50,), kernel=(5,), in_channels=12, out_channels=12, groups=12),
    ConvSpec.of(spatial=(9, 8), kernel=(4, 4), in_channels=18, out_channels=6, lhs_dilation=(2, 2)),
]  # fmt: skip


def test_what_was_measured_has_a_record():
    """Whose processor it is does not matter: the same program is compiled on every maker's."""
    assert rates.of("cpu") is rates.CPU
    assert rates.of("cuda") is rates.of("tpu") is rates.of("another accelerator") is None


def test_every_constant_is_positive():
    record = rates.CPU
    numbers = [v for v in dataclasses.astuple(record) if isinstance(v, float)]
    assert min(numbers) >= 0
    for spec in SPECS:
        assert 0 < cost.seconds(Native(spec), record) < 1


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_choice_can_be_made_for_every_spec(spec):
    for role in ROLES:
        asked = pick.choose(spec, role, "cpu", "portable")
        assert asked.algorithm.name in asked.seconds
        assert "xla" in asked.seconds


def test_eigens_3d_route_gathers_slowly_on_every_processor():
    """A depthwise 3-D kernel gradient takes Eigen 396 ms on an AMD EPYC: it is never estimated at a few."""
    channels = dict(in_channels=64, out_channels=64, groups=64)
    spec = ConvSpec.of(batch=2, spatial=(16, 28, 28), kernel=(3, 3, 3), padding=((1, 1),) * 3, **channels)
    assert cost.seconds(Native(spec.as_grad_kernel()), rates.CPU) > 0.1
    assert pick.choose(spec, "grad_kernel", "cpu").algorithm.name != "xla"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_without_a_record_xlas_own_is_taken_in_either_layout(spec, role):
    """No rates, no opinion."""
    for hint in (False, True):
        choice = pick.choose(spec.replace(channels_first=hint), role, "cuda")
        assert choice.algorithm is XLA
        assert choice.reason.endswith("; nothing was measured on this platform")
        assert "jconv.tune" in choice.rejected["im2col"]
        assert choice.spec.channels_first == hint


def test_without_a_record_what_xla_cannot_do_is_done():
    """XLA has no convolution of integers on a GPU."""
    spec = ConvSpec.of(spatial=(9, 8), kernel=(3, 3), in_channels=4, out_channels=4, dtype="int32")
    choice = pick.choose(spec, "forward", "cuda")
    assert choice.algorithm is not XLA
    assert choice.algorithm.exact
