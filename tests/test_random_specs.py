"""Random convolutions against lax: values and both gradients, in lax's own terms.

Arrays hold small whole numbers, so every algorithm of the GEMM family must agree with lax to the bit.
`HYPOTHESIS_PROFILE=deep` runs 2,500 specs, a fifth of a second each, all of it compiling; the default
run takes 120.
"""

import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from jax import lax

import jconv

EXAMPLES = 2500 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 120
LAYOUTS = {
    0: [("NC", "OI", "NC"), ("CN", "IO", "CN")],
    1: [("NCH", "OIH", "NCH"), ("NHC", "HIO", "NHC"), ("HNC", "IHO", "CNH")],
    2: [("NCHW", "OIHW", "NCHW"), ("NHWC", "HWIO", "NHWC"), ("CWHN", "HOWI", "WNCH")],
    3: [("NCHWD", "OIHWD", "NCHWD"), ("NDHWC", "DHWIO", "NDHWC")],
}


@st.composite
def problems(draw):
    """lhs and rhs shapes in lax's default order, and the keywords of conv_general_dilated."""
    n = draw(st.sampled_from([0, 1, 1, 2, 2, 2, 2, 3]))

    def each(element):
        return tuple(draw(st.lists(element, min_size=n, max_size=n)))

    pairs = st.tuples(*[st.tuples(st.integers(-1, 4), st.integers(-1, 4))] * n)
    feature_groups, batch_groups = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (3, 1), (1, 2)]))
    batch, c, o = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    lhs = (batch * batch_groups, c * feature_groups, *each(st.integers(1, 7)))
    rhs = (o * feature_groups * batch_groups, c, *each(st.integers(1, 4)))
    knobs = dict(
        window_strides=each(st.integers(1, 3)),
        padding=draw(st.sampled_from(["SAME", "VALID", "SAME_LOWER"]) | pairs),
        lhs_dilation=each(st.sampled_from([1, 1, 1, 2, 3])),
        rhs_dilation=each(st.sampled_from([1, 1, 2, 3])),
        dimension_numbers=draw(st.sampled_from(LAYOUTS[n])),
        feature_group_count=feature_groups,
        batch_group_count=batch_groups,
    )
    return lhs, rhs, knobs


def permuted(shape, letters, default):
    return tuple(shape[default.index(letter)] for letter in letters)


def whole(shape, seed):
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)


def three_roles(conv, knobs, lhs, rhs, g):
    y, pullback = jax.vjp(lambda x, w: conv(x, w, **knobs), lhs, rhs)
    return y, *pullback(g)


@settings(max_examples=EXAMPLES)
@given(problems())
def test_values_and_gradients_are_laxs(problem):
    lhs, rhs, knobs = problem
    space = "HWD"[: len(lhs) - 2]
    x_letters, w_letters, _ = knobs["dimension_numbers"]
    x = whole(permuted(lhs, x_letters, "NC" + space), 0)
    w = whole(permuted(rhs, w_letters, "OI" + space), 1)
    try:
        shape = jax.eval_shape(lambda x, w: lax.conv_general_dilated(x, w, **knobs), x, w).shape
    except (TypeError, ValueError) as error:
        note(f"lax refuses: {error}")
        assert_refused_alike(x, w, knobs, error)
        return
    g = whole(shape, 2)

    def both(*arrays):
        convs = jconv.conv_general_dilated, lax.conv_general_dilated
        return [three_roles(conv, knobs, *arrays) for conv in convs]

    ours, theirs = jax.jit(both)(*map(jnp.asarray, (x, w, g)))
    for mine, its in zip(ours, theirs, strict=True):
        assert (mine.shape, mine.dtype, mine.weak_type) == (its.shape, its.dtype, its.weak_type)
        np.testing.assert_array_equal(mine, its)


def assert_refused_alike(x, w, knobs, error):
    first, *_ = str(error).splitlines()  # below it JAX may say that it shortened the traceback
    with pytest.raises(type(error), match=re.escape(first)):
        jconv.conv_general_dilated(x, w, **knobs)
