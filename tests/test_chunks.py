"""Some images of the batch at a time: the same results, in less memory, chosen where it has to be."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jconv.algorithms import ALGORITHMS, FORMS
from jconv.algorithms.chunks import in_chunks
from jconv.algorithms.record import Repeated, evaluate, refuses
from jconv.algorithms.work import steps, workspace
from jconv.choice import candidates, pick
from jconv.spec import ROLES, ConvSpec
from jconv.spec.tolerance import tolerance
from jconv.testing import cases

NAMES = ("xla", "im2col", "winograd", "fft", "phase", "depthwise")
TAKEN = [pair for pair in itertools.product(NAMES, ROLES) if pair != ("phase", "grad_kernel")]
LARGE = ConvSpec.of(
    batch=6, spatial=(32, 64, 64), kernel=(4, 4, 4), strides=(2, 2, 2), padding=((1, 1),) * 3,
    in_channels=16, out_channels=32,
)  # fmt: skip


@pytest.mark.parametrize("images", [1, 2, 3])
@pytest.mark.parametrize(("name", "role"), TAKEN)
def test_chunks_give_the_whole(name, role, images):
    specs = [case.spec.replace(batch=6) for case in cases.CASES]
    able = [spec for spec in specs if not refuses(ALGORITHMS[name], role, spec)]
    assert able
    for spec in able[-3:]:
        arrays = cases.operands(role, cases.normal(spec))
        chunks = in_chunks(ALGORITHMS[name], role, images)
        assert refuses(chunks, role, spec) is None
        got = jax.jit(lambda a, b, chunks=chunks, spec=spec: evaluate(chunks, role, a, b, spec))(*arrays)
        bound = tolerance("float32", cases.reduction(role, spec), ALGORITHMS[name].amplification(spec))
        assert cases.error(got, cases.reference(role, *arrays, spec)) <= bound


def test_sums_of_halves_are_kept_wide():
    spec = cases.with_dtype(ConvSpec.of(batch=256, spatial=(3,), kernel=(3,)), "bfloat16")
    x, g = (jnp.ones(shape, "bfloat16") for shape in (spec.x_shape, spec.y_shape))
    got = evaluate(in_chunks(ALGORITHMS["im2col"], "grad_kernel", 1), "grad_kernel", x, g, spec)
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
    chunk, images = candidates.fitting(whole, "grad_input", LARGE)
    assert LARGE.batch % images == 0
    assert workspace(chunk, "grad_input", LARGE) <= most
    repeated = [step.count for step in steps(chunk, "grad_input", LARGE) if isinstance(step, Repeated)]
    assert LARGE.batch // images in repeated


def test_what_fits_is_left_as_it_is():
    for case, role in itertools.product(cases.CASES, ROLES):
        taken = [form for form in FORMS if not refuses(form, role, case.spec)]
        assert all(candidates.fitting(form, role, case.spec) == (form, None) for form in taken)


def test_a_size_that_only_a_run_will_tell_is_not_cut():
    spec = LARGE.replace(batch=jax.export.symbolic_shape("n")[0])
    assert pick.choose(spec, "grad_input", "cpu").algorithm.name in ALGORITHMS
