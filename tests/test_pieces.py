"""Images of a batch and bands of rows: the same results in less memory, and nothing summed twice."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import compiled

from jconv.algorithms import ALGORITHMS, FORMS, XLA, pieces
from jconv.algorithms.pieces import in_pieces
from jconv.algorithms.record import Repeated, evaluate, refuses
from jconv.algorithms.work import steps, workspace
from jconv.choice import candidates, pick
from jconv.spec import ROLES, ConvSpec
from jconv.spec.tolerance import tolerance
from jconv.testing import cases


def rows_of(spec):
    """What bands of rows depend on: the first axis, and how many follow."""
    first = (sizes[0] > 1 for sizes in (spec.strides, spec.rhs_dilation, spec.lhs_dilation))
    return *first, *map(np.sign, spec.padding[0]), spec.ndim


CUT = list({rows_of(case.spec): case for case in cases.CASES if case.spec.out_spatial[0] > 1}.values())
SHARES = [(1, 1), (1, 2), (2, 3), (3, 1)]  # images of a batch of three, rows


def by_pieces(role, a, b, spec, part):
    if role == "grad_kernel":
        return pieces.summed(lambda a, b: evaluate(XLA, role, a, b, part), a, b, spec, part)
    return pieces.mapped(lambda a: evaluate(XLA, role, a, b, part), a, spec, part)


# where the channels come first another axis is cut, in the same way
LAID = [(case, "NHWC") for case in CUT] + [(case, "NCHW") for case in cases.tagged("few") if case in CUT]


@pytest.mark.parametrize("role", ["forward", "grad_kernel"])
@pytest.mark.parametrize(("case", "layout"), LAID, ids=str)
def test_bands_give_the_whole(case, role, layout):
    spec = case.spec.replace(batch=3, channels_first=layout == "NCHW")
    a, b = cases.operands(role, cases.normal(spec))
    wanted = cases.reference(role, a, b, spec)
    shares = [(images, min(rows, spec.out_spatial[0])) for images, rows in SHARES]
    parts = [pieces.piece(spec, *share) for share in shares]
    assert [part.y_shape for part in parts] == [(*share, *spec.y_shape[2:]) for share in shares]
    for got in jax.jit(lambda a, b: [by_pieces(role, a, b, spec, part) for part in parts])(a, b):
        assert cases.error(got, wanted) <= tolerance("float32", cases.reduction(role, spec))


def test_all_of_it_is_no_part():
    spec = cases.named("stride").spec
    assert pieces.piece(spec, spec.batch, spec.out_spatial[0]) == spec
    assert pieces.workspace(spec, spec) == 0


@pytest.mark.parametrize("images", [1, 2])
def test_what_no_output_sees_is_not_seen(images):
    """Rows of x below the last window may be NaN."""
    spec = cases.named("leftover").spec.replace(batch=3)
    x, _, g = (np.ones(shape, "f") for shape in (spec.x_shape, spec.w_shape, spec.y_shape))
    x[:, (spec.out_spatial[0] - 1) * spec.strides[0] + spec.window[0] :] = np.nan
    for rows in range(1, spec.out_spatial[0]):
        part = pieces.piece(spec, images, rows)
        assert np.isfinite(by_pieces("grad_kernel", x, g, spec, part)).all()


@pytest.mark.parametrize("name", ["im2col", "unrolled"])
def test_sums_of_halves_are_kept_wide(monkeypatch, name):
    spec = cases.named("plain").spec.with_dtype("bfloat16").replace(spatial=(302, 3))
    monkeypatch.setattr(pieces.cut, "__defaults__", (1, 1))
    x, g = (jnp.ones(shape, "bfloat16") for shape in (spec.x_shape, spec.y_shape))
    assert pieces.cut(spec, 300) is not spec
    got = compiled(ALGORITHMS[name], "grad_kernel", x, g, spec)
    np.testing.assert_array_equal(np.asarray(got, "f").ravel(), [600.0] * spec.parameters)


def test_every_row_is_due_once():
    spec = cases.named("same").spec.replace(batch=5)
    for images, rows in itertools.product((1, 2, 3), (1, 2, 4, 5)):
        part = pieces.piece(spec, images, rows)
        at = [pieces.due(i, spec, part) for i in range(np.prod(pieces.counts(spec, part)))]
        assert len(set(at)) == len(at)
        assert max(at) < (spec.batch, spec.out_spatial[0])


# -- any algorithm, some images at a time ----------------------------------------------------------

NAMES = ("xla", "im2col", "winograd", "fft", "phase", "depthwise")
TAKEN = [pair for pair in itertools.product(NAMES, ROLES) if pair != ("phase", "grad_kernel")]
LARGE = ConvSpec.of(
    batch=6, spatial=(32, 64, 64), kernel=(4, 4, 4), strides=(2, 2, 2), padding=((1, 1),) * 3,
    in_channels=16, out_channels=32,
)  # fmt: skip


@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize(("name", "role"), TAKEN)
def test_some_images_at_a_time_give_the_whole(name, role, images):
    specs = [case.spec.replace(batch=6) for case in cases.CASES]
    able = [spec for spec in specs if not refuses(ALGORITHMS[name], role, spec)]
    assert able
    for spec in able[-2:]:
        arrays = cases.operands(role, cases.normal(spec))
        some = in_pieces(ALGORITHMS[name], role, images)
        assert refuses(some, role, spec) is None
        got = jax.jit(lambda a, b, some=some, spec=spec: evaluate(some, role, a, b, spec))(*arrays)
        bound = tolerance("float32", cases.reduction(role, spec), ALGORITHMS[name].amplification(spec))
        assert cases.error(got, cases.reference(role, *arrays, spec)) <= bound


def test_sums_of_halves_over_images_are_kept_wide():
    spec = ConvSpec.of(batch=256, spatial=(3,), kernel=(3,)).with_dtype("bfloat16")
    x, g = (jnp.ones(shape, "bfloat16") for shape in (spec.x_shape, spec.y_shape))
    got = compiled(in_pieces(ALGORITHMS["im2col"], "grad_kernel", 1), "grad_kernel", x, g, spec)
    np.testing.assert_array_equal(np.asarray(got, "f").ravel(), [256.0] * 3)


@pytest.mark.parametrize("role", ROLES)
def test_a_large_batch_is_cut_rather_than_given_to_a_naive_loop(role):
    asked = pick.choose(LARGE, role, "cpu")
    taken = asked.algorithm
    assert taken != ALGORITHMS["xla"]
    assert (taken not in (*ALGORITHMS[taken.name].forms, ALGORITHMS[taken.name])) == (
        "images at a time" in asked.reason
    )
    assert workspace(taken, role, LARGE) <= candidates._most_bytes(role, LARGE)


@pytest.mark.parametrize("name", ["overlap_add", "phase"])
def test_as_many_images_as_fit(name):
    whole, most = ALGORITHMS[name], candidates._most_bytes("grad_input", LARGE)
    assert workspace(whole, "grad_input", LARGE) > most
    some = candidates.fitting(whole, "grad_input", LARGE)
    assert workspace(some, "grad_input", LARGE) <= most
    (loop,) = (step for step in steps(some, "grad_input", LARGE) if isinstance(step, Repeated))
    assert loop.count > 1
    assert LARGE.batch % loop.count == 0


def test_what_fits_is_left_as_it_is():
    for case, role in itertools.product(cases.CASES, ROLES):
        taken = [form for form in FORMS if not refuses(form, role, case.spec)]
        assert all(candidates.fitting(form, role, case.spec) == form for form in taken)


def test_a_size_that_only_a_run_will_tell_is_not_cut():
    spec = LARGE.replace(batch=jax.export.symbolic_shape("n")[0])
    assert pick.choose(spec, "grad_input", "cpu").algorithm.name in ALGORITHMS
