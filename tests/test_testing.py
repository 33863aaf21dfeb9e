"""`check_algorithm` passes what is right and finds what is wrong."""

import dataclasses

import pytest

from jconv.algorithms.im2col import IM2COL
from jconv.algorithms.record import Algorithm
from jconv.spec import ROLES
from jconv.testing import cases, check_algorithm

SAME = [cases.named("same")]


def off(x, w, spec):
    return IM2COL.forward(x, w, spec) * 1.0001


def unflipped(g, w, spec):
    return IM2COL.forward(g, w.reshape(*spec.kernel, spec.o, spec.in_channels), spec.as_grad_input())


def rounded(x, w, spec):
    return IM2COL.forward(x, w, spec) * (1 + 2**-23)


WRONG = {
    "forward": (dataclasses.replace(IM2COL, forward=off), "im2col forward of same: 1.0e-04 from NumPy"),
    "its gradient": (dataclasses.replace(IM2COL, grad_input=unflipped), "im2col grad_input of same"),
    "not exact": (dataclasses.replace(IM2COL, forward=rounded), "from whole numbers, 0.0e.00 allowed"),
}


@pytest.mark.parametrize(("algorithm", "message"), WRONG.values(), ids=WRONG)
def test_finds_what_is_wrong(algorithm, message):
    with pytest.raises(AssertionError, match=message):
        check_algorithm(algorithm, SAME)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8", "complex64"])
def test_every_dtype_has_its_bound(dtype):
    case = dataclasses.replace(SAME[0], spec=SAME[0].spec.with_dtype(dtype))
    roles = {verdict.role for verdict in check_algorithm(IM2COL, case)}
    assert roles == ({"forward"} if dtype == "int8" else set(ROLES))


def test_lax_is_an_oracle_where_it_would_read_beside_x():
    assert check_algorithm(IM2COL, [cases.named("crop")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("im2col", SAME), "`algorithm` must be a jconv.Algorithm, got 'im2col'"),
     ((IM2COL, [SAME[0].spec]), "`problems` must be"), ((IM2COL, []), "`problems` must be")],
)  # fmt: skip
def test_what_it_takes(arguments, message):
    with pytest.raises(TypeError, match=message):
        check_algorithm(*arguments)
    with pytest.raises(ValueError, match="`name`='sme' is no case; choose from plain, same"):
        cases.named("sme")


def test_what_is_inexact_by_its_own_account_passes():
    algorithm = dataclasses.replace(IM2COL, forward=rounded, exact=False)
    assert all(verdict.oracle != "whole numbers" for verdict in check_algorithm(algorithm, SAME))


def test_a_stated_amplification_widens_the_bound():
    assert check_algorithm(Algorithm("off", off, exact=False, amplification=lambda spec: 1e3), SAME)


def test_an_algorithm_that_rejects_everything_has_shown_nothing():
    picky = Algorithm("picky", off, rejects=lambda spec: "it is not Tuesday")
    with pytest.raises(AssertionError, match=r"picky rejects every one of 1 geometries.*Tuesday"):
        check_algorithm(picky, SAME)
