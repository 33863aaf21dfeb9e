"""The textbook against itself, against lax, and its gradients against lax's and finite differences."""

import ast
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import lax

import jconv
from jconv import textbook
from jconv.spec.tolerance import tolerance
from jconv.testing.cases import named, normal, reduction, reference, tagged, whole
from jconv.textbook import CONV2D, conv2d_backward, im2col_loops, im2col_view, patch_view
from jconv.textbook.example import INPUT, OUTPUT, SOBEL_X

CASES = [
    case for case in tagged(without="1d 3d lhs_dilation") if min(map(min, case.spec.padding), default=0) >= 0
]
EVERYTHING = named("everything")

TO_TEXTBOOK = {"x": (0, 3, 1, 2), "w": (3, 2, 0, 1), "y": (0, 3, 1, 2)}


def textbook_layout(arrays):
    """The canonical x, w and y as NCHW and OIHW."""
    return tuple(np.ascontiguousarray(arrays[name].transpose(TO_TEXTBOOK[name])) for name in "xwy")


def knobs(spec):
    return dict(stride=spec.strides, padding=spec.padding, dilation=spec.rhs_dilation, groups=spec.groups)


def by_lax(spec):
    """`(x, w) -> y` of the spec on NCHW and OIHW."""
    return lambda x, w: lax.conv_general_dilated(
        x, w, spec.strides, spec.padding, rhs_dilation=spec.rhs_dilation,
        feature_group_count=spec.groups, precision="highest",
    )  # fmt: skip


def worst(a, b):
    """Largest difference relative to the largest value."""
    return np.max(np.abs(a - b)) / np.max(np.abs(b))


def test_stands_on_numpy_only():
    for file in Path(textbook.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.startswith(("numpy", "jconv.textbook", "__future__", "collections", "typing"))


# -- forward ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONV2D)
@pytest.mark.parametrize("dtype", ["float64", "int32", "float32"])
def test_five_by_five(name, dtype):
    y = CONV2D[name](INPUT[None, None].astype(dtype), SOBEL_X[None, None].astype(dtype))
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, OUTPUT[None, None])


def test_five_by_five_is_what_it_says():
    assert INPUT[:3, :3].tolist() == [[1, 2, 0], [0, 1, 2], [2, 0, 1]]
    assert SOBEL_X.tolist() == [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
    assert OUTPUT[0, 0] == 2
    assert len(set(OUTPUT.ravel().tolist())) == 9
    y = jconv.conv2d(INPUT[None, None].astype("float32"), SOBEL_X[None, None].astype("float32"))
    np.testing.assert_array_equal(y[0, 0], OUTPUT)


@pytest.mark.parametrize("name", CONV2D)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_integers_exactly(case, name):
    """int64 throughout: no rounding to hide behind, and a bias for every channel."""
    arrays = whole(case.spec.with_dtype("int64"))
    x, w, _ = textbook_layout(arrays)
    b = np.arange(case.spec.out_channels) - 2
    expected = reference("forward", arrays["x"], arrays["w"], case.spec) + b
    y = CONV2D[name](x, w, b, **knobs(case.spec))
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y, expected.transpose(TO_TEXTBOOK["y"]))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_lax_agrees(case):
    spec = case.spec
    x, w, _ = textbook_layout(normal(spec))
    y = CONV2D["loops"](x.astype("float64"), w.astype("float64"), **knobs(spec))
    assert worst(by_lax(spec)(x, w), y) <= tolerance("float32", reduction("forward", spec))


@pytest.mark.parametrize("name", CONV2D)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex128", "int8"])
def test_any_dtype_is_kept(name, dtype):
    x, w, _ = textbook_layout(whole(EVERYTHING.spec.with_dtype(dtype), most=1))
    y = CONV2D[name](x, w, **knobs(EVERYTHING.spec))
    assert y.dtype == dtype
    expected = CONV2D["loops"](x.astype("complex128"), w.astype("complex128"), **knobs(EVERYTHING.spec))
    np.testing.assert_array_equal(y, expected)


def test_short_forms_of_the_arguments():
    x, w, _ = textbook_layout(whole(EVERYTHING.spec))
    for conv2d in CONV2D.values():
        short = conv2d(x, w, stride=2, padding=(1, 3), dilation=2, groups=3)
        full = conv2d(x, w, stride=(2, 2), padding=((1, 1), (3, 3)), dilation=(2, 2), groups=3)
        np.testing.assert_array_equal(short, full)


@pytest.mark.parametrize("name", CONV2D)
def test_wrong_shapes_are_refused(name):
    x = np.ones((1, 4, 5, 5))
    with pytest.raises(ValueError, match="`groups`=1 needs 3 input channels"):
        CONV2D[name](x, np.ones((2, 3, 3, 3)))
    with pytest.raises(ValueError, match="a multiple of 2 output channels"):
        CONV2D[name](x, np.ones((3, 2, 3, 3)), groups=2)
    with pytest.raises(ValueError, match="`w` covers 7 positions but the padded `x` has 5"):
        CONV2D[name](x, np.ones((2, 4, 3, 3)), dilation=(1, 3))


WRONG = [
    (dict(stride=-1), "`stride`=-1 must be an int of at least 1, or two of them"),
    (dict(stride=(1, 0)), r"`stride`=\(1, 0\) must be an int of at least 1"),
    (dict(stride=(1, 2, 3)), r"`stride`=\(1, 2, 3\) must be an int of at least 1, or two of them"),
    (dict(stride=1.5), "`stride`=1.5 must be an int"),
    (dict(stride=None), "`stride`=None must be an int"),
    (dict(dilation=0), "`dilation`=0 must be an int of at least 1"),
    (dict(padding=-1), "`padding`=-1 must be an int of at least 0"),
    (dict(padding=(-1, 0)), "`padding`=-1 must be an int of at least 0"),
    (dict(padding=(1, 2, 3)), r"`padding`=\(1, 2, 3\) must be an int, one per dimension, or"),
    (dict(groups=0), "`groups`=0 must be an int of at least 1"),
    (dict(b=np.ones(1)), r"`b` must have shape \(6,\), one number per output channel, got \(1,\)"),
    (dict(b=np.ones((6, 1))), r"`b` must have shape \(6,\), .* got \(6, 1\)"),
    (dict(x=np.ones((4, 5, 5))), r"`x` \(4, 5, 5\) and `w` \(6, 2, 3, 2\) must have 4 axes each"),
    (dict(w=np.ones((6, 2, 0, 2))), r"`w` \(6, 2, 0, 2\) must have 4 axes each, and `w` a tap or more"),
]


@pytest.mark.parametrize("name", CONV2D)
@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=range(len(WRONG)))
def test_all_four_refuse_the_same(name, wrong, message):
    right = dict(x=np.ones((2, 4, 6, 5)), w=np.ones((6, 2, 3, 2)), groups=2)
    with pytest.raises(ValueError, match=message):
        CONV2D[name](**right | wrong)


@pytest.mark.parametrize("name", CONV2D)
def test_numpys_ints_are_ints(name):
    x, w, _ = textbook_layout(whole(EVERYTHING.spec))
    plain = CONV2D[name](x, w, stride=2, padding=(1, 3), dilation=2, groups=3)
    two = np.int64(2)
    y = CONV2D[name](x, w, stride=two, padding=np.array([1, 3]), dilation=(two, two), groups=np.int8(3))
    np.testing.assert_array_equal(y, plain)


@pytest.mark.parametrize("name", CONV2D)
def test_no_images_give_no_outputs(name):
    y = CONV2D[name](np.ones((0, 4, 6, 5)), np.ones((6, 2, 3, 2)), np.ones(6), groups=2)
    assert y.shape == (0, 6, 4, 4)


# -- patches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_patches_agree(case):
    spec = case.spec
    x, _, _ = textbook_layout(whole(spec))
    geometry = {name: value for name, value in knobs(spec).items() if name != "groups"}
    columns = im2col_loops(x, spec.kernel, **geometry)
    np.testing.assert_array_equal(im2col_view(x, spec.kernel, **geometry), columns)


def test_columns_are_torchs():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = np.arange(2 * 3 * 7 * 8.0).reshape(2, 3, 7, 8)
    geometry = dict(dilation=(2, 1), padding=(1, 2), stride=(2, 3))
    expected = torch.nn.functional.unfold(torch.from_numpy(x), (2, 3), **geometry)
    np.testing.assert_array_equal(im2col_loops(x, (2, 3), **geometry), expected.numpy())


def test_patch_view_copies_nothing_and_is_read_only():
    x = np.arange(2 * 3 * 7 * 8.0).reshape(2, 3, 7, 8)
    patches = patch_view(x, (2, 3), stride=(2, 1), dilation=(1, 2))
    assert np.shares_memory(patches, x)
    assert not patches.flags.writeable
    _, _, h, w = x.strides
    assert patches.strides == (*x.strides[:2], 2 * h, w, h, 2 * w)


# -- backward --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_backward_integers_exactly(case):
    arrays = whole(case.spec.with_dtype("int64"))
    x, w, g = textbook_layout(arrays)
    grads = conv2d_backward(g, x, w, **knobs(case.spec))
    assert {grad.dtype for grad in grads} == {np.dtype("int64")}
    by_role = {
        "x": reference("grad_input", arrays["y"], arrays["w"], case.spec),
        "w": reference("grad_kernel", arrays["x"], arrays["y"], case.spec),
    }
    for name, expected in by_role.items():
        np.testing.assert_array_equal(getattr(grads, name), expected.transpose(TO_TEXTBOOK[name]))
    np.testing.assert_array_equal(grads.b, arrays["y"].sum((0, 1, 2)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_backward_is_lax_vjp(case):
    """Bit for bit, on whole numbers in float32."""
    x, w, g = textbook_layout(whole(case.spec))
    _, vjp = jax.vjp(by_lax(case.spec), x, w)
    grads = conv2d_backward(g, x, w, **knobs(case.spec))
    for mine, theirs in zip(grads, vjp(g), strict=False):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("case", [EVERYTHING, named("multiplier"), named("gaps")], ids=str)
def test_backward_is_the_slope(case):
    """y is linear in each of x, w and b, so that a central difference has no error but rounding."""
    x, w, g = textbook_layout(normal(case.spec.with_dtype("float64")))
    b = np.linspace(-1, 1, case.spec.out_channels)
    place = dict(zip("xwb", (x, w, b), strict=True))
    grads = conv2d_backward(g, x, w, **knobs(case.spec))._asdict()

    def loss(**moved):
        return np.sum(g * CONV2D["matmul"](**(place | moved), **knobs(case.spec)))

    rng = np.random.default_rng(1)
    for name, value in place.items():
        step = rng.standard_normal(value.shape)
        slope = (loss(**{name: value + step}) - loss(**{name: value - step})) / 2
        products = reduction("forward", case.spec) * g.size
        scale = np.sum(np.abs(grads[name] * step))
        assert abs(slope - np.sum(grads[name] * step)) <= tolerance("float64", products) * scale
        assert np.sum(grads[name] * step) != 0


def test_backward_of_mismatched_channels_is_refused():
    with pytest.raises(ValueError, match="`groups`=2 needs 4 input channels"):
        conv2d_backward(np.ones((1, 2, 3, 3)), np.ones((1, 6, 5, 5)), np.ones((2, 2, 3, 3)), groups=2)
