"""Bands of rows and chunks of a batch: the zeros that each band brings along, and what is summed twice."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jconv.algorithms import ALGORITHMS, XLA, bands
from jconv.algorithms.record import evaluate
from jconv.spec.tolerance import tolerance
from jconv.testing import cases

CUT = [case for case in cases.CASES if case.spec.ndim and case.spec.out_spatial[0] > 1]
SHARES = [(1, 1), (1, 2), (2, 3), (3, 1)]  # images of a batch of three, rows


def in_bands(role, a, b, spec, part):
    if role == "grad_kernel":
        return bands.grad_kernel(lambda a, b: evaluate(XLA, role, a, b, part), a, b, spec, part)
    return bands.forward(lambda a: evaluate(XLA, role, a, b, part), a, spec, part)


LAID = [("forward", "NHWC"), ("grad_kernel", "NHWC"), ("grad_kernel", "NCHW")]  # a forward's are all alike


@pytest.mark.parametrize(("role", "layout"), LAID)
@pytest.mark.parametrize("case", CUT, ids=str)
def test_bands_give_the_whole(case, role, layout):
    spec = case.spec.replace(batch=3, channels_first=layout == "NCHW")
    a, b = cases.operands(role, cases.normal(spec))
    wanted = cases.reference(role, a, b, spec)
    shares = [(images, min(rows, spec.out_spatial[0])) for images, rows in SHARES]
    parts = [bands.band_of(spec, *share) for share in shares]
    assert [part.y_shape for part in parts] == [(*share, *spec.y_shape[2:]) for share in shares]
    for got in jax.jit(lambda a, b: [in_bands(role, a, b, spec, part) for part in parts])(a, b):
        assert cases.error(got, wanted) <= tolerance("float32", cases.reduction(role, spec))


def test_all_of_it_is_no_part():
    spec = cases.named("stride").spec
    assert bands.band_of(spec, spec.batch, spec.out_spatial[0]) is spec
    assert bands.workspace(spec, spec) == 0


@pytest.mark.parametrize("images", [1, 2])
def test_what_no_output_sees_is_not_seen(images):
    """Rows of x below the last window may be NaN."""
    spec = cases.named("leftover").spec.replace(batch=3)
    x, _, g = (np.ones(shape, "f") for shape in (spec.x_shape, spec.w_shape, spec.y_shape))
    x[:, (spec.out_spatial[0] - 1) * spec.strides[0] + spec.window[0] :] = np.nan
    for rows in range(1, spec.out_spatial[0]):
        part = bands.band_of(spec, images, rows)
        assert np.isfinite(in_bands("grad_kernel", x, g, spec, part)).all()


@pytest.mark.parametrize("name", ["im2col", "unrolled"])
def test_sums_of_halves_are_kept_wide(monkeypatch, name):
    spec = cases.with_dtype(cases.named("plain").spec, "bfloat16").replace(spatial=(302, 3))
    monkeypatch.setattr(bands.band, "__defaults__", (1,))
    x, g = (jnp.ones(shape, "bfloat16") for shape in (spec.x_shape, spec.y_shape))
    assert bands.band(spec, 300) is not spec
    got = evaluate(ALGORITHMS[name], "grad_kernel", x, g, spec)
    np.testing.assert_array_equal(np.asarray(got, "f").ravel(), [600.0] * spec.parameters)


def test_every_row_is_due_once():
    spec = cases.named("same").spec.replace(batch=5)
    for images, rows in itertools.product((1, 2, 3), (1, 2, 4, 5)):
        part = bands.band_of(spec, images, rows)
        at = [bands.due(i, spec, part) for i in range(np.prod(bands.counts(spec, part)))]
        assert len(set(at)) == len(at)
        assert max(at) < (spec.batch, spec.out_spatial[0])
