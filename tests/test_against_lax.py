"""Every algorithm, every geometry, every role: against NumPy in float64 and against lax."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings
from oracles import lax_role

import jconv
from jconv.algorithms import ALGORITHMS, FORMS
from jconv.algorithms.record import evaluate, own, refuses
from jconv.calculus.primitives import convolve
from jconv.spec import ROLES
from jconv.spec.tolerance import tolerance
from jconv.testing import cases

DEEP = settings.default == settings.get_profile("deep")

TRANSFORM = 10.0  # what an algorithm that mixes values may lose on the direct sum


def takes(algorithm, role, spec):
    """Whether it computes the role by itself or by its forward, some way or other."""
    return not (refuses(algorithm, role, spec) and algorithm.rejects(spec))


def assert_agrees(got, role, arrays, spec, exact=True):
    assert got.shape == spec.result(role)[0]
    assert got.dtype == spec.result(role)[1]
    bound = tolerance(str(got.dtype), cases.reduction(role, spec), 1.0 if exact else TRANSFORM)
    want = cases.reference(role, *cases.operands(role, arrays), spec)
    assert cases.error(got, want) <= bound


DERIVED_CASES = {*cases.tagged("few"), *map(cases.named, ("crop", "overpadded", "winograd_size"))}


def table():
    """Forward and an algorithm's own gradients everywhere; gradients derived from its forward (the code
    that derives them is everyone's) on every case for im2col, on a few for the others."""
    for algorithm, case in itertools.product(FORMS, cases.CASES):
        spec, everything = case.spec, DEEP or case in DERIVED_CASES or algorithm.name == "im2col"
        asked = [role for role in ROLES if everything or own(algorithm, role, spec)]
        if roles := [role for role in asked if takes(algorithm, role, spec)]:
            yield pytest.param(algorithm, case, roles, id=f"{algorithm.name} {algorithm.variant}-{case}")


@pytest.mark.parametrize(("algorithm", "case", "roles"), table())
def test_algorithm(algorithm, case, roles):
    spec = case.spec

    @jax.jit
    def compute(arrays):
        return {role: evaluate(algorithm, role, *cases.operands(role, arrays), spec=spec) for role in roles}

    arrays = cases.normal(spec)
    for role, got in compute(arrays).items():
        assert_agrees(got, role, arrays, spec, algorithm.exact)
    if algorithm.exact:
        arrays = cases.whole(spec)
        for role, got in compute(arrays).items():
            want = cases.reference(role, *cases.operands(role, arrays), spec)
            np.testing.assert_array_equal(got, want, err_msg=role)


DTYPES = [("float64", "winograd_size"), ("bfloat16", "winograd_size"), ("bfloat16", "everything")]


def of_dtypes():
    """Algorithms that mix values and roles that "auto" leaves out: tests/test_promise.py has the others."""
    for algorithm, (dtype, case), role in itertools.product(ALGORITHMS.values(), DTYPES, ROLES):
        spec = cases.named(case).spec.with_dtype(dtype)
        others = algorithm.exact and not refuses(algorithm, role, spec)
        if takes(algorithm, role, spec) and not others:
            yield pytest.param(algorithm, spec, role, id=f"{algorithm.name}-{dtype}-{case}-{role}")


@pytest.mark.parametrize(("algorithm", "spec", "role"), of_dtypes())
def test_dtype(x64, algorithm, spec, role):
    arrays = cases.normal(spec)
    program = jax.jit(functools.partial(evaluate, algorithm, role, spec=spec))
    assert_agrees(program(*cases.operands(role, arrays)), role, arrays, spec, algorithm.exact)


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_reference_is_what_lax_computes(x64, case):
    spec = case.spec.with_dtype("float64")  # until jaxlib 0.12: float32 reads beside x in "crop"
    arrays = cases.whole(spec)

    @jax.jit
    def by_lax(arrays):
        return {role: lax_role(role, *cases.operands(role, arrays), spec) for role in ROLES}

    for role, got in by_lax(arrays).items():
        want = cases.reference(role, *cases.operands(role, arrays), spec)
        np.testing.assert_array_equal(got, want, err_msg=role)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("algorithm", ["auto", "im2col"])
@pytest.mark.parametrize(
    "empty", [{"batch": 0}, {"out_channels": 0}, {"in_channels": 0}, {"spatial": (1, 7)}]
)
def test_empty_arrays_give_zeros(algorithm, role, empty):
    spec = cases.named("plain").spec.replace(**empty)
    arrays = cases.whole(spec)
    got = convolve(role, *cases.operands(role, arrays), spec, algorithm)
    np.testing.assert_array_equal(got, np.zeros(spec.result(role)[0], "float32"))


# -- the public door -------------------------------------------------------------------------------

LAYOUTS = {1: ("NCW", "OIW"), 2: ("NCHW", "OIHW"), 3: ("NCDHW", "OIDHW")}
LAST = {1: ("NWC", "WIO"), 2: ("NHWC", "HWIO"), 3: ("NDHWC", "DHWIO")}
CONV = {1: jconv.conv1d, 2: jconv.conv2d, 3: jconv.conv3d}
SIZES = (7, 8, 5)
KERNEL = (3, 4, 2)

PADDINGS = {
    "int": (1, lambda total: [(1, 1)] * len(total)),
    "per_dim": ((2, 0, 1), lambda total: [(2, 2), (0, 0), (1, 1)][: len(total)]),
    "per_side": (((1, 2), (0, 1), (2, 0)), lambda total: [(1, 2), (0, 1), (2, 0)][: len(total)]),
    "same": ("SAME", lambda total: [(t // 2, t - t // 2) for t in total]),
    "same_lower": ("same_lower", lambda total: [(t - t // 2, t // 2) for t in total]),
    "valid": ("valid", lambda total: [(0, 0)] * len(total)),
}


def expected(x, w, ndim, layout, padding, **knobs):
    """lax, in the user's layout."""
    numbers = (LAST if layout else LAYOUTS)[ndim]
    strides = knobs.pop("stride", (1,) * ndim)
    return jax.lax.conv_general_dilated(
        x, w, strides, padding, dimension_numbers=(*numbers, numbers[0]),
        rhs_dilation=knobs.get("dilation"), feature_group_count=knobs.get("groups", 1),
    )  # fmt: skip


def users_arrays(ndim, layout, channels=(4, 2, 6)):
    """x, w, b of whole numbers in either layout."""
    rng = np.random.default_rng(ndim)
    c, per_group, o = channels
    h, r = SIZES[:ndim], KERNEL[:ndim]
    x, w = ((3, *h, c), (*r, per_group, o)) if layout else ((3, c, *h), (o, per_group, *r))
    return [rng.integers(-3, 4, shape).astype("float32") for shape in (x, w, (o,))]


@pytest.mark.parametrize("layout", [None, "last"])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_padding_forms(ndim, padding, layout):
    given_padding, meaning = PADDINGS[padding]
    if isinstance(given_padding, tuple):
        given_padding = given_padding[:ndim]
    x, w, b = users_arrays(ndim, layout)
    pairs = meaning([k - 1 for k in KERNEL[:ndim]])
    want = expected(x, w, ndim, layout, pairs, groups=2)
    want += b if layout else b.reshape(-1, *[1] * ndim)
    names = LAST[ndim][0] if layout else None
    got = CONV[ndim](x, w, b, padding=given_padding, groups=2, layout=names, algorithm="xla")
    np.testing.assert_array_equal(got, want)


def test_causal_padding_is_all_before_the_start():
    x, w, _ = users_arrays(1, None, (2, 2, 3))
    got = jconv.conv1d(x, w, padding="causal", dilation=2)
    np.testing.assert_array_equal(got, expected(x, w, 1, None, [(4, 0)], dilation=(2,)))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "nhwc"])
def test_stride_dilation_groups_numpy_and_unbatched(layout):
    last = layout.upper() == "NHWC" or None
    x, w, b = users_arrays(2, last)
    knobs = dict(stride=(2, 1), dilation=(1, 2), groups=2)
    want = expected(x, w, 2, last, [(1, 1)] * 2, **knobs) + (b if last else b[:, None, None])
    args = dict(padding=1, layout=layout, **knobs)
    np.testing.assert_array_equal(jconv.conv2d(x, w, b, **args), want)
    np.testing.assert_array_equal(jconv.conv2d(jnp.asarray(x), jnp.asarray(w), b, **args), want)
    np.testing.assert_array_equal(jconv.conv2d(x[1], w, b, **args), want[1])
    as_arrays = args | dict(stride=np.array([2, 1]), dilation=[1, 2], padding=[[1, 1], (1, 1)])
    np.testing.assert_array_equal(jconv.conv2d(x, w, b, **as_arrays), want)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("batched", [True, False])
def test_gradients_by_name(layout, batched):
    last = layout == "NHWC" or None
    x, w, _ = users_arrays(2, last)
    knobs = dict(stride=(2, 1), dilation=(1, 2), groups=2)
    y, back = jax.vjp(lambda x, w: expected(x, w, 2, last, [(1, 0), (0, 2)], **knobs), x, w)
    g = np.random.default_rng(5).integers(-3, 4, y.shape).astype("float32")
    if not batched:
        g[1:] = 0
    dx, dw = back(g)
    x, g, dx = (x, g, dx) if batched else (x[0], g[0], dx[0])
    args = dict(padding=((1, 0), (0, 2)), layout=layout, **knobs)
    np.testing.assert_array_equal(jconv.grad_input(x.shape, w, g, **args), dx)
    np.testing.assert_array_equal(jconv.grad_kernel(x, w.shape, g, **args), dw)
