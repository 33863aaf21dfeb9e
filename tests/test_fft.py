"""FFT: lengths, blocks and errors, against NumPy in float64."""

import functools
import math

import jax
import numpy as np
import pytest
from oracles import compiled

from jconv.algorithms import fft, pieces
from jconv.algorithms.fft import FFT, fast_length, lengths_of
from jconv.algorithms.record import evaluate
from jconv.algorithms.work import workspace
from jconv.spec import ROLES, ConvSpec
from jconv.spec.roles import OPERANDS
from jconv.spec.tolerance import tolerance, unit_roundoff
from jconv.testing import cases


def is_smooth(number):
    for prime in (2, 3, 5, 7):
        while number % prime == 0:
            number //= prime
    return number == 1


def test_fast_length_is_the_least_smooth_one():
    smooth = [n for n in range(1, 2500) if is_smooth(n)]
    for least in range(1, 2401):
        assert fast_length(least) == next(n for n in smooth if n >= least)


SPECS = {
    "wide_padding": ConvSpec.of(spatial=(5, 7), kernel=(15, 2), padding=((9, 10), (4, 6))),
    "cropped": ConvSpec.of(batch=2, spatial=(40, 39), kernel=(5, 4), in_channels=4, out_channels=6,
                           groups=2, strides=(1, 2), padding=((3, 1), (-1, 5))),
    "dilated": ConvSpec.of(batch=2, spatial=(120,), kernel=(5,), in_channels=4, out_channels=4, groups=4,
                           rhs_dilation=(3,), lhs_dilation=(2,), padding=((9, -2),)),
    "causal": ConvSpec.of(spatial=(300,), kernel=(211,), in_channels=3, out_channels=6, groups=3,
                          padding=((210, 0),)),
    "volume": ConvSpec.of(batch=2, spatial=(9, 8, 40), kernel=(2, 3, 3), in_channels=20, out_channels=3),
    "many": ConvSpec.of(batch=18, spatial=(13,), kernel=(4,), in_channels=2, out_channels=3),
}  # fmt: skip


def assert_agrees(spec, roles=ROLES):
    arrays = cases.normal(spec)
    for role in roles:
        a, b = cases.operands(role, arrays)
        got = jax.jit(functools.partial(evaluate, FFT, role, spec=spec))(a, b)
        assert got.dtype == spec.result(role)[1]
        bound = tolerance(str(got.dtype), cases.reduction(role, spec), FFT.amplification(spec))
        assert cases.error(got, cases.reference(role, a, b, spec)) <= bound


@pytest.mark.parametrize("name", SPECS)
def test_agrees(name):
    assert FFT.rejects(SPECS[name]) is None
    assert_agrees(SPECS[name])


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "complex64"])
def test_dtypes(x64, dtype):
    assert_agrees(SPECS["cropped"].with_dtype(dtype))


@pytest.mark.parametrize(("bytes_", "batch"), [(500_000, 3), (300_000, 1), (150_000, 0)])
def test_pieces_agree(monkeypatch, bytes_, batch):
    spec = SPECS["cropped"].replace(batch=6)
    monkeypatch.setattr(pieces, "IN_CACHE", bytes_)
    monkeypatch.setattr(pieces, "REUSED", bytes_)
    fft.piece.cache_clear()
    assert_agrees(spec, ("forward", "grad_kernel"))
    part = fft.piece(spec)
    fft.piece.cache_clear()
    assert part.y_shape[:2] == ((batch, 40) if batch else (1, 20))


def test_overlap_cuts_long_inputs_only():
    long = ConvSpec.of(spatial=(100_000,), kernel=(50,))
    (length,), (step,) = lengths_of(long)
    assert 99 <= length < 2000
    assert step == length - 49
    short = ConvSpec.of(spatial=(64,), kernel=(50,), in_channels=8, out_channels=8, groups=8)
    assert lengths_of(short) == ((64,), short.out_spatial)


@pytest.mark.parametrize(("size", "taps"), [(16, 3), (128, 3), (96, 31)])
def test_error_is_the_square_root_of_log_points(size, taps):
    spec = ConvSpec.of(spatial=(size, size), kernel=(taps, taps))
    arrays = cases.normal(spec)
    want = cases.reference("forward", arrays["x"], arrays["w"], spec)
    off = np.asarray(compiled(FFT, "forward", arrays["x"], arrays["w"], spec)) - want
    ratio = np.sqrt(np.mean(off**2) / np.mean(want**2)) / unit_roundoff("float32")
    points = math.prod(lengths_of(spec)[0])
    assert 0.5 < ratio / math.sqrt(math.log2(points)) < 1.5


def test_nan_spreads_over_its_image_and_group_only():
    spec = ConvSpec.of(batch=2, spatial=(6, 7), kernel=(3, 3), in_channels=4, out_channels=4, groups=2)
    x = np.ones(spec.x_shape, "float32")
    x[1, 2, 3, 0] = np.nan
    y = np.asarray(compiled(FFT, "forward", x, np.ones(spec.w_shape, "float32"), spec))
    expected = np.zeros(spec.y_shape, bool)
    expected[1, :, :, :2] = True
    np.testing.assert_array_equal(np.isnan(y), expected)


def test_refuses_with_a_reason():
    spec = ConvSpec.of(spatial=(5,), kernel=(3,))
    assert "integers" in FFT.rejects(spec.with_dtype("int32"))
    assert "dimensions" in FFT.rejects(ConvSpec.of(spatial=(3,) * 4, kernel=(2,) * 4))


# -- memory ----------------------------------------------------------------------------------------

WORK = {
    "template": dict(spatial=(250, 260), kernel=(250, 260), padding=((125, 125),) * 2),
    "bank": dict(spatial=(128, 120), kernel=(31, 33), out_channels=12, padding=((15, 15),) * 2),
    "depthwise": dict(batch=2, spatial=(64, 60), kernel=(31, 31), in_channels=16, out_channels=16, groups=16,
                      padding=((15, 15),) * 2),
    "in blocks": dict(batch=32, spatial=(56, 56), kernel=(31, 31), in_channels=64, out_channels=64,
                      groups=64, padding=((15, 15),) * 2),
    "dense": dict(batch=2, spatial=(40, 44), kernel=(9, 9), in_channels=16, out_channels=24),
    "strided": dict(batch=3, spatial=(100, 90), kernel=(31, 29), in_channels=6, out_channels=5,
                    strides=(2, 3)),
    "sequence": dict(batch=2, spatial=(16000,), kernel=(1001,), in_channels=4, out_channels=5,
                     padding=((1000, 0),)),
    "volume": dict(batch=3, spatial=(24, 22, 20), kernel=(9, 7, 9), in_channels=2, out_channels=4),
}  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("geometry", WORK.values(), ids=WORK)
def test_the_memory_estimated_is_what_the_reports(geometry, role):
    spec = ConvSpec.of(**geometry)
    shapes = cases.shapes(spec)
    operands = [jax.ShapeDtypeStruct(shapes[operand], "float32") for operand in OPERANDS[role]]
    program = jax.jit(functools.partial(evaluate, FFT, role, spec=spec)).lower(*operands)
    taken = program.compile().memory_analysis().temp_size_in_bytes
    assert taken > 1e6
    assert taken / 1.5 < workspace(FFT, role, spec) < 1.5 * taken
