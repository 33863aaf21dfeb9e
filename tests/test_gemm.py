"""Transposed products: the same sums whichever operand is turned, and however the rows are cut."""

import jax
import numpy as np
import pytest

from jconv.algorithms.gemm import LONG, PARTS, is_long, transposed_product
from jconv.spec import ConvSpec
from jconv.spec.tolerance import tolerance

SHAPES = {
    "short, wide": ((), 49, 300, 40),
    "short, narrow": ((), 49, 20, 300),
    "short, the narrower turned": ((), 500, 300, 40),
    "in four": ((), LONG + 4, 40, 24),
    "in three": ((), 2049, 24, 40),
    "in one, a prime": ((), 2053, 33, 20),
    "not in parts, the result is large": ((), LONG, 200, 40),
    "groups": ((3,), 2050, 5, 33),
}


@pytest.mark.parametrize(("lead", "k", "m", "n"), SHAPES.values(), ids=SHAPES)
def test_every_way_sums_all_rows(lead, k, m, n):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((*lead, k, columns)).astype("f") for columns in (m, n))
    wanted = np.swapaxes(a, -1, -2).astype(np.float64) @ b
    got = jax.jit(lambda a, b: transposed_product(a, b, ConvSpec.of(spatial=(), kernel=())))(a, b)
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= tolerance("float32", k) * np.abs(wanted).max()


@pytest.mark.parametrize(("k", "m", "n"), [(LONG - 1, 4, 4), (LONG, 4 * LONG, 4), (LONG, 4, 4 * LONG)])
def test_short_products_and_large_results_are_not_cut(k, m, n):
    assert not is_long(k, m, n)
    assert is_long(4 * PARTS * LONG, 4, 4)


def test_parts_of_halves_are_summed_wide():
    spec = ConvSpec.of(spatial=(), kernel=()).with_dtype("bfloat16")
    ones = jax.numpy.ones((2 * LONG, 3), "bfloat16")
    got = transposed_product(ones, ones, spec)
    assert got.dtype == spec.accumulator
    np.testing.assert_array_equal(got, np.full((3, 3), 2.0 * LONG))
