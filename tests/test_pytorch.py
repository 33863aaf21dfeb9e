"""PyTorch as an oracle: the same values, gradients and refusals wherever jconv uses PyTorch's names."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jconv
from jconv.spec.tolerance import tolerance

torch = pytest.importorskip("torch", reason="PyTorch is an optional oracle")
F = torch.nn.functional
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

CONVS = {  # x, w, keywords
    "plain": ((2, 3, 9, 8), (4, 3, 3, 2), {}),
    "stride_padding": ((2, 3, 9, 11), (4, 3, 3, 3), dict(stride=(2, 3), padding=(1, 2))),
    "everything": ((2, 6, 10, 9), (9, 2, 3, 2), dict(stride=(2, 1), padding=(2, 1), dilation=(1, 3),
                                                     groups=3)),
    "one_for_all": ((1, 2, 9, 8), (3, 2, 2, 3), dict(stride=(2,), padding=[1], dilation=(1,))),
    "depthwise_multiplier": ((1, 3, 7, 8), (6, 1, 3, 3), dict(padding=1, groups=3)),
    "same_even_kernel": ((1, 2, 7, 6), (3, 2, 4, 2), dict(padding="same")),
    "same_dilated": ((1, 2, 7, 9), (3, 2, 2, 3), dict(padding="same", dilation=(3, 2))),
    "valid": ((1, 2, 7, 6), (3, 2, 4, 2), dict(padding="valid")),
    "unbatched": ((3, 7, 6), (4, 3, 3, 3), dict(padding=1)),
    "wide_padding": ((1, 2, 3, 4), (3, 2, 2, 2), dict(padding=(4, 3))),
    "no_batch_at_all": ((0, 2, 5, 5), (3, 2, 2, 2), {}),
    "1d": ((2, 4, 12), (6, 2, 5), dict(stride=2, padding=3, groups=2)),
    "1d_unbatched": ((4, 12), (6, 4, 5), dict(dilation=2)),
    "3d": ((1, 4, 5, 6, 4), (6, 2, 2, 3, 2), dict(stride=(1, 2, 1), padding=(1, 0, 1), groups=2)),
}  # fmt: skip
TRANSPOSED = {
    "plain": ((2, 3, 5, 4), (3, 4, 3, 2), {}),
    "stride": ((2, 3, 5, 4), (3, 4, 4, 3), dict(stride=(2, 3), padding=(1, 0))),
    "output_padding": ((1, 3, 4, 5), (3, 2, 3, 3), dict(stride=(2, 3), padding=1, output_padding=(1, 2))),
    "output_padding_of_dilation": ((1, 3, 4, 5), (3, 2, 2, 3), dict(dilation=(3, 2), output_padding=(2, 1))),
    "stride_above_kernel": ((1, 2, 4, 3), (2, 3, 2, 1), dict(stride=(3, 4), output_padding=(2, 3))),
    "everything": ((2, 6, 4, 5), (6, 2, 3, 2), dict(stride=(2, 3), padding=(3, 1), output_padding=(0, 2),
                                                    dilation=(2, 3), groups=3)),
    "depthwise": ((2, 3, 5, 4), (3, 1, 4, 4), dict(stride=2, padding=1, groups=3)),
    "unbatched": ((3, 5, 4), (3, 2, 3, 3), dict(stride=2)),
    "cut_to_one": ((1, 2, 5, 5), (2, 3, 3, 3), dict(padding=3)),
    "no_batch_at_all": ((0, 2, 5, 5), (2, 3, 2, 2), dict(stride=2)),
    "1d": ((2, 4, 6), (4, 3, 5), dict(stride=3, padding=2, output_padding=1, groups=2)),
    "3d": ((1, 4, 3, 2, 3), (4, 2, 4, 3, 2), dict(stride=2, padding=1, output_padding=(0, 1, 0), groups=2)),
}  # fmt: skip
WINDOWS = {  # x, kernel, keywords
    "overlapping": ((2, 3, 9, 11), (3, 2), {}),
    "everything": ((2, 3, 9, 11), (3, 2), dict(dilation=(2, 3), padding=(1, 2), stride=(2, 3))),
    "patchify": ((1, 2, 8, 6), 2, dict(stride=2)),
    "gaps": ((1, 2, 9, 10), (2, 1), dict(stride=(4, 3))),
    "wide_padding": ((1, 2, 3, 4), 2, dict(padding=3)),
    "dilated_past_the_stride": ((1, 2, 11, 9), (2, 3), dict(dilation=3, stride=2, padding=2)),
    "more_taps_than_are_unrolled": ((1, 1, 30, 3), (20, 2), dict(stride=(2, 1), padding=1)),
    "unbatched": ((3, 6, 5), 2, {}),
    "no_batch_at_all": ((0, 3, 6, 5), 2, {}),
}


def torches(*arrays):
    return [torch.tensor(np.asarray(a), requires_grad=np.asarray(a).dtype.kind in "fc") for a in arrays]


def normal(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def assert_same_with_gradients(ours, theirs, arrays, reduction):
    """Values and the gradients of all operands, from one random cotangent."""
    inputs = torches(*arrays)
    expected = theirs(*inputs)
    (g,) = normal(tuple(expected.shape), seed=1)
    expected.backward(torch.tensor(g))

    def both(arrays, g):
        y, pullback = jax.vjp(ours, *arrays)
        return y, pullback(g)

    y, gradients = jax.jit(both)(arrays, g)
    for mine, its in zip((y, *gradients), (expected, *(t.grad for t in inputs)), strict=True):
        its = its.detach().numpy()
        assert mine.shape == its.shape
        scale = np.abs(its).max(initial=1e-30)
        chex.assert_trees_all_close(mine / scale, its / scale, atol=tolerance("float32", reduction), rtol=0)


@pytest.mark.parametrize("case", CONVS)
def test_conv(case):
    x, w, knobs = CONVS[case]
    name = f"conv{len(w) - 2}d"
    arrays = normal(x, w, (w[0],))
    assert_same_with_gradients(
        lambda x, w, b: getattr(jconv, name)(x, w, b, **knobs),
        lambda x, w, b: getattr(F, name)(x, w, b, **knobs),
        arrays, 1000,
    )  # fmt: skip


@pytest.mark.parametrize("case", TRANSPOSED)
def test_conv_transpose(case):
    x, w, knobs = TRANSPOSED[case]
    name = f"conv_transpose{len(w) - 2}d"
    arrays = normal(x, w, (w[1] * knobs.get("groups", 1),))
    assert_same_with_gradients(
        lambda x, w, b: getattr(jconv, name)(x, w, b, **knobs),
        lambda x, w, b: getattr(F, name)(x, w, b, **knobs),
        arrays, 1000,
    )  # fmt: skip


@pytest.mark.parametrize("case", WINDOWS)
def test_unfold_and_fold(case):
    x, kernel, knobs = WINDOWS[case]
    arrays = normal(x)
    assert_same_with_gradients(
        lambda x: jconv.unfold(x, kernel, **knobs), lambda x: F.unfold(x, kernel, **knobs), arrays, 100
    )
    columns = normal(tuple(F.unfold(torch.tensor(arrays[0]), kernel, **knobs).shape))
    assert_same_with_gradients(
        lambda c: jconv.fold(c, x[-2:], kernel, **knobs),
        lambda c: F.fold(c, x[-2:], kernel, **knobs),
        columns, 100,
    )  # fmt: skip


# -- what PyTorch refuses, jconv refuses, and says which argument is to blame --------------------------

X, T = (1, 4, 5, 5), (4, 6, 3, 3)
REFUSED_TRANSPOSED = {
    "wrong_channels": ((1, 3, 5, 5), T, None, {}, "w"),
    "groups_do_not_divide": (X, T, None, dict(groups=3), "groups"),
    "output_padding_too_large": (X, T, None, dict(output_padding=1), "output_padding"),
    "output_padding_is_stride": (X, T, None, dict(output_padding=2, stride=2), "output_padding"),
    "negative_output_padding": (X, T, None, dict(output_padding=-1, stride=2), "output_padding"),
    "cut_to_nothing": (X, T, None, dict(padding=4), "padding"),
    "unknown_padding": (X, T, None, dict(padding="causal"), "padding"),
    "bias_too_long": (X, T, (7,), {}, "b"),
    "empty_side": ((1, 4, 0, 5), T, None, {}, "x"),
    "no_input_channels": ((1, 0, 5, 5), (0, 6, 3, 3), None, {}, "w"),
    "no_output_channels": (X, (4, 0, 3, 3), None, {}, "w"),
    "empty_kernel": (X, (4, 6, 0, 3), None, {}, "w"),
    "too_few_axes": ((5, 5), T, None, {}, "x"),
    "kernel_too_flat": (X, (4, 6, 3), None, {}, "w"),
}
REFUSED_UNFOLDS = {
    "kernel_larger_than_input": ((1, 2, 4, 4), 5, {}, "kernel_size"),
    "no_channels": ((1, 0, 4, 4), 2, {}, "x"),
    "empty_side": ((1, 2, 0, 4), 1, dict(padding=1), "x"),
    "no_kernel": ((1, 2, 4, 4), 0, {}, "kernel_size"),
    "float_kernel": ((1, 2, 4, 4), 2.0, {}, "kernel_size"),
    "named_padding": ((1, 2, 4, 4), 2, dict(padding="same"), "padding"),
}
REFUSED_FOLDS = {
    "wrong_windows": ((1, 8, 10), 4, 2, "cols"),
    "wrong_channels": ((1, 9, 9), 4, 2, "cols"),
    "too_many_axes": ((1, 1, 8, 9), 4, 2, "cols"),
    "three_sizes": ((1, 8, 9), (4, 4, 4), (2, 2), "kernel_size"),
    "output_smaller_than_kernel": ((1, 8, 0), (1, 1), 2, "kernel_size"),
    "no_channels": ((1, 0, 9), 4, 2, "cols"),
}


def assert_both_refuse(ours, theirs, blamed):
    with pytest.raises((RuntimeError, ValueError, TypeError, IndexError)):
        theirs()
    with pytest.raises((ValueError, TypeError), match=f"^`{blamed}`"):
        ours()


@pytest.mark.parametrize("case", REFUSED_TRANSPOSED)
def test_conv_transpose_refuses(case):
    x, w, b, knobs, blamed = REFUSED_TRANSPOSED[case]
    assert_both_refuse(
        lambda: jconv.conv_transpose2d(*(s and jnp.ones(s) for s in (x, w, b)), **knobs),
        lambda: F.conv_transpose2d(*(s and torch.ones(s) for s in (x, w, b)), **knobs),
        blamed,
    )


@pytest.mark.parametrize("case", REFUSED_UNFOLDS)
def test_unfold_refuses(case):
    x, kernel, knobs, blamed = REFUSED_UNFOLDS[case]
    assert_both_refuse(
        lambda: jconv.unfold(jnp.ones(x), kernel, **knobs),
        lambda: F.unfold(torch.ones(x), kernel, **knobs),
        blamed,
    )


@pytest.mark.parametrize("case", REFUSED_FOLDS)
def test_fold_refuses(case):
    cols, size, kernel, blamed = REFUSED_FOLDS[case]
    assert_both_refuse(
        lambda: jconv.fold(jnp.ones(cols), size, kernel),
        lambda: F.fold(torch.ones(cols), size, kernel),
        blamed,
    )


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_dtypes_must_agree(name):
    square = (1, 1, 3, 3)
    assert_both_refuse(
        lambda: getattr(jconv, name)(jnp.ones(square), jnp.ones(square, jnp.bfloat16)),
        lambda: getattr(F, name)(torch.ones(square), torch.ones(square, dtype=torch.bfloat16)),
        "w",
    )
