"""The input gradient of im2col, both ways: columns put back, or a convolution of g where they are many."""

import pytest
from oracles import compiled

from jconv.algorithms import ALGORITHMS, pieces
from jconv.algorithms.work import steps, workspace
from jconv.spec.tolerance import tolerance
from jconv.testing import cases

NAMES = ["everything", "crop", "wide_padding", "gaps", "3d_everything", "1d"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bound", [0, 1 << 30], ids=["a convolution of g", "put back"])
def test_both_ways_are_the_gradient(name, bound, monkeypatch):
    monkeypatch.setattr(pieces, "IN_CACHE", bound)
    spec = cases.named(name).spec
    g, w = cases.operands("grad_input", cases.normal(spec))
    got = compiled(ALGORITHMS["im2col"], "grad_input", g, w, spec)
    bound = tolerance("float32", cases.reduction("grad_input", spec))
    assert cases.error(got, cases.reference("grad_input", g, w, spec)) <= bound


@pytest.mark.parametrize("name", NAMES)
def test_they_differ_in_what_they_cost(name, monkeypatch):
    spec = cases.named(name).spec
    asked = ALGORITHMS["im2col"], "grad_input", spec
    done, kept = steps(*asked), workspace(*asked)
    monkeypatch.setattr(pieces, "IN_CACHE", 0)
    assert steps(*asked) != done
    assert workspace(*asked) != kept
