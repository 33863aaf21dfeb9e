"""unfold, fold, im2col and col2im: against NumPy's strided views, for every dtype and dimension."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.test_util import check_grads
from oracles import equations

import jconv
from jconv.algorithms import windows

KNOBS = {  # shape without batch and channels, kernel, keywords
    "1d": ((9,), (3,), dict(stride=2, dilation=2, padding=3)),
    "2d": ((7, 6), (3, 2), dict(stride=(2, 1), dilation=(1, 3), padding=(2, 1))),
    "2d_pairs": ((7, 6), (2, 3), dict(padding=((0, 2), (3, 1)))),
    "2d_gaps": ((9, 10), (2, 1), dict(stride=(4, 3))),
    "3d": ((4, 5, 3), (2, 3, 1), dict(stride=(1, 2, 2), padding=(1, 0, 1))),
    "4d": ((3, 2, 4, 3), (2, 1, 2, 2), dict(padding=(0, 1, 0, 0))),
}


def pairs_of(padding, ndim):
    padding = padding if isinstance(padding, tuple) else (padding,) * ndim
    return [p if isinstance(p, tuple) else (p, p) for p in padding]


def each(value, ndim):
    return value if isinstance(value, tuple) else (value,) * ndim


def views(x, kernel, stride=1, dilation=1, padding=0):
    """x (n, *h, c) → (n, *p, *r, c), by NumPy's own windows."""
    ndim = len(kernel)
    dilation, stride = each(dilation, ndim), each(stride, ndim)
    x = np.pad(x, [(0, 0), *pairs_of(padding, ndim), (0, 0)])
    extents = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    seen = np.lib.stride_tricks.sliding_window_view(x, extents, tuple(range(1, ndim + 1)))
    # (n, *p, c, *extents)
    seen = seen[(slice(None), *(slice(None, None, s) for s in stride), slice(None),
                 *(slice(None, None, d) for d in dilation))]  # fmt: skip
    return np.moveaxis(seen, ndim + 1, -1)


def as_unfold(columns, ndim):
    n, c = columns.shape[0], columns.shape[-1]
    columns = columns.transpose(0, 2 * ndim + 1, *range(ndim + 1, 2 * ndim + 1), *range(1, ndim + 1))
    return columns.reshape(n, c * math.prod(columns.shape[2 : ndim + 2]), -1)


def image(spatial, dtype="int32", seed=0):
    bits = np.random.default_rng(seed).integers(0, 2, (2, *spatial, 3 * 64)).astype(np.uint8)
    size = np.dtype(dtype).itemsize
    if dtype == "bool":
        return bits[..., :3].astype(bool)
    packed = np.packbits(bits, axis=-1)[..., : 3 * size]
    return packed.copy().view(dtype)


@pytest.mark.parametrize("case", KNOBS)
def test_any_number_of_dimensions(case):
    spatial, kernel, knobs = KNOBS[case]
    x = image(spatial)
    expected = views(x, kernel, **knobs)
    first = np.moveaxis(x, -1, 1)
    np.testing.assert_array_equal(jconv.unfold(first, kernel, **knobs), as_unfold(expected, len(kernel)))
    rows = expected.reshape(2, -1, math.prod(kernel) * 3)
    np.testing.assert_array_equal(jconv.im2col(x, kernel, **knobs), rows)
    np.testing.assert_array_equal(jconv.im2col(x[1], kernel, **knobs), rows[1])


@pytest.mark.parametrize("case", KNOBS)
def test_fold_counts_the_overlaps(case):
    """fold(unfold(x)) is x times the number of windows that see each position, exactly."""
    spatial, kernel, knobs = KNOBS[case]
    x = np.random.default_rng(0).integers(-9, 9, (2, 3, *spatial))
    taps = np.indices((*spatial, *kernel)).reshape(2 * len(kernel), -1)[: len(kernel)]
    assert taps.size
    counts = np.zeros(spatial, int)
    ndim = len(kernel)
    stride, dilation = each(knobs.get("stride", 1), ndim), each(knobs.get("dilation", 1), ndim)
    pairs = pairs_of(knobs.get("padding", 0), ndim)
    for position in itertools.product(*map(range, spatial)):
        counts[position] = math.prod(map(seen_by, position, spatial, kernel, stride, dilation, pairs))
    x = jnp.asarray(x)
    found = jconv.fold(jconv.unfold(x, kernel, **knobs), spatial, kernel, **knobs)
    np.testing.assert_array_equal(found, x * counts)
    last = jnp.moveaxis(x, 1, -1)
    again = jconv.col2im(jconv.im2col(last, kernel, **knobs), spatial, kernel, **knobs)
    np.testing.assert_array_equal(again, last * counts[..., None])


def seen_by(h, size, kernel, stride, dilation, pair):
    """How many windows of one dimension see position h."""
    count = (size + sum(pair) - dilation * (kernel - 1) - 1) // stride + 1
    starts = {p * stride - pair[0] for p in range(count)}
    return sum(h - r * dilation in starts for r in range(kernel))


DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32", "complex64"]


@pytest.mark.parametrize("dtype", [*DTYPES, "bfloat16", "float8_e4m3fn", "int64", "float64", "complex128"])
def test_every_dtype_bit_for_bit(dtype, x64):
    """Random bits, NaNs with payloads among them, come out as they went in."""
    wide = np.dtype(getattr(ml_dtypes, dtype, dtype))
    bits = np.random.default_rng(0).integers(0, 256, (1, 2, 5, 4 * wide.itemsize), np.uint8)
    x = bits.view(wide) if dtype != "bool" else bits % 2 == 1
    if dtype == "bfloat16":  # XLA:CPU has one NaN of each sign for it, whatever the operation
        halves = bits.view(np.uint16)
        x = np.where(halves & 0x7F80 == 0x7F80, halves & 0xFF80 | 0x40, halves).astype(np.uint16).view(wide)
    found = np.asarray(jconv.unfold(jnp.asarray(x), (2, 2), stride=2))
    # every value of every window once, in the order of the windows
    expected = as_unfold(views(np.moveaxis(x, 1, -1), (2, 2), stride=2), 2)
    assert found.dtype == wide
    assert found.tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "bfloat16", "complex64"])
def test_fold_keeps_the_dtype(dtype):
    columns = jnp.ones((1, 2, 3), dtype)
    expected = jnp.asarray([[[1, 2, 2, 1]]]).astype(dtype)  # True + True is True
    found = jconv.fold(columns, (4,), (2,))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


def test_derivatives_of_any_order():
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 4)).astype(np.float32)
    columns = np.asarray(jconv.unfold(x, (2, 3), stride=(2, 1), padding=1))
    unfold = functools.partial(jconv.unfold, kernel_size=(2, 3), stride=(2, 1), padding=1)
    fold = functools.partial(jconv.fold, output_size=(5, 4), kernel_size=(2, 3), stride=(2, 1), padding=1)
    for linear, at in ((unfold, x), (fold, columns)):
        check_grads(lambda v, linear=linear: linear(v) ** 2, (at,), 2, atol=0.1, rtol=0.1)
    (back,) = jax.vjp(unfold, x)[1](columns)
    np.testing.assert_allclose(back, fold(columns), rtol=1e-6)
    np.testing.assert_allclose(jax.vjp(fold, columns)[1](x)[0], unfold(x), rtol=1e-6)


def test_large_kernels_stay_small_programs():
    """Neither 31 × 31 nor 4,000 taps are unrolled, and the loops give what the slices give."""
    x = jnp.arange(2 * 40 * 37, dtype=jnp.int32).reshape(1, 2, 40, 37)
    columns = jconv.unfold(x, 31)
    assert count(lambda x: jconv.unfold(x, 31), x) < 60
    assert count(lambda c: jconv.fold(c, (40, 37), 31), columns) < 60
    assert count(lambda x: jconv.unfold(x, (4000,)), jnp.ones((1, 1, 5000))) < 40
    expected = as_unfold(views(np.moveaxis(np.asarray(x), 1, -1), (31, 31)), 2)
    np.testing.assert_array_equal(columns, expected)


def count(fn, *arrays):
    return sum(1 for _ in equations(jax.make_jaxpr(fn)(*arrays)))


@pytest.mark.parametrize("case", KNOBS)
def test_loops_and_slices_agree(case, monkeypatch):
    spatial, kernel, knobs = KNOBS[case]
    x = jnp.asarray(image(spatial))
    columns = jconv.im2col(x, kernel, **knobs)
    image_again = jconv.col2im(columns, spatial, kernel, **knobs)
    monkeypatch.setattr(windows, "MAX_SLICES", 0)
    jax.clear_caches()
    np.testing.assert_array_equal(jconv.im2col(x, kernel, **knobs), columns)
    np.testing.assert_array_equal(jconv.col2im(columns, spatial, kernel, **knobs), image_again)
    jax.clear_caches()


def test_one_int_is_two_dimensions_on_three_axes():
    """As in PyTorch, (c, h, w) with an int kernel is an image without a batch."""
    x = jnp.ones((3, 5, 4))
    assert jconv.unfold(x, 2).shape == (12, 12)
    assert jconv.unfold(x, (2,)).shape == (3, 10, 3)
    assert jconv.unfold(jnp.ones((1, 3, 5, 4, 6)), 2).shape == (1, 24, 60)


def test_a_convolution_is_im2col_and_a_matrix_product():
    x = jnp.arange(2 * 6 * 5 * 3.0).reshape(2, 6, 5, 3)
    w = jnp.arange(2 * 3 * 3 * 4.0).reshape(2, 3, 3, 4) % 7
    rows = jconv.im2col(x, (2, 3), stride=(2, 1), padding=(1, 0))
    expected = jconv.conv2d(x, w, stride=(2, 1), padding=(1, 0), layout="NHWC", algorithm="xla")
    np.testing.assert_array_equal((rows @ w.reshape(-1, 4)).reshape(expected.shape), expected)


# -- wrong arguments ---------------------------------------------------------------------------------

IMAGE = jnp.ones((1, 4, 6, 6))
NEEDS = r"`x` must have at least 3 axes \(batch if any, channels, spatial\) when `kernel_size` is an int, got"
WRONG_IMAGES = {
    "two axes": (ValueError, jnp.ones((6, 6)), 99, rf"{NEEDS} shape \(6, 6\); .*`kernel_size`=\(99,\)"),
    "one axis": (ValueError, jnp.ones(6), 2, rf"{NEEDS} shape \(6,\)"),
    "no axis": (ValueError, jnp.ones(()), 2, rf"{NEEDS} shape \(\)"),
    "one axis, two sizes": (ValueError, jnp.ones(6), (2, 2), "`x` must have 3 or 4 axes"),
    "a string": (TypeError, IMAGE, "3", "`kernel_size` must be an int or 2 ints, .* got '3'"),
    "None": (TypeError, IMAGE, None, "`kernel_size` must be an int or 2 ints, .* got None"),
    "no sizes": (ValueError, IMAGE, (), r"`kernel_size`=\(\) must be an int or one int per spatial"),
}


@pytest.mark.parametrize("unfold", [jconv.unfold, jconv.im2col])
@pytest.mark.parametrize("name", WRONG_IMAGES)
def test_an_image_that_does_not_go_with_its_windows(name, unfold):
    error, x, kernel_size, message = WRONG_IMAGES[name]
    with pytest.raises(error, match=message):
        unfold(x, kernel_size)


@pytest.mark.parametrize("fold", [jconv.fold, jconv.col2im])
@pytest.mark.parametrize(
    ("output_size", "kernel_size", "message"),
    [
        (None, 3, "`output_size` must be an int or 2 ints, .* got None"),
        ("66", 3, "`output_size` must be an int or 2 ints, .* got '66'"),
        ((), 3, r"`output_size`=\(\) must be an int or one int"),
        (6, "3", "`kernel_size` must be an int or 2 ints, .* got '3'"),
    ],
)
def test_columns_that_no_image_is_named_for(fold, output_size, kernel_size, message):
    with pytest.raises((TypeError, ValueError), match=message):
        fold(jnp.ones((1, 36, 36)), output_size, kernel_size)


# -- shapes that are given instead of an array: the gradients by name --------------------------------

KERNEL, GRADIENT = jnp.ones((4, 4, 3, 3)), jnp.ones((1, 4, 4, 4))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4, 0, 6), r"`input_shape` has an empty side: \(0, 6\)"),
        ((1, 4, 2, 6), r"`w` covers \(3, 3\) positions .* the padded `input_shape` has only \(2, 6\)"),
        (jnp.ones(4), "`input_shape` must be an int, got 1.0"),
        (jnp.array(6), "`input_shape` must be a sequence of ints, got 6"),
    ],
)
def test_a_wrong_shape_of_the_input_has_the_users_name(shape, message):
    with pytest.raises((TypeError, ValueError), match=message):
        jconv.grad_input(shape, KERNEL, GRADIENT)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 4, 0, 3), r"`kernel_shape` is empty: \(4, 4, 0, 3\)"),
        ((4, 4, 9, 3), r"`kernel_shape` covers \(9, 3\) positions .* the padded `x` has only \(6, 6\)"),
    ],
)
def test_a_wrong_shape_of_the_kernel_has_the_users_name(shape, message):
    with pytest.raises(ValueError, match=message):
        jconv.grad_kernel(IMAGE, shape, GRADIENT)


@pytest.mark.parametrize("make", [jnp.array, np.array, list])
def test_a_shape_may_be_an_array(make):
    dx = jconv.grad_input(make(IMAGE.shape), KERNEL, GRADIENT)
    np.testing.assert_array_equal(dx, jconv.grad_input(IMAGE.shape, KERNEL, GRADIENT))
    dw = jconv.grad_kernel(IMAGE, make(KERNEL.shape), GRADIENT)
    np.testing.assert_array_equal(dw, jconv.grad_kernel(IMAGE, KERNEL.shape, GRADIENT))


def test_a_traced_shape_gets_the_hint_to_make_it_static():
    with pytest.raises(TypeError, match=r"`input_shape` must be known when JAX traces.*static_argnames"):
        jax.jit(lambda shape: jconv.grad_input(shape, KERNEL, GRADIENT))(jnp.array(IMAGE.shape))
    with pytest.raises(TypeError, match=r"`kernel_shape` must be known when JAX traces.*static_argnames"):
        jax.jit(lambda size: jconv.grad_kernel(IMAGE, (4, 4, size, 3), GRADIENT))(3)
