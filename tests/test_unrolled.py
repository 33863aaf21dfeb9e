"""Unrolled: the same convolution with an axis less, in one piece and in bands."""

import jax
import numpy as np
import pytest
from oracles import equations, lax_role

from jconv.algorithms import XLA, pieces
from jconv.algorithms.per_group import per_group
from jconv.algorithms.record import evaluate, own
from jconv.algorithms.unrolled import by_plane, inside
from jconv.algorithms.winograd import WINOGRAD
from jconv.spec import ROLES, ConvSpec
from jconv.spec.tolerance import tolerance
from jconv.testing import cases

SPEC = ConvSpec.of(
    batch=2, spatial=(7, 6, 5), kernel=(3, 2, 3), in_channels=6, out_channels=4,
    padding=((2, 1), (0, 1), (1, 1)), strides=(2, 1, 1), rhs_dilation=(2, 1, 1),
)  # fmt: skip
BY_XLA = by_plane(XLA)
FORMS = {"xla": BY_XLA, "winograd": by_plane(WINOGRAD), "per group": per_group(BY_XLA)}
IN_BANDS = {2: ("forward", "grad_kernel"), 1: ROLES}  # by stride: planes put back are put back at once


def test_inside_does_the_same_work():
    assert inside(SPEC).ndim == SPEC.ndim - 1
    assert inside(SPEC).flops == SPEC.flops
    assert inside(SPEC).parameters == SPEC.parameters


@pytest.mark.parametrize("stride", IN_BANDS)
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "bands"])
@pytest.mark.parametrize("name", FORMS)
def test_bands_agree_with_lax(name, cut, stride, monkeypatch):
    spec = SPEC.replace(strides=(stride, 1, 1), groups=2 if name == "per group" else 1)
    rng = np.random.default_rng(0)
    if cut:
        monkeypatch.setattr(pieces.cut, "__defaults__", (600, 1))
    x, w, g = (rng.standard_normal(shape, dtype="f") for shape in (spec.x_shape, spec.w_shape, spec.y_shape))
    operands = {"forward": (x, w), "grad_input": (g, w), "grad_kernel": (x, g)}
    for role in ROLES:
        program = jax.jit(lambda a, b, role=role: evaluate(FORMS[name], role, a, b, spec))
        loops = [e for e in equations(jax.make_jaxpr(program)(*operands[role]))
                 if e.primitive.name in ("while", "scan")]  # fmt: skip
        assert bool(loops) == (cut and role in IN_BANDS[stride])
        wanted = np.asarray(lax_role(role, *operands[role], spec))
        bound = tolerance("float32", spec.positions * spec.c, 5.5) * np.abs(wanted).max()
        np.testing.assert_allclose(program(*operands[role]), wanted, rtol=0, atol=bound)


def test_it_refuses_what_it_cannot_unroll():
    rejects = BY_XLA.rejects
    assert "none to spare" in rejects(ConvSpec.of(spatial=(9,), kernel=(3,)))
    assert "taps along the first axis" in rejects(ConvSpec.of(spatial=(9, 9), kernel=(1, 3)))
    assert "2 groups" in rejects(SPEC.replace(groups=2))
    assert "input dilation" in rejects(ConvSpec.of(spatial=(9, 9), kernel=(3, 3), lhs_dilation=(2, 1)))


@pytest.mark.parametrize(("dtype", "is_own"), [("float32", True), ("int8", True), ("bfloat16", False)])
def test_only_halves_have_no_kernel_gradient_of_their_own(dtype, is_own):
    spec = cases.named("3d").spec.with_dtype(dtype)
    assert (own(BY_XLA, "grad_kernel", spec) is not None) == is_own
