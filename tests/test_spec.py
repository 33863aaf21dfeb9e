"""The problem as integers: sizes, parameters, FLOPs, and the specs of gradients and batches."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from oracles import convolutions, lax_forward

from jconv.calculus.primitives import convolve
from jconv.lax.general import convolve_as_role
from jconv.spec import ROLES, ConvSpec, extent, itemsize, windows
from jconv.spec.layout import from_specs, inverse, named, names
from jconv.spec.roles import canonical, flips_image, is_transposed
from jconv.testing import cases

small = st.integers(1, 3)


@st.composite
def specs(draw):
    """Any geometry with an output, in 0 to 3 dimensions."""
    n = draw(st.integers(0, 3))
    each = lambda values: tuple(draw(st.lists(values, min_size=n, max_size=n)))  # noqa: E731
    groups = draw(small)
    spec = ConvSpec.of(
        batch=draw(small), in_channels=groups * draw(small), out_channels=groups * draw(small), groups=groups,
        spatial=each(st.integers(1, 6)), kernel=each(small), strides=each(small), lhs_dilation=each(small),
        rhs_dilation=each(small), padding=each(st.tuples(st.integers(-2, 4), st.integers(-2, 4))),
    )  # fmt: skip
    assume(all(spec.out_spatial))
    return spec


# -- sizes and costs -------------------------------------------------------------------------------

DENSE = ConvSpec.of(
    batch=2, spatial=(28, 28), kernel=(3, 3), in_channels=256, out_channels=256, padding=((1, 1),) * 2
)
DEPTHWISE = DENSE.replace(groups=256)
POINTWISE = DENSE.replace(kernel=(1, 1), padding=((0, 0),) * 2)


def test_parameters_of_full_and_separable():
    assert DENSE.parameters == 589_824
    assert DEPTHWISE.parameters + POINTWISE.parameters == 67_840


def test_flops_and_bytes():
    positions = 2 * 28 * 28
    assert DENSE.macs == positions * 589_824
    assert DENSE.flops == 2 * DENSE.macs
    assert DEPTHWISE.flops + POINTWISE.flops == 2 * positions * 67_840
    assert DENSE.bytes == 4 * (positions * 256 + 589_824 + positions * 256)
    halves = DENSE.with_dtype("bfloat16")
    assert halves.bytes == DENSE.bytes // 2
    assert halves.replace(y_dtype="float32").bytes == DENSE.bytes // 2 + 2 * positions * 256


@given(specs())
def test_every_role_costs_the_same_multiplications(spec):
    """One per pair of (output, tap) and channel, as the definition counts them with padding as data."""
    assert (
        spec.macs
        == spec.batch * np.prod(spec.out_spatial) * np.prod(spec.kernel) * spec.c * spec.out_channels
    )
    assert (
        spec.as_grad_input().macs
        == spec.batch * np.prod(spec.x_shape[1:-1]) * spec.taps * spec.o * spec.in_channels
    )


@given(specs())
def test_the_output_has_laxs_shape(spec):
    x, w = (jax.ShapeDtypeStruct(shape, "float32") for shape in (spec.x_shape, spec.w_shape))
    y = jax.eval_shape(lambda x, w: lax_forward(x, w, spec), x, w)
    assert y.shape == spec.y_shape
    assert spec.positions * spec.out_channels == y.size


@given(size=st.integers(0, 12), dilation=small, stride=small, window=st.integers(1, 5))
def test_extents_and_windows_are_counted(size, dilation, stride, window):
    assert extent(size, dilation) == (max(range(0, size * dilation, dilation)) + 1 if size else 0)
    assert windows(size, window, stride) == sum(
        1 for start in range(0, size, stride) if start + window <= size
    )


def test_results_by_role():
    spec = DENSE.replace(y_dtype="bfloat16", w_dtype="float16")
    assert spec.result("forward") == (spec.y_shape, "bfloat16")
    assert spec.result("grad_input") == (spec.x_shape, "float32")
    assert spec.result("grad_kernel") == (spec.w_shape, "float16")


@pytest.mark.parametrize(
    ("dtypes", "accumulator"),
    [
        (("float32",) * 3, "float32"), (("bfloat16",) * 3, "float32"), (("float16",) * 3, "float32"),
        (("float8_e4m3fn",) * 3, "float32"), (("float64",) * 3, "float64"), (("complex64",) * 3, "complex64"),
        (("int8", "int8", "int32"), "int32"), (("uint8",) * 3, "int32"), (("int64",) * 3, "int64"),
        (("bool", "bool", "int32"), "int32"), (("bfloat16", "bfloat16", "float64"), "float64"),
    ],
)  # fmt: skip
def test_accumulators(dtypes, accumulator):
    spec = DENSE.replace(**dict(zip(("x_dtype", "w_dtype", "y_dtype"), dtypes, strict=True)))
    assert spec.accumulator == accumulator
    assert itemsize(dtypes[0]) == np.dtype(dtypes[0]).itemsize


@pytest.mark.parametrize(
    "change",
    [dict(batch=0), dict(in_channels=0), dict(out_channels=0), dict(spatial=(0, 3)), dict(kernel=(40, 1)),
     dict(kernel=(0, 1))],
)  # fmt: skip
def test_emptiness(change):
    assert not DENSE.is_empty
    assert DENSE.replace(**change).is_empty


def test_kinds():
    assert (DENSE.is_depthwise, DEPTHWISE.is_depthwise) == (False, True)
    assert (DENSE.is_pointwise, POINTWISE.is_pointwise) == (False, True)
    assert not DENSE.replace(in_channels=1).is_depthwise  # one channel in all is not a group each


def test_specs_are_keys():
    assert len({DENSE, dataclasses.replace(DENSE), DENSE.replace(batch=3)}) == 2


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (DENSE, "3×3 256→256 on 2×28×28, padding ((1, 1), (1, 1)), float32"),
        (DEPTHWISE, "3×3 256→256 on 2×28×28, padding ((1, 1), (1, 1)), depthwise, float32"),
        (POINTWISE.replace(strides=(2, 2)), "1×1 256→256 on 2×28×28, stride (2, 2), float32"),
        (ConvSpec.of(spatial=(9,), kernel=(3,), lhs_dilation=(2,), rhs_dilation=(3,)),
         "3 1→1 on 1×9, input dilation (2,), dilation (3,), float32"),
    ],
)  # fmt: skip
def test_says_what_it_is(spec, text):
    assert str(spec) == text


# -- what `of` takes --------------------------------------------------------------------------------

PER_SIZE = "must be one int per size of `kernel`=(3, 3)"
PER_PAIR = "`padding` must be one (lo, hi) pair per size of `kernel`=(3, 3), such as ((1, 1), (1, 1)), got"
NONSENSE = [
    (ValueError, dict(in_channels=3, out_channels=4, groups=2),
     "`groups`=2 must divide `in_channels`=3 and `out_channels`=4; choose 1"),
    (ValueError, dict(in_channels=8, out_channels=12, groups=3), "choose 1, 2 or 4"),
    (ValueError, dict(groups=0), "`groups`=0 must be at least 1"),
    (TypeError, dict(groups=1.0), "`groups` must be an int, got 1.0"),
    (ValueError, dict(batch=-1), "`batch`=-1 must be at least 0"),
    (TypeError, dict(in_channels=True), "`in_channels` must be an int, got True"),
    (TypeError, dict(kernel=3), "`kernel` must be one int per spatial dimension, got 3"),
    (TypeError, dict(kernel=(3, 3.0)), "`kernel` must be one int per spatial dimension, got 3.0"),
    (ValueError, dict(spatial=(8,)), f"`spatial` {PER_SIZE}, got (8,)"),
    (ValueError, dict(spatial=(8, -8)), "`spatial`=-8 must be at least 0"),
    (ValueError, dict(strides=(0, 1)), "`strides`=0 must be at least 1"),
    (TypeError, dict(strides=2), f"`strides` {PER_SIZE}, got 2"),
    (ValueError, dict(strides=()), f"`strides` {PER_SIZE}, got ()"),
    (ValueError, dict(lhs_dilation=(1, 0)), "`lhs_dilation`=0 must be at least 1"),
    (ValueError, dict(rhs_dilation=(1, 1, 1)), f"`rhs_dilation` {PER_SIZE}, got (1, 1, 1)"),
    (TypeError, dict(padding=1), f"{PER_PAIR} 1"),
    (TypeError, dict(padding=(1, 1)), f"{PER_PAIR} 1"),
    (TypeError, dict(padding="same"), f"{PER_PAIR} 'same'"),
    (TypeError, dict(padding=((0, 0.5), (0, 0))), f"{PER_PAIR} 0.5"),
    (ValueError, dict(padding=((0, 0),)), f"{PER_PAIR} ((0, 0),)"),
    (ValueError, dict(padding=((1, 1, 1), (0, 0))), f"{PER_PAIR} (1, 1, 1)"),
    (TypeError, dict(dtype="float31"), "`dtype`='float31' is no dtype of numbers; write 'float32'"),
    (TypeError, dict(dtype=None), "`dtype`=None is no dtype of numbers"),
    (TypeError, dict(dtype="U3"), "`dtype`='U3' is no dtype of numbers"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "change", "message"), NONSENSE, ids=lambda v: str(v) if isinstance(v, dict) else ""
)
def test_nonsense_is_no_spec(kind, change, message):
    with pytest.raises(kind, match=re.escape(message)):
        ConvSpec.of(**dict(spatial=(8, 8), kernel=(3, 3)) | change)


def test_lists_and_arrays_become_the_same_key():
    plain = ConvSpec.of(spatial=(8, 7), kernel=(3, 2), strides=(2, 1), padding=((1, 0), (-1, 2)), batch=2)
    same = ConvSpec.of(
        spatial=[8, np.int64(7)], kernel=np.array([3, 2]), strides=[2, 1], batch=np.int8(2),
        padding=[[1, 0], np.array([-1, 2])],
    )  # fmt: skip
    assert {plain: 1}[same]
    assert repr(same) == repr(plain)  # down to Python's own ints


@pytest.mark.parametrize("name", ["float32", "bfloat16", "int4", "float8_e4m3fn", "complex64", "bool"])
def test_a_dtype_by_name_by_numpy_and_by_jax(name):
    spec = ConvSpec.of(spatial=(8,), kernel=(3,), dtype=name)
    assert (spec.x_dtype, spec.w_dtype, spec.y_dtype) == (name,) * 3
    for dtype in (np.dtype(name), getattr(jnp, name)):
        assert ConvSpec.of(spatial=(8,), kernel=(3,), dtype=dtype) == spec
    assert spec.accumulator


def test_sizes_that_are_not_known_yet_pass_as_they_are():
    n, h = jax.export.symbolic_shape("n, h")
    geometry = dict(spatial=(h, 8), kernel=(3, 3), padding=((h, 0), (1, 1)))
    spec = ConvSpec.of(**geometry, batch=n, in_channels=3 * n, out_channels=4, groups=2)
    assert (spec.batch, spec.in_channels, spec.spatial[0], spec.padding[0][0]) == (n, 3 * n, h, h)
    with pytest.raises(ValueError, match=r"`groups`=3 must divide .*; choose 1, 2 or 4"):
        ConvSpec.of(**geometry, in_channels=n, out_channels=4, groups=3)


# -- gradients -------------------------------------------------------------------------------------


def flipped_and_swapped(w, spec):
    """(r, c, g·o) → (−r, o, g·c), by NumPy."""
    n = spec.ndim
    w = np.flip(w, tuple(range(n))).reshape(*spec.kernel, spec.c, spec.groups, spec.o)
    return np.swapaxes(w, n, n + 2).reshape(*spec.kernel, spec.o, spec.in_channels)


@given(specs())
def test_grad_input_is_the_convolution_it_says(spec):
    arrays, moved = cases.whole(spec), spec.as_grad_input()
    got = cases.reference("forward", arrays["y"], flipped_and_swapped(arrays["w"], spec), moved)
    np.testing.assert_array_equal(got, cases.reference("grad_input", arrays["y"], arrays["w"], spec))


@given(specs())
def test_grad_kernel_is_the_convolution_it_says(spec):
    arrays, moved, n = cases.whole(spec), spec.as_grad_kernel(), spec.ndim
    x = arrays["x"].reshape(spec.batch, *spec.spatial, spec.groups, spec.c)
    x = np.moveaxis(x, (n + 2, n + 1, 0), (0, n + 1, n + 2)).reshape(moved.x_shape)
    y = cases.reference("forward", x, np.moveaxis(arrays["y"], 0, n), moved)
    np.testing.assert_array_equal(
        np.moveaxis(y, 0, n), cases.reference("grad_kernel", arrays["x"], arrays["y"], spec)
    )


def without_leftover(spec):
    """The high padding cut to what the last window reaches: all that a gradient can know of it."""
    rests = [(size - K) % s for size, K, s in zip(spec.padded, spec.window, spec.strides, strict=True)]
    return spec.replace(padding=tuple((lo, hi - r) for (lo, hi), r in zip(spec.padding, rests, strict=True)))


@given(specs())
def test_the_gradient_of_the_gradient_is_the_convolution(spec):
    tight = without_leftover(spec)
    assert tight.y_shape == spec.y_shape
    assert spec.as_grad_input().as_grad_input() == tight
    assert spec.as_grad_kernel().as_grad_kernel() == tight
    assert spec.as_grad_input().y_shape == spec.x_shape


# -- batches ---------------------------------------------------------------------------------------


@given(spec=specs(), size=small, letter=st.sampled_from("ncog"))
def test_folding_multiplies_the_work_and_what_carries_the_letter(spec, size, letter):
    folded = spec.folded(size, letter)
    assert folded.macs == size * spec.macs
    carried = {"x": "ngc", "w": "cgo", "y": "ngo"}
    for name, shape in cases.shapes(folded).items():
        assert np.prod(shape) == np.prod(cases.shapes(spec)[name]) * (size if letter in carried[name] else 1)


# -- layouts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_layouts_by_name(ndim):
    space = tuple(range(5, 5 + ndim))
    first, last = names(ndim)
    for name in (first, "nchw"):
        layout = named(name, ndim)
        assert tuple((2, 3, *space)[axis] for axis in layout.x) == (2, *space, 3)
        assert tuple((4, 3, *space)[axis] for axis in layout.w) == (*space, 3, 4)
        assert tuple((2, *space, 4)[axis] for axis in layout.y) == (2, 4, *space)
    layout, same = named(last, ndim), tuple(range(ndim + 2))
    assert (layout.x, layout.w, layout.y) == (same,) * 3
    assert named("NQ", ndim) is None


def test_layouts_past_the_letters_of_space():
    """What is called the layout of a 4-D convolution has to be one of six axes."""
    assert names(4) == ("NCHW", "NHWC")
    assert named("NCDHW", 4) is None
    assert tuple(len(named(name, 4).x) for name in names(4)) == (6, 6)


@given(st.integers(0, 3).flatmap(lambda n: st.tuples(*[st.permutations(range(n + 2))] * 3)))
def test_any_dimension_numbers_are_undone(perms):
    layout = from_specs(*perms)
    for into, back in ((layout.into(name), layout.back(name)) for name in "xwy"):
        assert inverse(into) == back
        assert tuple(into[axis] for axis in back) == tuple(range(len(into)))
    assert (layout.x[0], layout.x[-1], *layout.x[1:-1]) == (perms[0][0], perms[0][1], *perms[0][2:])
    assert (layout.w[-1], layout.w[-2], *layout.w[:-2]) == tuple(perms[1])
    y = layout.into("y")
    assert (y[0], y[-1], *y[1:-1]) == (perms[2][0], perms[2][1], *perms[2][2:])


# -- which role it plays ---------------------------------------------------------------------------

PLAIN = ConvSpec.of(batch=2, spatial=(7, 6), kernel=(3, 2), in_channels=4, out_channels=6, groups=2)
STRIDED = PLAIN.replace(strides=(2, 3), padding=((1, 0), (2, 1)))
PATCHES = ConvSpec.of(spatial=(9, 8), kernel=(4, 4), strides=(4, 4), in_channels=3, out_channels=2)
BEHIND = without_leftover(STRIDED).replace(kernel_swapped=True)
PLAYED = {
    "patches, more taps than outputs": (PATCHES, "forward", PATCHES),
    "forward": (PLAIN, "forward", PLAIN),
    "strided": (STRIDED, "forward", STRIDED),
    "transposed": (STRIDED.as_grad_input(), "grad_input", BEHIND),
    "kernel gradient": (STRIDED.as_grad_kernel(), "grad_kernel", without_leftover(STRIDED)),
    "kernel gradient of a transposed": (
        STRIDED.as_grad_input().as_grad_kernel(), "grad_kernel", BEHIND,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "role", "behind"), PLAYED.values(), ids=PLAYED)
def test_is_recognised_and_computed_as_what_it_is(spec, role, behind):
    arrays = cases.whole(spec)
    x, w = cases.operands("forward", arrays)
    swapped = role == "grad_kernel"
    assert convolutions(lambda x, w: convolve_as_role(x, w, spec, swapped=swapped), x, w) == [(role, behind)]
    got = convolve_as_role(x, w, spec, "im2col", swapped=swapped)
    np.testing.assert_array_equal(got, cases.reference("forward", x, w, spec))


SMALL = ConvSpec.of(
    spatial=(2, 3), kernel=(5, 6), in_channels=4, out_channels=6, groups=2, lhs_dilation=(2, 3),
    padding=((2, 3), (3, 2)),
)  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("spec", "flips"), [(STRIDED.as_grad_input(), False), (SMALL, True)], ids=str)
def test_every_role_of_a_dilated_input_is_bound_as_one_of_the_strided_convolution(spec, flips, role):
    """By whichever is less to flip, the kernel or the images."""
    a, b = map(jnp.asarray, cases.operands(role, cases.whole(spec)))
    behind, played = canonical(spec, role)
    assert flips_image(behind) == flips
    assert convolutions(lambda a, b: convolve(role, a, b, spec), a, b) == [(played, behind)]
    np.testing.assert_array_equal(convolve(role, a, b, spec), cases.reference(role, a, b, spec))


def test_what_is_transposed():
    assert [is_transposed(s) for s in (PLAIN, STRIDED, STRIDED.as_grad_input())] == [False, False, True]
    both = STRIDED.as_grad_input().replace(strides=(2, 1))
    assert not is_transposed(both)
    assert set(ROLES) == {role for _, role, _ in PLAYED.values()}


def test_it_is_empty_where_no_window_meets_the_input_and_so_are_its_gradients():
    rng, found = np.random.default_rng(0), set()
    for _ in range(2000):
        h, k, stride, lhs, rhs = (int(rng.integers(1, most)) for most in (6, 4, 4, 3, 3))
        lo, hi = (int(side) for side in rng.integers(-7, 8, 2))
        spec = ConvSpec.of(spatial=(h,), kernel=(k,), strides=(stride,), padding=((lo, hi),),
                           lhs_dilation=(lhs,), rhs_dilation=(rhs,))  # fmt: skip
        if 0 in spec.out_spatial:
            continue
        inside = range((h - 1) * lhs + 1)
        first, last = -lo, (spec.out_spatial[0] - 1) * stride + (k - 1) * rhs - lo
        apart = last < inside[0] or first > inside[-1]
        assert spec.is_empty == spec.as_grad_input().is_empty == spec.as_grad_kernel().is_empty == apart
        found.add(apart)
    assert found == {True, False}
