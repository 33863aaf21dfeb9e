"""The door in lax's names: the same shapes, dtypes, weak types, errors and values as lax."""

import functools
import inspect
import json
import re

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from oracles import convolutions

import jconv
from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import evaluate
from jconv.spec import ConvSpec
from jconv.spec.tolerance import tolerance

X, W = (2, 4, 7, 6), (6, 2, 3, 2)
EVERYTHING = dict(window_strides=(2, 1), padding=((1, 2), (0, 1)), lhs_dilation=(1, 2), rhs_dilation=(2, 1),
                  feature_group_count=2)  # fmt: skip
NUMBERS = [
    None,
    ("NCHW", "OIHW", "NCHW"),
    ("NHWC", "HWIO", "NHWC"),
    ("CNWH", "IWHO", "HCNW"),
    lax.ConvDimensionNumbers((3, 2, 0, 1), (3, 2, 1, 0), (0, 1, 3, 2)),
]


def normal(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def in_layout(numbers, x_shape=X, w_shape=W):
    """The two shapes, given as NC… and OI…, in the order that `numbers` asks for."""
    if numbers is None:
        return x_shape, w_shape
    if isinstance(numbers, tuple) and isinstance(numbers[0], str):
        ranks = [(0,) * len(spec) for spec in numbers]
        numbers = lax.conv_dimension_numbers(ranks[0], ranks[1], numbers)
    shapes = []
    for shape, spec in ((x_shape, numbers[0]), (w_shape, numbers[1])):
        laid = [0] * len(shape)
        for axis, size in zip(spec, shape, strict=True):
            laid[axis] = size
        shapes.append(tuple(laid))
    return shapes


def assert_is_laxs(ours, theirs, *arrays, reduction=100):
    expected, found = theirs(*arrays), ours(*arrays)
    assert (found.shape, found.dtype, found.weak_type) == (expected.shape, expected.dtype, expected.weak_type)
    scale = float(np.abs(expected).max()) if expected.size else 1.0
    chex.assert_trees_all_close(found, expected, rtol=0, atol=scale * tolerance("float32", reduction))


@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
def test_dimension_numbers(numbers):
    arrays = normal(*in_layout(numbers))
    knobs = EVERYTHING | dict(dimension_numbers=numbers)
    assert_is_laxs(
        lambda x, w: jconv.conv_general_dilated(x, w, **knobs),
        lambda x, w: lax.conv_general_dilated(x, w, **knobs),
        *arrays,
    )


def test_every_argument_by_position():
    arguments = ((1, 1), "SAME", (1, 1), (1, 1), None, 2, 1, ("default", "highest"), jnp.float32, None)
    assert_is_laxs(
        lambda *a: jconv.conv_general_dilated(*a, *arguments),
        lambda *a: lax.conv_general_dilated(*a, *arguments),
        *normal(X, W),
    )


SETTINGS = {  # x, w, keywords
    "same": (X, (6, 4, 3, 2), dict(window_strides=(2, 3), padding="SAME")),
    "same_lower": (X, (6, 4, 4, 2), dict(window_strides=(1, 2), padding="SAME_LOWER")),
    "negative_padding": (X, (6, 4, 2, 2), dict(window_strides=(1, 1), padding=((-1, 2), (1, -2)))),
    "batch_groups": ((4, 3, 7, 6), (6, 3, 3, 2), dict(window_strides=(2, 1), padding="SAME",
                                                      batch_group_count=2)),
    "lists_and_arrays": (X, (6, 4, 3, 2), dict(window_strides=np.array([2, 1]), padding=[[1, 0], [0, 1]],
                                              rhs_dilation=[1, 2])),
    "no_dimensions": ((3, 4), (6, 4), dict(window_strides=(), padding=())),
    "one_dimension": ((2, 4, 9), (6, 4, 3), dict(window_strides=(2,), padding="SAME", rhs_dilation=(2,))),
    "four_dimensions": ((1, 2, 3, 4, 3, 4), (2, 2, 2, 1, 2, 3), dict(window_strides=(1, 2, 1, 1),
                                                                     padding="SAME")),
    "empty_batch": ((0, 4, 7, 6), (6, 4, 3, 2), dict(window_strides=(1, 1), padding="SAME")),
    "empty_side": ((2, 4, 0, 6), (6, 4, 1, 2), dict(window_strides=(1, 1), padding=((1, 1), (0, 0)))),
    "empty_channels": ((2, 0, 7, 6), (6, 0, 3, 2), dict(window_strides=(1, 1), padding="SAME")),
    "empty_output_channels": (X, (0, 4, 3, 2), dict(window_strides=(1, 1), padding="SAME")),
    "kernel_larger_than_input": (X, (6, 4, 9, 2), dict(window_strides=(1, 1), padding="VALID")),
}  # fmt: skip


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_with_gradients(case):
    x, w, knobs = SETTINGS[case]

    def value_and_gradients(conv):
        def run(x, w):
            y, pullback = jax.vjp(lambda x, w: conv(x, w, **knobs), x, w)
            return y, *pullback(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

        return jax.jit(run)(*normal(x, w))

    ours, theirs = map(value_and_gradients, (jconv.conv_general_dilated, lax.conv_general_dilated))
    for mine, its in zip(ours, theirs, strict=True):
        assert_is_laxs(lambda v=mine: v, lambda v=its: v)


REFUSED = {  # x, w, keywords: everything lax refuses
    "wrong_channels": (X, (6, 3, 3, 2), {}),
    "wrong_rank": (X, (6, 4, 3), {}),
    "groups_do_not_divide": (X, W, dict(feature_group_count=3)),
    "both_groups": (X, W, dict(feature_group_count=2, batch_group_count=2)),
    "no_groups": (X, W, dict(feature_group_count=0)),
    "three_strides": (X, (6, 4, 3, 2), dict(window_strides=(1, 1, 1))),
    "unknown_padding": (X, (6, 4, 3, 2), dict(padding="FULL")),
    "flat_padding": (X, (6, 4, 3, 2), dict(padding=(1, 1))),
    "bad_dimension_numbers": (X, (6, 4, 3, 2), dict(dimension_numbers=("NCHW", "OIHW", "NCXY"))),
    "narrow_preferred_type": (X, (6, 4, 3, 2), dict(preferred_element_type=jnp.bfloat16)),
    "unknown_precision": (X, (6, 4, 3, 2), dict(precision="sharp")),
    "no_dilation": (X, (6, 4, 3, 2), dict(rhs_dilation=(0, 1))),
}


@pytest.mark.parametrize("case", REFUSED)
def test_errors_are_laxs(case):
    x, w, knobs = REFUSED[case]
    x, w, knobs = jnp.ones(x), jnp.ones(w), dict(window_strides=(1, 1), padding="SAME") | knobs
    with pytest.raises((TypeError, ValueError, RuntimeError)) as error:
        lax.conv_general_dilated(x, w, **knobs)
    with pytest.raises(error.type, match=re.escape(str(error.value).splitlines()[0][:60])):
        jconv.conv_general_dilated(x, w, **knobs)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, inside lax
def test_no_stride_is_refused():
    """lax leaves this to the compiler, with a message of its own."""
    for conv in (lax.conv, jconv.lax.conv):
        with pytest.raises(ValueError, match="expects window to have positive stride"):
            conv(jnp.ones((1, 1, 4)), jnp.ones((1, 1, 2)), (0,), "VALID")


def test_weak_types_are_kept():
    x = jnp.broadcast_to(jnp.asarray(1.0), (1, 1, 3)) * 1.0
    w = jnp.broadcast_to(2.0, (1, 1, 2))
    for a, b in [(x, w), (x, jnp.ones((1, 1, 2)))]:
        mine, its = (conv(a, b, (1,), "SAME") for conv in (jconv.lax.conv, lax.conv))
        assert mine.weak_type == its.weak_type


def test_it_may_stand_in_laxs_place(monkeypatch):
    """No call of lax's name inside jconv ends up in jconv again."""
    expected = lax.conv_general_dilated(jnp.ones(X), jnp.ones(W), (1, 1), "SAME", feature_group_count=2)
    monkeypatch.setattr(lax, "conv_general_dilated", jconv.conv_general_dilated)
    monkeypatch.setattr(jax._src.lax.convolution, "conv_general_dilated", jconv.conv_general_dilated)
    found = lax.conv_general_dilated(jnp.ones(X), jnp.ones(W), (1, 1), "SAME", feature_group_count=2)
    np.testing.assert_array_equal(found, expected)
    x, w = jnp.ones((1, 4, 5)), jnp.ones((4, 4, 3))
    np.testing.assert_array_equal(jconv.conv1d(x, w, algorithm="xla"), lax.conv(x, w, (1,), "VALID"))
    transposed = (jnp.ones((1, 5, 2)), jnp.ones((3, 2, 4)), (2,), "SAME")
    np.testing.assert_array_equal(jconv.lax.conv_transpose(*transposed), lax.conv_transpose(*transposed))


# -- the other doors -------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 2), (0, 3))], ids=str)
@pytest.mark.parametrize("transpose_kernel", [False, True])
@pytest.mark.parametrize("consistent", [False, True])
def test_conv_transpose(padding, transpose_kernel, consistent):
    kernel = (3, 4, 5, 2) if transpose_kernel else (3, 4, 2, 5)
    knobs = dict(strides=(2, 3), padding=padding, rhs_dilation=(2, 1), transpose_kernel=transpose_kernel,
                 use_consistent_padding=consistent)  # fmt: skip
    assert_is_laxs(
        lambda x, w: jconv.lax.conv_transpose(x, w, **knobs),
        lambda x, w: lax.conv_transpose(x, w, **knobs),
        *normal((2, 4, 5, 2), kernel),
    )


def test_conv_transpose_refuses_as_lax():
    x, w = jnp.ones((1, 4, 5, 2)), jnp.ones((3, 3, 2, 5))
    for padding in ("FULL", (1, 1)):
        for door in (lax, jconv.lax):
            with pytest.raises(ValueError, match="adding"):
                door.conv_transpose(x, w, (2, 2), padding)


PATCHES = [
    ((2, 5), (), (), [], ("NC", "OI", "CN")),
    ((2, 3, 4), (2,), (2,), [(0, 2)], ("CNH", "OHI", "HNC")),
    ((2, 3, 5, 6), (3, 2), (2, 1), "SAME", None),
    ((1, 2, 5, 4), (3, 2), (1, 2), [(-1, 0), (2, 1)], ("CWHN", "HOWI", "NCHW")),
    ((2, 3, 4, 5, 6), (2, 1, 3), (2, 1, 3), [(1, 2), (5, 3), (3, 5)], ("NHWDC", "HDIWO", "DCWNH")),
]


@pytest.mark.parametrize("case", PATCHES, ids=lambda case: str(case[-1]))
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_patches(case, dtype):
    shape, *arguments, numbers = case
    x = np.random.default_rng(0).integers(-9, 9, shape).astype(dtype)
    expected = lax.conv_general_dilated_patches(x, *arguments, dimension_numbers=numbers)
    found = jconv.conv_general_dilated_patches(x, *arguments, dimension_numbers=numbers)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_patches_with_dilations_and_preferred_type():
    knobs = dict(lhs_dilation=(1, 2), rhs_dilation=(2, 1), preferred_element_type=jnp.float32)
    x = jnp.arange(60, dtype=jnp.bfloat16).reshape(1, 2, 5, 6)
    padding = ((1, 2), (0, 1))
    expected = lax.conv_general_dilated_patches(x, (2, 3), (1, 2), padding, **knobs)
    found = jconv.conv_general_dilated_patches(x, (2, 3), (1, 2), padding, **knobs)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_patches_are_bit_exact():
    """NaNs and infinities stay where they are; lax's identity kernel would multiply them with zeros."""
    x = jnp.array([jnp.nan, 1.0, jnp.inf, -0.0]).reshape(1, 1, 4)
    found = jconv.conv_general_dilated_patches(x, (2,), (1,), "VALID")
    np.testing.assert_array_equal(found, [[[np.nan, 1, np.inf], [1, np.inf, -0.0]]])
    assert np.signbit(found[0, 1, 2])


def test_the_shorter_doors():
    arrays = normal(X, (6, 4, 3, 2))
    assert_is_laxs(
        lambda x, w: jconv.lax.conv(x, w, (2, 1), "SAME"),
        lambda x, w: lax.conv(x, w, (2, 1), "SAME"),
        *arrays,
    )
    general = ((2, 1), ((1, 2), (0, 1)), (1, 2), (2, 1))
    assert_is_laxs(
        lambda x, w: jconv.lax.conv_with_general_padding(x, w, *general),
        lambda x, w: lax.conv_with_general_padding(x, w, *general),
        *arrays,
    )


# -- the whole namespace ---------------------------------------------------------------------------


def convolutions_of(namespace):
    others = ("convert", "bitcast")
    return {name for name in dir(namespace) if "conv" in name.lower() and not name.startswith(others)}


def test_every_name_of_laxs_is_here_with_its_signature():
    assert convolutions_of(lax) == set(jconv.lax.__all__)
    for name in jconv.lax.__all__:
        mine, its = getattr(jconv.lax, name), getattr(lax, name)
        if mine is not its:  # those that compute
            parameters = [[(p.name, p.default, p.kind) for p in inspect.signature(f).parameters.values()]
                          for f in (mine, its)]  # fmt: skip
            assert parameters[0] == parameters[1], name


def test_what_computes_no_convolution_is_laxs_own():
    own = {name for name in jconv.lax.__all__ if getattr(jconv.lax, name) is not getattr(lax, name)}
    assert own == {"conv", "conv_general_dilated", "conv_general_dilated_local", "conv_transpose",
                   "conv_general_dilated_patches", "conv_with_general_padding"}  # fmt: skip


LOCAL = [  # x, filter, strides, padding, dimension numbers, rhs dilation
    ((2, 3, 4), (2,), (2,), [(0, 2)], ("NCH", "OIH", "NCH"), None),
    ((2, 3, 5, 6), (3, 2), (2, 1), "SAME", None, None),
    ((2, 5, 6, 3), (3, 2), (1, 2), "VALID", ("NHWC", "HWIO", "NHWC"), None),
    ((1, 2, 5, 4), (3, 2), (1, 2), [(-1, 0), (2, 1)], ("CWHN", "HOWI", "HNCW"), None),
    ((3, 4, 5, 2), (2, 2), (1, 1), "VALID", ("HCWN", "IWHO", "WNHC"), (2, 1)),
    ((2, 3, 4, 3, 5), (2, 1, 3), (2, 1, 2), [(1, 1), (0, 0), (1, 2)], ("NHWDC", "HDIWO", "DCWNH"), None),
]


@pytest.mark.parametrize("case", LOCAL, ids=lambda case: str(case[-2]))
def test_a_kernel_of_its_own_at_every_position(case):
    shape, window, strides, padding, numbers, dilation = case
    knobs = dict(window_strides=strides, padding=padding, filter_shape=window, rhs_dilation=dilation,
                 dimension_numbers=numbers, precision="highest")  # fmt: skip
    x = np.random.default_rng(0).integers(-4, 5, shape).astype(np.float32)
    w = local_kernel(x, knobs)
    ours, theirs = (
        jax.vjp(lambda x, w, door=door: door.conv_general_dilated_local(x, w, **knobs), x, w)
        for door in (jconv.lax, lax)
    )
    np.testing.assert_array_equal(ours[0], theirs[0])
    g = np.random.default_rng(2).integers(-4, 5, ours[0].shape).astype(np.float32)
    for mine, its in zip(ours[1](g), theirs[1](g), strict=True):
        np.testing.assert_array_equal(mine, its)


def local_kernel(x, knobs):
    """Whole numbers in the shape that the patches ask for, five output channels."""
    rest = {name: value for name, value in knobs.items() if name != "precision"}
    patches = lax.conv_general_dilated_patches(x, **rest)
    numbers = lax.conv_dimension_numbers(x.shape, (1, 1, *knobs["filter_shape"]), knobs["dimension_numbers"])
    shape = [0] * x.ndim
    shape[numbers.rhs_spec[0]], shape[numbers.rhs_spec[1]] = 5, patches.shape[numbers.out_spec[1]]
    for mine, its in zip(numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True):
        shape[mine] = patches.shape[its]
    return np.random.default_rng(1).integers(-4, 5, shape).astype(np.float32)


# -- nothing left of an axis -------------------------------------------------------------------------

APART = {  # x, w, strides, padding, lhs_dilation: no window meets the input
    "cropped_from_the_start": ((2, 3, 4), (5, 3, 2), (1,), [(-4, 3)], (1,)),
    "cropped_past_the_start": ((2, 3, 4), (5, 3, 2), (2,), [(-6, 9)], (1,)),
    "cropped_from_the_end": ((2, 3, 4), (5, 3, 2), (1,), [(5, -4)], (1,)),
    "one_of_two_axes": ((1, 3, 6, 4), (5, 3, 3, 2), (1, 1), [(1, 1), (-4, 4)], (1, 1)),
    "dilated": ((2, 3, 2), (5, 3, 2), (1,), [(-3, 5)], (2,)),
    "a_stride_that_never_reaches_it": ((2, 3, 1), (5, 3, 2), (3,), [(3, 0)], (1,)),
}


@pytest.mark.parametrize("case", APART)
@pytest.mark.parametrize("door", ["lax", "accelerate", "xla"])
def test_where_no_window_meets_the_input_no_convolution_reaches_xla(case, door):
    """XLA's is not safe there.  The values are zeros of the right shape, and so are both gradients."""
    x, w, strides, padding, dilation = APART[case]

    def conv(x, w):
        if door == "xla":
            spec = spec_of_canonical(x, w, strides, padding, dilation)
            return evaluate(ALGORITHMS["xla"], "forward", jnp.moveaxis(x, 1, -1), canonical_kernel(w), spec)
        at = jconv.lax if door == "lax" else lax
        return at.conv_general_dilated(x, w, strides, padding, dilation)

    conv = jconv.accelerate(conv) if door == "accelerate" else conv
    x, w = normal(x, w)
    expected = jax.eval_shape(conv, x, w)

    def everything(x, w):
        y, pullback = jax.vjp(conv, x, w)
        return y, *pullback(jnp.ones_like(y)), jax.vmap(conv)(x[None], w[None])

    assert "convolution" not in jax.jit(everything).lower(x, w).as_text()
    y, dx, dw, _ = everything(x, w)
    assert y.shape == expected.shape
    assert y.size
    assert not any(array.any() for array in (y, dx, dw))
    assert dx.shape == x.shape
    assert dw.shape == w.shape


def spec_of_canonical(x, w, strides, padding, dilation):
    return ConvSpec.of(batch=x.shape[0], in_channels=x.shape[1], out_channels=w.shape[0],
                       spatial=x.shape[2:], kernel=w.shape[2:], strides=strides, padding=padding,
                       lhs_dilation=dilation)  # fmt: skip


def canonical_kernel(w):
    return w.transpose(*range(2, w.ndim), 1, 0)


def test_a_transposed_convolution_cropped_to_its_extension():
    """Negative pairs so large that no copy of the kernel is left: zeros, and no convolution."""
    x, w = normal((1, 2, 4), (2, 3, 3))
    call = jax.jit(lambda x, w: jconv.conv_transpose1d(x, w, padding=((6, -4),)))
    assert "convolution" not in call.lower(x, w).as_text()
    np.testing.assert_array_equal(call(x, w), np.zeros((1, 3, 4)))


# -- precision -------------------------------------------------------------------------------------

DEFAULT, HIGH, HIGHEST = ((precision,) * 2 for precision in lax.Precision)
DOORS = {
    "conv2d": jconv.conv2d,
    "conv_transpose2d": jconv.conv_transpose2d,
    "lax": lambda x, w: jconv.lax.conv(x, w, (1, 1), "SAME"),
    "accelerate": lambda x, w: lax.conv(x, w, (1, 1), "SAME"),
    "gradient": jax.grad(lambda x, w: jconv.conv2d(x, w).sum()),
}
SQUARE = jnp.ones((1, 4, 6, 6)), jnp.ones((4, 4, 3, 3))


def precisions(fn):
    return {row.spec.precision for row in jconv.explain(fn, *SQUARE)}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("name", "expected"),
    [("highest", HIGHEST), ("tensorfloat32", HIGH), ("bfloat16", DEFAULT), ("F32_F32_F32", DEFAULT)],
)
def test_jaxs_default_precision_is_read_when_traced(door, name, expected):
    """As lax reads it: around a jitted function or inside one, and by no cache mixed up with another."""
    call = DOORS[door]

    def inside(x, w):
        with jax.default_matmul_precision(name):
            return call(x, w)

    assert precisions(call) == {None}
    with jax.default_matmul_precision(name):
        assert precisions(call) == precisions(jax.jit(call)) == {expected}
    assert precisions(inside) == precisions(jax.jit(inside)) == {expected}
    assert precisions(call) == {None}


def test_what_is_asked_for_by_argument_goes_before_the_default():
    with jax.default_matmul_precision("highest"):
        assert precisions(lambda x, w: jconv.conv2d(x, w, precision="high")) == {HIGH}
        assert precisions(lambda x, w: jconv.lax.conv(x, w, (1, 1), "SAME", precision="high")) == {HIGH}


def test_the_fastest_mixes_no_values_where_highest_is_the_default(monkeypatch):
    monkeypatch.setenv("JCONV_PORTABLE", "1")
    x, w = jnp.ones((1, 256, 56, 56)), jnp.ones((256, 256, 3, 3))
    fastest = functools.partial(jconv.choose, x, w, padding=1, platform="cpu", algorithm="fastest")
    assert not fastest().algorithm.exact
    with jax.default_matmul_precision("highest"):
        assert fastest().algorithm.exact


PRESETS = ["BF16_BF16_F32_X3", "F32_F32_F32", lax.DotAlgorithmPreset.F32_F32_F32,
           lax.DotAlgorithm(np.float32, np.float32, np.float32)]  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: str(preset)[:20])
def test_presets_for_dot_products_say_nothing_about_convolutions(preset):
    """lax takes them, and compiles every convolution that has one at precision DEFAULT."""
    for conv in (lax.conv, jconv.accelerate(lax.conv), jconv.lax.conv):
        call = lambda x, w, conv=conv: conv(x, w, (1, 1), "SAME", precision=preset)  # noqa: E731
        np.testing.assert_array_equal(jax.jit(call)(*SQUARE), lax.conv(*SQUARE, (1, 1), "SAME"))
        assert "HIGH" not in jax.jit(call).lower(*SQUARE).as_text()
    assert precisions(call) == {DEFAULT}


@pytest.mark.parametrize("dtype", ["int8", "bfloat16", "complex64"])
@pytest.mark.parametrize("door", ["conv2d", "lax", "accelerate"])
def test_a_preset_around_suits_every_dtype(door, dtype):
    x, w = (array.astype(dtype) for array in SQUARE)
    expected = DOORS[door](x, w)
    with jax.default_matmul_precision("BF16_BF16_F32_X3"):
        found = jconv.accelerate(DOORS[door])(x, w)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


# -- arguments of every make -----------------------------------------------------------------------


def spec_of(**knobs):
    call = lambda x, w: jconv.conv_general_dilated(x, w, **knobs)  # noqa: E731
    return next(iter(jconv.explain(call, *SQUARE))).spec


def test_a_spec_holds_ints_of_pythons_own():
    """Or its name in the file of tuned algorithms, and what `explain` prints, would be another."""
    one, two = np.int64(1), np.int64(2)
    found = spec_of(window_strides=(two, one), padding=((one, two), (1, one)), lhs_dilation=(one, one),
                    rhs_dilation=(one, two), feature_group_count=two // 2, batch_group_count=one)  # fmt: skip
    expected = spec_of(window_strides=(2, 1), padding=((1, 2), (1, 1)), rhs_dilation=(1, 2))
    assert repr(found) == repr(expected)
    assert json.dumps(vars(found)) == json.dumps(vars(expected))


@pytest.mark.parametrize("knob", ["padding", "rhs_dilation", "lhs_dilation"])
def test_a_right_call_does_not_let_its_equal_but_wrong_twin_in(knob):
    right, wrong = ([(1, 1), (1, 1)], [(1.0, 1), (1, 1)]) if knob == "padding" else ((2, 1), (2.0, 1))
    plain = dict(window_strides=(1, 1), padding=[(1, 1), (1, 1)])
    for _ in range(2):
        with pytest.raises((TypeError, ValueError), match=r"integer|pairs"):
            jconv.conv_general_dilated(*SQUARE, **plain | {knob: wrong})
        jconv.conv_general_dilated(*SQUARE, **plain | {knob: right})


MAKES = {  # functions, for an iterator is used up by one call
    "zip": lambda: dict(window_strides=(2, 1), padding=zip((1, 0), (1, 2), strict=True)),
    "generators": lambda: dict(window_strides=(s for s in (2, 1)), padding=((lo, 1) for lo in (0, 1))),
    "range": lambda: dict(window_strides=range(1, 3), padding="SAME"),
    "numpy": lambda: dict(window_strides=np.array([2, 1]), padding=np.array([[1, 1], [0, 2]])),
    "jax": lambda: dict(window_strides=(2, 1), padding=jnp.array([[1, 1], [0, 2]])),
}


@pytest.mark.parametrize("make", MAKES)
def test_sequences_of_every_make(make):
    expected = lax.conv_general_dilated(*SQUARE, **MAKES[make]())
    np.testing.assert_array_equal(jconv.conv_general_dilated(*SQUARE, **MAKES[make]()), expected)


@pytest.mark.parametrize("make", [tuple, np.array, iter])
def test_sequences_of_every_make_transposed(make):
    x, w = jnp.ones((1, 4, 5, 2)), jnp.ones((3, 3, 2, 5))
    expected = lax.conv_transpose(x, w, (2, 1), ((1, 1), (0, 2)), (1, 2))
    found = jconv.lax.conv_transpose(x, w, make([2, 1]), make([(1, 1), (0, 2)]), make([1, 2]))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["lhs_dilation", "rhs_dilation"])
@pytest.mark.parametrize("padding", ["SAME", ((1, 1), (1, 1))], ids=str)
def test_a_dilation_per_dimension(name, padding):
    for wrong in ((1,), (1, 1, 1), ()):
        message = re.escape(f"`{name}`={wrong!r} must be 2 ints, one per spatial dimension")
        with pytest.raises(ValueError, match=message):
            jconv.conv_general_dilated(*SQUARE, (1, 1), padding, **{name: wrong})
    with pytest.raises(TypeError, match=f"`{name}`=2 must be 2 ints"):
        jconv.conv_general_dilated(*SQUARE, (1, 1), padding, **{name: 2})


def test_patches_larger_than_the_input():
    arguments = jnp.ones((1, 1, 4)), (9,), (2,), "VALID"
    expected = lax.conv_general_dilated_patches(*arguments)
    found = jconv.lax.conv_general_dilated_patches(*arguments)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype) == ((1, 9, 0), jnp.float32)


@pytest.mark.parametrize(
    ("layout", "order", "swapped"),
    [("NHWC", "HWIO", False), ("NHWC", "HWOI", True), ("NCHW", "OIHW", False), ("NCHW", "IOHW", True)],
)
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_kernel_that_lies_swapped_is_told(layout, order, swapped, dilation):
    """lax writes input gradients with the kernel as it lies, a user transposed ones with it to be swapped."""
    x = jnp.zeros((1, 5, 4, 8) if layout == "NHWC" else (1, 8, 5, 4))
    w = jnp.zeros([{"H": 3, "W": 3, "I": 8, "O": 6}[letter] for letter in order])
    knobs = dict(lhs_dilation=(dilation,) * 2, dimension_numbers=(layout, order, layout))
    conv = functools.partial(
        jconv.conv_general_dilated, window_strides=(1, 1), padding=((1, 1),) * 2, **knobs
    )
    ((_, spec),) = convolutions(conv, x, w)
    assert spec.kernel_swapped == (swapped if dilation == 1 else not swapped)
