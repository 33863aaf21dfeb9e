"""Named and negative paddings, sizes asked for, any dimension: against Keras, Flax, lax and PyTorch."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jconv

SIZES = [(h, k, s) for h in (4, 7) for k in (1, 2, 3, 5) for s in (1, 2, 3, 4)]


def whole(*shape, seed=0):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    return pytest.importorskip("keras", reason="Keras is an optional oracle")


@pytest.fixture(scope="module")
def linen():
    return pytest.importorskip("flax.linen", reason="Flax is an optional oracle")


# -- convolutions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["same", "same_lower"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_strided_same_is_laxs(sizes, padding):
    h, k, s = sizes
    x, w = whole(2, 3, h, 6), whole(5, 3, k, 3, seed=1)

    @jax.jit
    def both(x, w):
        return jconv.conv2d(x, w, stride=(s, 2), padding=padding), lax.conv(x, w, (s, 2), padding.upper())

    found, expected = both(x, w)
    assert found.shape[2:] == (-(-h // s), 3)
    np.testing.assert_array_equal(found, expected)


def test_same_at_stride_one_does_not_depend_on_the_size():
    (h,) = jax.export.symbolic_shape("h")
    spec = jconv.choose(jax.ShapeDtypeStruct((1, 3, h, 6), np.float32), (5, 3, 4, 3), padding="same").spec
    assert spec.padding == ((1, 2), (1, 1))


# -- transposed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_transposed_names_are_laxs(sizes, padding):
    h, k, s = sizes
    x, w = whole(2, h, 4, 3), whole(k, 3, 5, 3, seed=1)

    @jax.jit
    def both(x, w):
        ours = jconv.conv_transpose2d(x, w, stride=(s, 2), padding=padding, layout="NHWC")
        return ours, lax.conv_transpose(x, w, (s, 2), padding.upper(), transpose_kernel=True)

    found, expected = both(x, w)
    if padding == "same":
        assert found.shape[1:3] == (h * s, 8)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("sizes", [(5, 3, 2), (7, 2, 3), (4, 5, 4), (4, 4, 2)], ids=str)
def test_transposed_names_are_keras_and_flaxs(sizes, padding, keras, linen):
    h, k, s = sizes
    x, w = whole(2, h, 4, 3), whole(k, 3, 5, 3, seed=1)
    found = jconv.conv_transpose2d(x, w, stride=(s, 2), padding=padding, layout="NHWC")
    theirs = keras.ops.conv_transpose(x, w, strides=(s, 2), padding=padding)
    np.testing.assert_allclose(found, theirs, atol=1e-3)
    layer = linen.ConvTranspose(
        5, (k, 3), (s, 2), padding=padding.upper(), transpose_kernel=True, use_bias=False
    )
    np.testing.assert_allclose(found, layer.apply({"params": {"kernel": w}}, x), atol=1e-3)


@pytest.mark.parametrize("sizes", [(5, 3, 2), (7, 2, 3), (4, 6, 4), (4, 4, 2), (3, 5, 1)], ids=str)
def test_circular_same_lower_is_flaxs(sizes, linen):
    h, k, s = sizes
    x, w = whole(2, h, 4, 3), whole(k, 3, 5, 3, seed=1)
    knobs = dict(stride=(s, 2), padding="same_lower", padding_mode="circular", layout="NHWC")
    layer = linen.ConvTranspose(5, (k, 3), (s, 2), padding="CIRCULAR", transpose_kernel=True, use_bias=False)
    expected = layer.apply({"params": {"kernel": w}}, x)
    np.testing.assert_allclose(jconv.conv_transpose2d(x, w, **knobs), expected, atol=1e-3)


@pytest.mark.parametrize("padding", ["same", "same_lower"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_same_transposed_is_the_transpose_of_same(sizes, padding):
    """For every size that a "same" convolution takes to the same number of outputs."""
    h, k, s = sizes
    knobs, w, g = dict(stride=s, padding=padding), whole(4, 3, k, seed=1), whole(2, 4, h, seed=2)
    xs = [whole(2, 3, size) for size in range((h - 1) * s + 1, h * s + 1)]

    @jax.jit
    def both_ways(xs, w, g):
        there = [jconv.conv1d(x, w, **knobs) for x in xs]
        return there, [jconv.conv_transpose1d(g, w, output_size=x.shape[-1], **knobs) for x in xs]

    for x, y, back in zip(xs, *both_ways(xs, w, g), strict=True):
        assert np.vdot(y, g) == np.vdot(x, back)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_output_size_is_pytorchs(layout):
    torch = pytest.importorskip("torch", reason="PyTorch is an optional oracle")
    x, w = whole(2, 4, 5, 6), whole(4, 3, 3, 2, seed=1)
    layer = torch.nn.ConvTranspose2d(4, 3, (3, 2), stride=(3, 2), padding=(1, 0), dilation=(1, 2), bias=False)
    layer.weight = torch.nn.Parameter(torch.tensor(w))
    knobs = dict(stride=(3, 2), padding=(1, 0), dilation=(1, 2), layout=layout)
    last = layout == "NHWC"
    mine = (x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0)) if last else (x, w)
    for size in [(13, 13), (14, 14), (15, 13)]:
        expected = layer(torch.tensor(x), output_size=list(size)).detach().numpy()
        whole_shape = (2, *size, 3) if last else (2, 3, *size)
        for asked in (size, whole_shape, whole_shape[1:]):
            found = jconv.conv_transpose2d(*mine, output_size=asked, **knobs)
            np.testing.assert_array_equal(found.transpose(0, 3, 1, 2) if last else found, expected)
    for size in [(12, 13), (16, 13), (13, 15)]:
        with pytest.raises(ValueError, match="requested an output size"):
            layer(torch.tensor(x), output_size=list(size))
        with pytest.raises(ValueError, match=r"`output_size`=.* must lie between \(13, 13\) and \(15, 14\)"):
            jconv.conv_transpose2d(*mine, output_size=size, **knobs)


def test_output_size_and_what_does_not_go_with_it():
    x, w = whole(1, 2, 4), whole(2, 3, 3)
    with pytest.raises(ValueError, match="`output_padding` and `output_size` say the same thing twice"):
        jconv.conv_transpose1d(x, w, stride=2, output_padding=1, output_size=10)
    with pytest.raises(ValueError, match=r"`output_size`=\(6,\) must lie between \(7,\) and \(8,\)"):
        jconv.conv_transpose1d(x, w, stride=2, padding="same", output_size=6)
    with pytest.raises(TypeError, match="`output_size` must be an int or 1 ints"):
        jconv.conv_transpose1d(x, w, stride=2, output_size=10.0)
    with pytest.raises(
        ValueError, match="`padding`='causal' is not known; choose one of same, same_lower, valid"
    ):
        jconv.conv_transpose1d(x, w, padding="causal")


NEGATIVE = [((-1, 2), (0, -3)), ((-2, -1), (1, -1)), ((3, -4), (-5, 2))]


@pytest.mark.parametrize("padding", NEGATIVE, ids=str)
def test_negative_pairs_extend_the_result(padding):
    """The full result with zeros around it where a side is negative; gradients too."""
    x, w = whole(2, 4, 5, 6), whole(4, 3, 3, 4, seed=1)
    knobs = dict(stride=(2, 3))

    def by_hand(x, w):
        full = jconv.conv_transpose2d(x, w, **knobs)
        sides = [(-lo, -hi, 0) for lo, hi in ((0, 0), (0, 0), *padding)]
        return lax.pad(full, jnp.zeros((), full.dtype), sides)

    y, pullback = jax.vjp(lambda x, w: jconv.conv_transpose2d(x, w, padding=padding, **knobs), x, w)
    expected, expected_pullback = jax.vjp(by_hand, x, w)
    np.testing.assert_array_equal(y, expected)
    g = whole(*y.shape, seed=2)
    for mine, its in zip(pullback(g), expected_pullback(g), strict=True):
        np.testing.assert_array_equal(mine, its)


def test_a_negative_int_is_told_what_to_write():
    x, w = whole(1, 2, 4, 4), whole(2, 3, 3, 3)
    with pytest.raises(ValueError, match=r"`padding`=-1 must be at least 0; .* \(\(-1, -1\), \(-1, -1\)\)"):
        jconv.conv_transpose2d(x, w, padding=-1)
    assert jconv.conv_transpose2d(x, w, padding=((-1, -1), (-1, -1))).shape == (1, 3, 8, 8)


# -- any number of dimensions -----------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_four_dimensions(layout):
    x, w = whole(2, 4, 3, 4, 3, 5), whole(6, 2, 2, 1, 2, 3, seed=1)
    knobs = dict(stride=(1, 2, 1, 2), padding=(1, 0, 1, 2), dilation=(1, 1, 2, 1), groups=2)
    pairs = [(p, p) for p in knobs["padding"]]
    expected = lax.conv_general_dilated(
        x, w, knobs["stride"], pairs, None, knobs["dilation"], feature_group_count=2
    )
    if layout == "NHWC":
        x, expected = (a.transpose(0, 2, 3, 4, 5, 1) for a in (x, expected))
        w = w.transpose(2, 3, 4, 5, 1, 0)
    b = np.arange(6, dtype=np.float32)
    y = jconv.conv(x, w, b, layout=layout, **knobs)
    at = b if layout == "NHWC" else b[:, None, None, None, None]
    np.testing.assert_array_equal(y, expected + at)
    g = whole(*y.shape, seed=2)
    back = jconv.conv_transpose(g, w, output_size=x.shape, layout=layout, **knobs)
    assert back.shape == x.shape
    assert np.vdot(expected, g) == np.vdot(x, back)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_the_spelled_out_cases_are_the_same_function(ndim):
    x, w = whole(2, 3, *[5] * ndim), whole(3, 3, *[2] * ndim, seed=1)
    same = getattr(jconv, f"conv{ndim}d")(x, w, padding="same", stride=2)
    np.testing.assert_array_equal(jconv.conv(x, w, padding="same", stride=2), same)
    same = getattr(jconv, f"conv_transpose{ndim}d")(x, w, padding="same", stride=2)
    np.testing.assert_array_equal(jconv.conv_transpose(x, w, padding="same", stride=2), same)


@pytest.mark.parametrize("function", [jconv.conv, jconv.conv_transpose])
def test_a_kernel_without_space_is_refused(function):
    with pytest.raises(ValueError, match="`w` must have two channel and at least one spatial axis"):
        function(np.ones((2, 3), "f"), np.ones((4, 3), "f"))
