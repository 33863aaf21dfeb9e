"""Every algorithm, every geometry, every role: against NumPy in float64 and against lax."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import lax_forward

import jconv
from jconv.algorithms import ALGORITHMS, FORMS
from jconv.algorithms.record import evaluate, own, refuses
from jconv.calculus.primitives import convolve
from jconv.spec import ROLES, ConvSpec, windows
from jconv.spec.tolerance import tolerance
from jconv.testing import cases

DEEP = settings.default == settings.get_profile("deep")

TRANSFORM = 10.0  # what an algorithm that mixes values may lose on the direct sum


def takes(algorithm, role, spec):
    """Whether it computes the role by itself or by its forward, some way or other."""
    return not (refuses(algorithm, role, spec) and algorithm.rejects(spec))


def compiled(algorithm, role, spec):
    return jax.jit(functools.partial(evaluate, algorithm, role, spec=spec))


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
OF_DTYPES = [
    (name, dtype, case, role)
    for name, (dtype, case), role in itertools.product(ALGORITHMS, DTYPES, ROLES)
    if takes(ALGORITHMS[name], role, cases.named(case).spec.with_dtype(dtype))
]


@pytest.mark.parametrize(("name", "dtype", "case", "role"), OF_DTYPES)
def test_dtype(x64, name, dtype, case, role):
    spec, algorithm = cases.named(case).spec.with_dtype(dtype), ALGORITHMS[name]
    arrays = cases.normal(spec)
    got = compiled(algorithm, role, spec)(*cases.operands(role, arrays))
    assert_agrees(got, role, arrays, spec, algorithm.exact)


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_reference_is_what_lax_computes(x64, case):
    spec = case.spec.with_dtype("float64")
    arrays = cases.whole(spec)
    got = jax.jit(functools.partial(lax_forward, spec=spec))(arrays["x"], arrays["w"])
    np.testing.assert_array_equal(got, cases.reference("forward", arrays["x"], arrays["w"], spec))


@pytest.mark.parametrize("dtype", ["int32", "int8", "complex64"])
@pytest.mark.parametrize("name", ["everything", "multiplier"])
def test_other_dtypes_by_default(dtype, name):
    spec = cases.named(name).spec.with_dtype(dtype)
    arrays = cases.whole(spec, most=1)
    for role in ROLES if dtype == "complex64" else ("forward",):
        a, b = cases.operands(role, arrays)
        got = convolve(role, a, b, spec, "auto")
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, cases.reference(role, a, b, spec))


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


EXACT = [
    name for name, a in ALGORITHMS.items() if a.exact and takes(a, "forward", cases.named("everything").spec)
]


@pytest.mark.parametrize("name", EXACT)
def test_nan_stays_in_its_receptive_field(name):
    spec = cases.named("everything").spec
    arrays = cases.whole(spec)
    x = np.where(np.arange(arrays["x"].size).reshape(spec.x_shape) == 100, np.nan, arrays["x"])
    touched = cases.reference("forward", np.isnan(x) * 1.0, np.ones(spec.w_shape), spec) > 0
    got = compiled(ALGORITHMS[name], "forward", spec)(x.astype("float32"), arrays["w"])
    np.testing.assert_array_equal(np.isnan(got), touched)
    assert 0 < touched.sum() < touched.size


# -- random geometries -----------------------------------------------------------------------------


@st.composite
def specs(draw):
    """Any geometry with an output, up to three dimensions."""
    ndim = draw(st.integers(1, 3))
    small = st.integers(1, 3)

    def per_dim(values):
        return tuple(draw(values) for _ in range(ndim))

    groups = draw(small)
    spec = ConvSpec.of(
        batch=draw(small), in_channels=groups * draw(small), out_channels=groups * draw(small),
        groups=groups, spatial=per_dim(st.integers(1, 8)), kernel=per_dim(small), strides=per_dim(small),
        lhs_dilation=per_dim(st.integers(1, 2)), rhs_dilation=per_dim(small),
        padding=per_dim(st.tuples(st.integers(-2, 4), st.integers(-2, 4))),
    )  # fmt: skip
    grown = [
        (lo, hi + max(0, window - size))
        for (lo, hi), window, size in zip(spec.padding, spec.window, spec.padded, strict=True)
    ]
    return spec.replace(padding=tuple(grown))


@given(spec=specs(), algorithm=st.sampled_from([name for name, a in ALGORITHMS.items() if a.exact]))
def test_random_geometry(spec, algorithm):
    assert min(spec.out_spatial) >= 1
    assert spec.out_spatial == tuple(map(windows, spec.padded, spec.window, spec.strides))
    arrays = cases.whole(spec)
    for role in ROLES:
        if refuses(ALGORITHMS[algorithm], role, spec):
            continue
        a, b = cases.operands(role, arrays)
        got = compiled(ALGORITHMS[algorithm], role, spec)(a, b)
        np.testing.assert_array_equal(got, cases.reference(role, a, b, spec))


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
@pytest.mark.parametrize(
    ("mode", "numpy_mode"), [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")]
)
def test_padding_modes(mode, numpy_mode, layout):
    last = layout == "NHWC" or None
    x, w, _ = users_arrays(2, last, (2, 2, 3))
    sides = [(1, 2), (3, 0)]
    around = [(0, 0), *sides, (0, 0)] if last else [(0, 0), (0, 0), *sides]
    want = expected(np.pad(x, around, numpy_mode), w, 2, last, "VALID")
    got = jconv.conv2d(x, w, padding=sides, padding_mode=mode, layout=layout)
    np.testing.assert_array_equal(got, want)


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


def test_preferred_element_type_accumulates_wide():
    x = np.full((1, 64, 3, 3), 100, "int8")
    w = np.full((1, 64, 3, 3), 100, "int8")
    got = jconv.conv2d(x, w, preferred_element_type="int32")
    assert got.dtype == "int32"
    assert got.item() == 64 * 9 * 100 * 100
