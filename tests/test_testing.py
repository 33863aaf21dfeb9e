"""`check_algorithm` passes what is right and finds what is wrong."""

import dataclasses

import pytest

from jconv.algorithms.im2col import IM2COL
from jconv.algorithms.record import Algorithm
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


def test_what_is_inexact_by_its_own_account_passes():
    algorithm = dataclasses.replace(IM2COL, forward=rounded, exact=False)
    assert all(verdict.oracle != "whole numbers" for verdict in check_algorithm(algorithm, SAME))


def test_a_stated_amplification_widens_the_bound():
    assert check_algorithm(Algorithm("off", off, exact=False, amplification=lambda spec: 1e3), SAME)


def test_an_algorithm_that_rejects_everything_has_shown_nothing():
    picky = Algorithm("picky", off, rejects=lambda spec: "it is not Tuesday")
    with pytest.raises(AssertionError, match=r"picky rejects every one of 1 geometries.*Tuesday"):
        check_algorithm(picky, SAME)
