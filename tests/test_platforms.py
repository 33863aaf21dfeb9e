"""Which record of measured constants a machine gets."""

import dataclasses

import pytest

from jconv.algorithms.record import Native
from jconv.choice import cost, pick
from jconv.choice import rates as platforms
from jconv.spec import ROLES, ConvSpec

SPECS = [
    ConvSpec.of(batch=2, spatial=(23, 17), kernel=(3, 3), in_channels=24, out_channels=40),
    ConvSpec.of(spatial=(11, 9, 7), kernel=(3, 2, 3), in_channels=6, out_channels=8, groups=2),
    ConvSpec.of(batch=3, spatial=(50,), kernel=(5,), in_channels=12, out_channels=12, groups=12),
    ConvSpec.of(spatial=(9, 8), kernel=(4, 4), in_channels=18, out_channels=6, lhs_dilation=(2, 2)),
]  # fmt: skip


def test_every_platform_has_a_record():
    """Whose processor it is does not matter: the same program is compiled on every maker's."""
    assert platforms.of("cpu") is platforms.CPU
    assert platforms.of("cuda") is platforms.of("another accelerator") is platforms.GPU


@pytest.mark.parametrize("record", [platforms.CPU, platforms.GPU])
def test_every_route_has_a_rate_and_every_constant_is_positive(record):
    assert set(record.native) in ({"cudnn"}, set(platforms.CPU.native))
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
    assert cost.seconds(Native(spec.as_grad_kernel()), platforms.CPU) > 0.1
    assert pick.choose(spec, "grad_kernel", "cpu").algorithm.name != "xla"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_where_nothing_is_turned_the_layout_does_not_matter(spec, role):
    last, first = (pick.choose(spec.replace(channels_first=hint), role, "cuda") for hint in (False, True))
    assert last.seconds == first.seconds
    assert last.algorithm == first.algorithm
    assert first.spec.channels_first
