"""The 5×5 example: every implementation there is gives the same nine numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

import jconv
from jconv.algorithms import ALGORITHMS
from jconv.spec import ConvSpec
from jconv.spec.tolerance import tolerance
from jconv.textbook import CONV2D
from jconv.textbook.example import INPUT, OUTPUT, SOBEL_X

SPEC = ConvSpec.of(spatial=(5, 5), kernel=(3, 3))
LAYOUTS = {
    "NCHW": ((1, 1, 5, 5), (1, 1, 3, 3), (1, 1, 3, 3)),
    "NHWC": ((1, 5, 5, 1), (3, 3, 1, 1), (1, 3, 3, 1)),
}


def five_by_five(layout, algorithm):
    x_shape, w_shape, y_shape = LAYOUTS[layout]
    x = jnp.asarray(INPUT, jnp.float32).reshape(x_shape)
    w = jnp.asarray(SOBEL_X, jnp.float32).reshape(w_shape)
    y = jconv.conv2d(x, w, layout=layout, algorithm=algorithm)
    assert y.shape == y_shape
    return np.asarray(y).reshape(3, 3)


@pytest.mark.parametrize("name", CONV2D)
def test_textbook(name):
    y = CONV2D[name](INPUT[None, None], SOBEL_X[None, None])
    np.testing.assert_array_equal(y[0, 0], OUTPUT)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_auto(layout):
    np.testing.assert_array_equal(five_by_five(layout, "auto"), OUTPUT)


REFUSING = [name for name, algorithm in ALGORITHMS.items() if algorithm.rejects(SPEC)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", REFUSING)
def test_algorithm_that_refuses_it(name, layout):
    with pytest.raises(ValueError, match=f"`algorithm`='{name}' refuses"):
        five_by_five(layout, name)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name not in REFUSING])
def test_algorithm(name, layout):
    y = five_by_five(layout, name)
    if ALGORITHMS[name].exact:
        np.testing.assert_array_equal(y, OUTPUT)
    # a transform may lose ten times as much as the direct sum before it is no longer picked unasked
    bound = tolerance("float32", SPEC.taps, amplification=10)
    assert np.max(np.abs(y - OUTPUT)) <= bound * np.max(np.abs(OUTPUT))
