"""Which algorithm "auto" takes of those it has estimates for."""

import dataclasses
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from choices import choices

import jconv
from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import Native
from jconv.bench.layers import LAYERS
from jconv.choice import cost, pick, rates
from jconv.choice.pick import choose, preferred
from jconv.spec import ROLES, ConvSpec
from jconv.spec.layout import channels_last
from jconv.spec.roles import is_transposed

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
        (dict(pointwise=0.13 * MS, xla=0.1 * MS), "xla"),  # by more than ties
        (dict(depthwise=1 * MS, onednn=1.1 * MS), "onednn"),  # compiled in a tenth of the time
        (dict(depthwise=0.05 * MS, onednn=0.09 * MS), "onednn"),  # and by a few microseconds
        (dict(depthwise=1 * MS, onednn=1.3 * MS), "depthwise"),
    ],
)
def test_of_estimates_that_tie(seconds, taken):
    assert preferred(dict(sorted(seconds.items(), key=lambda item: item[1]))) == taken


def test_a_tiny_depthwise_problem_starts_nothing():
    seconds = dict(depthwise=1 * MS, onednn=1.1 * MS)
    assert preferred(seconds, flops=cost.TINY) == "onednn"
    assert preferred(seconds, flops=cost.TINY / 2) == "depthwise"


def test_what_starts_something_for_a_tiny_problem_has_to_gain_more():
    seconds = dict(onednn=0.02 * MS, xla=0.02 * MS + 1.5 * cost.SLACK)
    assert preferred(seconds, flops=cost.TINY) == "onednn"
    assert preferred(seconds, flops=cost.TINY / 2) == "xla"


def test_a_kernel_larger_than_its_output_is_no_kernel_gradient():
    """A grouped forward to a few outputs takes 0.3 ms, not 1 ms a group."""
    spec = ConvSpec.of(batch=8, spatial=(8, 7), kernel=(5, 5), strides=(2, 2), padding=((2, 2), (2, 2)),
                       in_channels=32, out_channels=128, groups=16)  # fmt: skip
    assert choose(spec, "forward", "cpu").seconds["xla"] < 2 * MS


SPEC = ConvSpec.of(spatial=(9, 9), kernel=(3, 3))
BESIDE = (
    "came with a ConvSpec, which says all but `role`, `platform` and `algorithm`; leave it out, or change the"
    " spec"
)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(w=np.zeros((1, 1, 3, 3))), f"`w` {BESIDE}"),
        (dict(stride=2), f"`stride`=2 {BESIDE}"),
        (dict(stride=np.array([2, 2])), f"`stride`=an array of shape (2,) {BESIDE}"),
        (dict(padding="nonsense"), f"`padding`='nonsense' {BESIDE}"),
        (dict(dilation=(2, 2)), f"`dilation`=(2, 2) {BESIDE}"),
        (dict(groups=7), f"`groups`=7 {BESIDE}"),
        (dict(padding_mode="reflect"), f"`padding_mode`='reflect' {BESIDE}"),
        (dict(layout="NCHW"), f"`layout`='NCHW' {BESIDE}"),
        (dict(precision="high"), f"`precision`='high' {BESIDE}"),
        (dict(preferred_element_type="int8"), f"`preferred_element_type`='int8' {BESIDE}"),
        (dict(platform="CPU"), "`platform`='CPU' is not known; choose one of cpu, gpu, cuda, rocm, tpu"),
        (dict(platform="abacus"), "`platform`='abacus' is not known; choose one of cpu, gpu"),
        (dict(role="back"), "`role`='back' is not known; choose one of forward, grad_input, grad_kernel"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)  # fmt: skip
def test_nothing_said_to_choose_is_passed_over(given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        jconv.choose(SPEC, **given)


def test_platforms_by_the_names_jax_has_for_them(monkeypatch):
    for name in ("cpu", "gpu", "cuda", "rocm", "tpu"):
        assert jconv.choose(SPEC, platform=name, stride=1, padding=0).platform == name
    monkeypatch.setattr(jax, "default_backend", lambda: "abacus")  # a plug-in's
    assert jconv.choose(SPEC).platform == jconv.choose(SPEC, platform="abacus").platform == "abacus"
    with pytest.raises(ValueError, match="choose one of cpu, gpu, cuda, rocm, tpu, abacus"):
        jconv.choose(SPEC, platform="sliderule")


def test_the_reason_says_when_a_lesser_estimate_is_not_believed():
    """XLA's own is kept where the gain that another one promises is within what the estimates err."""
    spec = ConvSpec.of(spatial=(6, 6), kernel=(3, 3), in_channels=4, out_channels=4)
    chosen = choose(spec, platform="cpu", algorithm="portable")
    other, time = next(iter(chosen.seconds.items()))
    assert chosen.algorithm.name == "xla" != other
    assert time < chosen.seconds["xla"]
    assert f"; {other}, estimated at " in chosen.reason
    assert "is not faster by more than the estimates err" in chosen.reason


# -- what was measured, and where nothing was --------------------------------------------------------

FOUR = [
    ConvSpec.of(batch=2, spatial=(23, 17), kernel=(3, 3), in_channels=24, out_channels=40),
    ConvSpec.of(spatial=(11, 9, 7), kernel=(3, 2, 3), in_channels=6, out_channels=8, groups=2),
    ConvSpec.of(batch=3, spatial=(50,), kernel=(5,), in_channels=12, out_channels=12, groups=12),
    ConvSpec.of(spatial=(9, 8), kernel=(4, 4), in_channels=18, out_channels=6, lhs_dilation=(2, 2)),
]  # fmt: skip


def test_what_was_measured_has_a_record():
    """Whose processor it is does not matter: the same program is compiled on every maker's."""
    assert rates.of("cpu") is rates.CPU
    assert rates.of("cuda") is rates.of("tpu") is rates.of("another accelerator") is None
    assert min(v for v in dataclasses.astuple(rates.CPU) if isinstance(v, float)) >= 0


@pytest.mark.parametrize("spec", FOUR, ids=str)
def test_everything_has_an_estimate(spec):
    assert 0 < cost.seconds(Native(spec), rates.CPU) < 1
    for role in ROLES:
        asked = choose(spec, role, "cpu", "portable")
        assert {asked.algorithm.name, "xla"} <= set(asked.seconds)


def test_eigens_3d_route_gathers_slowly_on_every_processor():
    """A depthwise 3-D kernel gradient takes Eigen 396 ms on an AMD EPYC: it is never estimated at a few."""
    channels = dict(in_channels=64, out_channels=64, groups=64)
    spec = ConvSpec.of(batch=2, spatial=(16, 28, 28), kernel=(3, 3, 3), padding=((1, 1),) * 3, **channels)
    assert cost.seconds(Native(spec.as_grad_kernel()), rates.CPU) > 0.1
    assert choose(spec, "grad_kernel", "cpu").algorithm.name != "xla"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("spec", FOUR, ids=str)
def test_without_a_record_xlas_own_is_taken_in_either_layout(spec, role):
    """No rates, no opinion."""
    for hint in (False, True):
        choice = choose(spec.replace(channels_first=hint), role, "cuda")
        assert choice.algorithm is ALGORITHMS["xla"]
        assert choice.reason.endswith("; nothing was measured on this platform")
        assert "jconv.tune" in choice.rejected["im2col"]
        assert choice.spec.channels_first == hint


def test_without_a_record_what_xla_cannot_do_is_done():
    """XLA has no convolution of integers on a GPU."""
    spec = ConvSpec.of(spatial=(9, 8), kernel=(3, 3), in_channels=4, out_channels=4, dtype="int32")
    choice = choose(spec, "forward", "cuda")
    assert choice.algorithm is not ALGORITHMS["xla"]
    assert choice.algorithm.exact


# -- the time that choosing takes --------------------------------------------------------------------


def opcodes(function):
    """How many of Python's opcodes a call runs: a measure of its work that is the same on every machine."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


GROUPS = {"depthwise": 4, "dense": 1}


def causal(taps, channels):
    return ConvSpec.of(
        batch=2, spatial=(taps,), kernel=(taps,), padding=((taps - 1, 0),), in_channels=4, out_channels=4,
        groups=GROUPS[channels],
    )  # fmt: skip


def template(taps, _):
    return ConvSpec.of(spatial=(2048,) * 2, kernel=(taps,) * 2, padding=((taps // 2,) * 2,) * 2)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("spec", "few", "many", "channels"),
    [(causal, 512, 32768, "depthwise"), (causal, 512, 32768, "dense"), (template, 31, 255, "one")],
)
def test_choosing_does_not_take_longer_for_more_taps(spec, few, many, channels, role):
    """A million opcodes take about 20 ms."""
    policy = pick.Policy("fastest")

    def work(taps):
        return opcodes(lambda: pick._choose.__wrapped__(spec(taps, channels), role, "cpu", policy, None))

    work(few + 1)  # what is computed once for all
    assert work(many) < 2 * work(few) + 100_000 < 1_000_000


BATCHED = {
    "2-D": ConvSpec.of(spatial=(28, 28), kernel=(3, 3), in_channels=64, out_channels=64),
    "3-D": ConvSpec.of(spatial=(9, 28, 28), kernel=(3, 3, 3), in_channels=16, out_channels=16),
    "groups": ConvSpec.of(spatial=(28, 28), kernel=(3, 3), in_channels=64, out_channels=64, groups=4),
    "transposed": ConvSpec.of(spatial=(16, 16), kernel=(4, 4), in_channels=64, lhs_dilation=(2, 2)),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", BATCHED)
def test_choosing_does_not_take_longer_for_more_images(name, role):
    """Of batches without divisors, with hundreds of them, and with none but powers of two."""

    def work(batch):
        spec = BATCHED[name].replace(batch=batch)
        return opcodes(lambda: pick._choose.__wrapped__(spec, role, "cpu", pick.Policy("fastest"), None))

    work(63)  # what is computed once for all
    assert max(map(work, (999_983, 720_720, 1 << 20))) < min(4 * work(64) + 100_000, 1_500_000)


@pytest.mark.parametrize("role", ROLES)
def test_choosing_works_out_the_phases_once(role):
    spec = ConvSpec.of(spatial=(512,), kernel=(8192,), lhs_dilation=(64,), padding=((4000, 4000),))
    assert opcodes(lambda: pick._choose.__wrapped__(spec, role, "cpu", pick.Policy(), None)) < 1_500_000


# -- the table of layers -----------------------------------------------------------------------------

KEPT = Path(__file__).parent / "choices.txt"


def test_the_choices_over_the_table_are_those_in_review():
    """A constant that changes them is seen: `python tests/choices.py > tests/choices.txt`."""
    assert "\n".join(choices()).strip() == KEPT.read_text(encoding="utf-8").strip()


def test_every_exact_algorithm_is_chosen_somewhere():
    """Not Winograd and the FFT, which mix values and are for "fastest"."""
    assert set(ALGORITHMS) - set(re.findall(r"\w+", KEPT.read_text(encoding="utf-8"))) == {"winograd", "fft"}


TRANSPOSED = [layer.spec for layer in LAYERS if is_transposed(layer.spec)]


@pytest.mark.parametrize("spec", TRANSPOSED, ids=str)
def test_every_door_names_the_same_algorithm_for_a_transposed_convolution(spec):
    """`choose` of the spec, and what a program with lax's own convolution is found to run."""
    numbers = channels_last(spec.ndim)

    def program(x, w):
        return jax.lax.conv_general_dilated(
            x, w, spec.strides, spec.padding, spec.lhs_dilation, spec.rhs_dilation, numbers,
            feature_group_count=spec.groups,
        )  # fmt: skip

    x, w = (jax.ShapeDtypeStruct(shape, "float32") for shape in (spec.x_shape, spec.w_shape))
    (found,) = jconv.choose(jconv.accelerate(program), x, w, platform="cpu")
    asked = jconv.choose(spec, platform="cpu")
    assert (asked.spec, asked.role) == (found.spec, found.role)
    assert asked.algorithm.name == found.algorithm.name
    assert asked.role == "grad_input"
