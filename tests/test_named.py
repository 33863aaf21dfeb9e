"""A named algorithm takes what `grad` and `vmap` make of every problem that it takes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jconv
from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import evaluate, refuses, serves
from jconv.calculus.primitives import convolve
from jconv.spec import ROLES, ConvSpec
from jconv.spec.roles import OPERANDS
from jconv.spec.tolerance import tolerance
from jconv.testing import cases

TWICE = dict(lhs_dilation=(2, 2), padding=((2, 2), (1, 1)))
SPECS = {
    "dense": ConvSpec.of(batch=2, spatial=(6, 5), kernel=(3, 2), in_channels=4, out_channels=3),
    "odd": ConvSpec.of(spatial=(6, 5), kernel=(3, 3), in_channels=3, out_channels=17),
    "pointwise": ConvSpec.of(batch=2, spatial=(3, 4), kernel=(1, 1), in_channels=3, out_channels=2),
    "tiles": ConvSpec.of(spatial=(6, 4), kernel=(3, 2), strides=(3, 2), in_channels=2, out_channels=3),
    "transposed": ConvSpec.of(spatial=(3, 4), kernel=(3, 2), in_channels=2, out_channels=3, **TWICE),
    "depthwise": ConvSpec.of(spatial=(4, 5), kernel=(3, 2), in_channels=4, out_channels=8, groups=4),
    "volume": ConvSpec.of(spatial=(5, 4, 3), kernel=(2, 3, 2), strides=(2, 1, 1), out_channels=3),
}  # fmt: skip
TAKEN = [(name, what) for what in SPECS for name in ALGORITHMS if serves(ALGORITHMS[name], SPECS[what])]
REFUSED = [
    (name, what, role)
    for name, what in TAKEN
    for role in ROLES
    if refuses(ALGORITHMS[name], role, SPECS[what])
]
FOLDS = {(0, None): "n", (None, 0): "o", (0, 0): "g"}  # of a forward, by which operands are mapped
UNFOLDABLE = [
    (name, what, axes)
    for name, what in TAKEN
    for axes, letter in FOLDS.items()
    if not refuses(ALGORITHMS[name], "forward", SPECS[what])
    and not serves(ALGORITHMS[name], SPECS[what].folded(2, letter))
]
HALVES = [pair for pair in TAKEN if pair[1] in ("dense", "transposed", "volume")]


def bound(role, spec, algorithm):
    return 4 * tolerance("float32", cases.reduction(role, spec), algorithm.amplification(spec))


@pytest.mark.parametrize(("name", "what", "role"), REFUSED)
def test_a_role_that_is_refused_is_another_run_backwards(name, what, role):
    """That role is what a gradient of the ones that are not refused asks for."""
    spec, algorithm = SPECS[what], ALGORITHMS[name]
    a, b = cases.operands(role, cases.normal(spec))
    got = jax.jit(functools.partial(evaluate, algorithm, role, spec=spec))(a, b)
    assert cases.error(got, cases.reference(role, a, b, spec)) <= bound(role, spec, algorithm)


@pytest.mark.parametrize(("name", "what", "axes"), UNFOLDABLE)
def test_vmap_of_what_is_refused_folded_goes_one_by_one(name, what, axes):
    spec = SPECS[what]
    copies = [cases.operands("forward", cases.normal(spec, seed)) for seed in range(2)]
    stacks = zip(*copies, strict=True)
    args = [np.stack(two) if axis == 0 else two[0] for two, axis in zip(stacks, axes, strict=True)]
    got = jax.vmap(functools.partial(convolve, "forward", spec=spec, algorithm=name), axes)(*args)
    for i, y in enumerate(got):
        x, w = (arg[i] if axis == 0 else arg for arg, axis in zip(args, axes, strict=True))
        want = cases.reference("forward", x, w, spec)
        assert cases.error(y, want) <= bound("forward", spec, ALGORITHMS[name])


def test_there_is_something_to_test():
    assert {"pointwise", "patchify", "overlap_add", "unrolled"} <= {name for name, *_ in UNFOLDABLE}
    assert {"overlap_add", "phase"} <= {name for name, *_ in REFUSED}


def test_the_gradient_of_a_refused_role():
    """`overlap_add` refuses strides, and is named for the transposed convolution: its gradient is strided."""
    x, w, weights = jnp.array([[[1.0, 2.0]]]), jnp.ones((1, 1, 2)), jnp.arange(4.0)
    for name in ("overlap_add", "auto"):
        conv = functools.partial(jconv.conv_transpose1d, stride=2, algorithm=name)
        dx = jax.grad(lambda x, conv=conv: jnp.sum(weights * conv(x, w)))(x)
        assert dx.ravel().tolist() == [1, 5]


def test_what_no_role_takes_is_an_error():
    a, b = cases.operands("forward", cases.normal(SPECS["dense"]))
    with pytest.raises(ValueError, match=r"'pointwise' refuses .* role; forward: the kernel has 6 taps"):
        evaluate(ALGORITHMS["pointwise"], "forward", a, b, SPECS["dense"])


@pytest.mark.parametrize(("name", "what"), HALVES)
def test_halves_are_rounded_once(name, what):
    """Sums of numbers of one sign, where a sum in bfloat16 itself would show."""
    spec, algorithm = SPECS[what], ALGORITHMS[name]
    half = spec.replace(x_dtype="bfloat16", w_dtype="bfloat16", y_dtype="bfloat16")
    arrays = {key: jnp.asarray(abs(value), "bfloat16") for key, value in cases.normal(spec).items()}
    for role in ROLES:
        a, b = (arrays[key] for key in OPERANDS[role])
        got = np.asarray(jax.jit(functools.partial(evaluate, algorithm, role, spec=half))(a, b), "float64")
        want = cases.reference(role, *(np.asarray(v, "float64") for v in (a, b)), spec)
        rounded = 1.1 * 2**-8 * np.abs(want) + bound(role, spec, algorithm) * want.max()
        assert (np.abs(got - want) <= rounded).all()


def test_without_jit():
    x, w = jnp.ones((1, 2, 5, 4)), jnp.ones((3, 2, 3, 2))
    with jax.disable_jit():
        y, dw = jconv.conv2d(x, w), jax.grad(lambda w: jconv.conv2d(x, w).sum())(w)
    assert set(np.ravel(y)) == {12}
    assert set(np.ravel(dw)) == {9}
