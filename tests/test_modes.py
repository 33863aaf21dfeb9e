"""What padding holds: against NumPy's `pad`, its transpose, and sizes that only a run will tell."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jconv
from jconv.api import modes
from jconv.spec.tolerance import tolerance

MODES = ["reflect", "replicate", "circular"]
PAIRS = [((1, 0), (0, 2)), ((3, 4), (2, 1)), ((9, 13), (0, 8))]  # of 4×3: within, past the image, far past


def whole(*shape, seed=0):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


def by_numpy(x, pairs, mode):
    return np.pad(x, ((0, 0), *pairs, (0, 0)), modes.NUMPYS[mode])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pairs", PAIRS, ids=str)
@pytest.mark.parametrize("spatial", [(4, 3), (1, 2), (2, 1)], ids=str)
def test_it_is_numpys_pad_and_its_transpose(mode, pairs, spatial):
    x = whole(2, *spatial, 3)
    expected = by_numpy(x, pairs, mode)
    np.testing.assert_array_equal(modes.padded(jnp.asarray(x), pairs, mode), expected)
    g = whole(*expected.shape, seed=1)
    back = modes.folded_back(jnp.asarray(g), spatial, pairs, mode)
    assert back.shape == x.shape
    assert np.vdot(expected, g) == np.vdot(x, back)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pairs", PAIRS, ids=str)
def test_a_height_not_known_yet(mode, pairs):
    """One exported program for all heights, also for those that the padding is wider than."""
    h = jax.export.symbolic_shape("h")[0]
    program = jax.jit(lambda x: modes.padded(x, pairs, mode))
    exported = jax.export.export(program)(jax.ShapeDtypeStruct((2, h, 3, 1), np.float32))
    for height in (1, 2, 4, 9):
        x = whole(2, height, 3, 1, seed=height)
        np.testing.assert_array_equal(exported.call(x), by_numpy(x, pairs, mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("padding", [(1, 2), ((2, 0), (1, 3)), (6, 7), "same"], ids=str)
def test_a_convolution_and_its_gradients_are_laxs_of_what_numpy_pads(mode, layout, padding):
    shapes = {"NCHW": ((2, 4, 5, 6), (6, 2, 3, 2)), "NHWC": ((2, 5, 6, 4), (3, 2, 2, 6))}
    x, w = (whole(*shape) for shape in shapes[layout])
    knobs = dict(stride=(2, 1), padding=padding, padding_mode=mode, groups=2, layout=layout)
    pairs = [(1, 1), (0, 1)] if padding == "same" else pairs_of(padding, None)
    around = [(0, 0), *pairs, (0, 0)] if layout == "NHWC" else [(0, 0), (0, 0), *pairs]

    def by_lax(x, w):
        numbers = (layout, "HWIO" if layout == "NHWC" else "OIHW", layout)
        x = jnp.pad(x, around, modes.NUMPYS[mode])
        return jax.lax.conv_general_dilated(x, w, (2, 1), "VALID", None, None, numbers, 2)

    conv = lambda x, w: jconv.conv2d(x, w, **knobs)  # noqa: E731
    g = whole(*jax.eval_shape(by_lax, x, w).shape, seed=1)

    @jax.jit
    def every_way(x, w, g):
        by_name = jconv.grad_input(x.shape, w, g, **knobs), jconv.grad_kernel(x, w.shape, g, **knobs)
        (y, back), (right, pullback) = (jax.vjp(f, x, w) for f in (conv, by_lax))
        return (y, *by_name), (y, *back(g)), (right, *pullback(g))

    by_name, by_jax, expected = every_way(x, w, g)
    jax.tree.map(np.testing.assert_array_equal, (by_name, by_jax), (expected, expected))


TRANSPOSED = [
    dict(stride=(2, 3), padding=(1, 0), output_padding=(1, 2), dilation=(2, 1)),
    dict(padding=(2, 1)),
    dict(padding=((2, 1), (0, 3)), stride=1),
    dict(padding="same", stride=2),
    dict(padding="same_lower", stride=(3, 1)),
    dict(padding=((-1, 2), (0, -2)), stride=2),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("knobs", TRANSPOSED, ids=str)
def test_a_transposed_convolution_is_the_transpose_of_one_with_that_mode(mode, knobs):
    """⟨conv(pad(x)), y⟩ = ⟨x, conv_transpose(y)⟩ with NumPy's pad, the very same kernel and no bias."""
    g, w = whole(2, 4, 3, 4), whole(4, 3, 4, 3, seed=1)
    back = jconv.conv_transpose2d(g, w, padding_mode=mode, **knobs)
    plain = jconv.conv_transpose2d(g, w, **knobs)  # its size, and what is cut off and added
    assert back.shape == plain.shape
    full = jconv.conv_transpose2d(g, w, **knobs | dict(padding=0, output_padding=0))
    more = knobs.get("output_padding", (0, 0))
    pairs = pairs_of(knobs["padding"], [f - s for f, s in zip(full.shape[2:], back.shape[2:], strict=True)])
    x = whole(*back.shape, seed=2)
    around = [(max(lo, 0), max(hi, 0)) for lo, hi in pairs]
    seen = np.pad(x, ((0, 0), (0, 0), *around), modes.NUMPYS[mode])
    inside = [(min(lo, 0), min(hi, 0) - m) for (lo, hi), m in zip(pairs, more, strict=True)]
    steps = dict(window_strides=np.broadcast_to(knobs.get("stride", 1), 2).tolist(), padding=inside,
                 rhs_dilation=knobs.get("dilation"))  # fmt: skip
    y = jax.lax.conv_general_dilated(seen, w, **steps)
    assert y.shape == g.shape
    assert np.vdot(y, g) == np.vdot(x, back)


def pairs_of(padding, totals):
    if padding == "same":
        return [(t // 2, t - t // 2) if t > 0 else (0, t) for t in totals]
    if padding == "same_lower":
        return [(t - t // 2, t // 2) if t > 0 else (0, t) for t in totals]
    return [entry if isinstance(entry, tuple) else (entry, entry) for entry in padding]


def test_the_bias_is_added_once_where_the_padding_is_folded_back():
    x, w, b = whole(1, 2, 4, 4), whole(2, 3, 3, 3), np.arange(3, dtype=np.float32)
    knobs = dict(padding=1, padding_mode="circular")
    without = jconv.conv_transpose2d(x, w, **knobs)
    np.testing.assert_array_equal(jconv.conv_transpose2d(x, w, b, **knobs), without + b[:, None, None])


@pytest.mark.parametrize("mode", MODES)
def test_second_order_and_vmap(mode):
    knobs = dict(padding=2, padding_mode=mode, stride=2)
    x, w = whole(1, 2, 3, 4) / 4, whole(2, 1, 2, 3) / 4
    check_grads(lambda x: jconv.conv_transpose2d(x, w, **knobs), (x,), 2, atol=0.05, rtol=0.05, eps=1.0)
    check_grads(lambda w: jconv.conv_transpose2d(x, w, **knobs), (w,), 2, atol=0.05, rtol=0.05, eps=1.0)
    xs, ws = whole(3, 1, 2, 3, 4), whole(3, 2, 1, 2, 3)
    each = [jconv.conv_transpose2d(x, w, **knobs) for x, w in zip(xs, ws, strict=True)]
    together = jax.vmap(lambda x, w: jconv.conv_transpose2d(x, w, **knobs))(xs, ws)
    np.testing.assert_allclose(together, np.stack(each), atol=100 * tolerance("float32", 12))
