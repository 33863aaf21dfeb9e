"""Winograd: the matrices exactly, the products counted, the errors within what is stated."""

import functools
import itertools
import math
import operator
import unittest.mock
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import compiled, equations

from jconv.algorithms import cook_toom, pieces, winograd
from jconv.algorithms.cook_toom import amplification, default_points, matrices
from jconv.algorithms.record import evaluate
from jconv.algorithms.winograd import WINOGRAD, fixed
from jconv.spec import ROLES, ConvSpec
from jconv.spec.tolerance import tolerance
from jconv.testing import cases

ROUNDING = 1.3  # the stated amplification is a root mean square; measured ones lie up to this above


# -- the algorithm on plain numbers ----------------------------------------------------------------


def is_exact(f):
    """Whether the three matrices are a correlation: Σ_p A[i,p] G[p,k] B[p,t] = [t = i + k], exactly."""
    return all(
        sum(f.A[i][p] * f.G[p][k] * f.B[p][t] for p in range(f.n)) == (t == i + k)
        for i, k, t in itertools.product(range(f.m), range(f.r), range(f.n))
    )


def transform(matrix, grid, axis):
    """`matrix` applied along one axis of a grid of numbers: multiplications by constants only."""
    out = {}
    for at, value in grid.items():
        for row, coefficients in enumerate(matrix):
            if coefficients[at[axis]]:
                key = (*at[:axis], row, *at[axis + 1 :])
                out[key] = out.get(key, 0) + coefficients[at[axis]] * value
    return out


def every(sizes):
    return itertools.product(*map(range, sizes))


def correlate(d, w, tiles, multiply=operator.mul):
    """The correlation of d with w over one tile; every product of the two is computed by `multiply`."""
    for axis, f in enumerate(tiles):
        d, w = transform(f.B, d, axis), transform(f.G, w, axis)
    products = {at: multiply(w.get(at, 0), d.get(at, 0)) for at in every(f.n for f in tiles)}
    for axis, f in enumerate(tiles):
        products = transform(f.A, products, axis)
    return {at: products.get(at, 0) for at in every(f.m for f in tiles)}


def multiplications(tiles):
    """Numbers of products of data with kernel for one tile, by F(m, r) and by the direct sum, as counted."""
    counts = []

    def counted(a, b):
        counts[-1] += 1
        return a * b

    d = {at: sum(at) + 1 for at in every(f.n for f in tiles)}
    w = {at: math.prod(at) + 1 for at in every(f.r for f in tiles)}
    counts.append(0)
    fast = correlate(d, w, tiles, counted)
    counts.append(0)
    slow = {out: sum(counted(d[tuple(map(operator.add, out, tap))], w[tap]) for tap in w) for out in fast}
    assert fast == slow
    return tuple(counts)


@pytest.mark.parametrize("n", range(1, 15))
def test_matrices_are_a_correlation_exactly(n):
    for m in range(1, n + 1):
        f = matrices(m, n + 1 - m)
        assert (len(f.A), len(f.G), len(f.B)) == (m, n, n)
        assert is_exact(f)


def test_is_exact_notices():
    f = matrices(2, 3)
    wrong = tuple((row[0] + Fraction(1, 10**9), *row[1:]) for row in f.B)
    assert not is_exact(winograd.Bilinear(f.m, f.r, f.A, f.G, wrong))


fractions = st.fractions(-3, 3, max_denominator=5)


def of_points(m, r, points):
    """F(m, r) from other points."""
    with unittest.mock.patch.object(cook_toom, "default_points", return_value=tuple(map(Fraction, points))):
        return matrices.__wrapped__(m, r)


@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_any_distinct_points_correlate_in_rationals(m, r, data):
    n = m + r - 1
    points = data.draw(st.lists(fractions, min_size=n - 1, max_size=n - 1, unique=True))
    d, w = (data.draw(st.lists(fractions, min_size=size, max_size=size)) for size in (n, r))
    f = of_points(m, r, points)
    got = correlate({(i,): v for i, v in enumerate(d)}, {(k,): v for k, v in enumerate(w)}, [f])
    assert list(got.values()) == [sum(d[i + k] * w[k] for k in range(r)) for i in range(m)]


def test_textbook_f23():
    f = matrices(2, 3)
    half = Fraction(1, 2)
    assert f.A == ((1, 1, 1, 0), (0, 1, -1, 1))
    assert ((1, 0, 0), (half, half, half), (half, -half, half), (0, 0, 1)) == f.G
    assert f.B == ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, -1, 0, 1))


@pytest.mark.parametrize(
    ("sizes", "ours", "direct"),
    [([(2, 3)] * 2, 16, 36), ([(4, 3)] * 2, 36, 144), ([(2, 3)], 4, 6), ([(2, 3)] * 3, 64, 216),
     ([(4, 5), (2, 2)], 24, 80)],
)  # fmt: skip
def test_multiplications_are_counted(sizes, ours, direct):
    assert multiplications([matrices(m, r) for m, r in sizes]) == (ours, direct)


@pytest.mark.parametrize(("m", "r"), [(3, 3), (4, 3), (5, 3), (2, 5)])
def test_default_points_err_less_than_small_integers(m, r):
    integers = (0, 1, -1, 2, -2, Fraction(1, 2))[: m + r - 2]
    assert amplification(matrices(m, r)) < 0.85 * amplification(of_points(m, r, integers))
    assert len(set(default_points(m + r - 1))) == m + r - 2


WINOGRAD2, WINOGRAD4 = (winograd.winograd(fixed(m)) for m in (2, 4))
SPECS = {
    "partial": ConvSpec.of(batch=2, spatial=(13, 9), kernel=(3, 3), in_channels=6, out_channels=8,
                           groups=2, padding=((1, 1), (0, 2))),
    "one_tap": ConvSpec.of(batch=2, spatial=(7, 11), kernel=(1, 5), in_channels=5, out_channels=3,
                           padding=((1, 0), (-1, 4))),
    "uneven": ConvSpec.of(spatial=(10, 7), kernel=(2, 4), in_channels=3, out_channels=4),
    "line": ConvSpec.of(batch=3, spatial=(29,), kernel=(3,), in_channels=4, out_channels=6,
                        padding=((2, 0),)),
    "volume": ConvSpec.of(spatial=(5, 6, 7), kernel=(3, 1, 3), in_channels=4, out_channels=3),
}  # fmt: skip


def bound(algorithm, role, spec):
    stated = ROUNDING * algorithm.amplification(spec)
    return tolerance(spec.result(role)[1], cases.reduction(role, spec), stated)


def assert_agrees(algorithm, spec, roles=ROLES):
    arrays = cases.normal(spec)
    for role in roles:
        a, b = cases.operands(role, arrays)
        got = jax.jit(functools.partial(evaluate, algorithm, role, spec=spec))(a, b)
        assert got.dtype == spec.result(role)[1]
        assert cases.error(got, cases.reference(role, a, b, spec)) <= bound(algorithm, role, spec)


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [*((WINOGRAD, name) for name in SPECS), (WINOGRAD2, "partial"), (WINOGRAD4, "uneven")],
    ids=lambda value: getattr(value, "name", value),
)
def test_within_the_stated_error(algorithm, name):
    assert algorithm.rejects(SPECS[name]) is None
    assert_agrees(algorithm, SPECS[name])


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_dtypes(x64, dtype):
    assert_agrees(WINOGRAD4, SPECS["partial"].with_dtype(dtype))


@pytest.mark.parametrize(("name", "block"), [("partial", 20_000), ("partial", 2_500), ("line", 800)])
def test_blocks_agree(monkeypatch, name, block):
    spec = SPECS[name].replace(batch=5)
    monkeypatch.setattr(pieces, "IN_CACHE", block)
    monkeypatch.setattr(pieces, "REUSED", block)
    assert winograd.piece(winograd.cheapest(spec), spec) != spec
    assert_agrees(WINOGRAD, spec, ("forward", "grad_kernel"))


def test_dots_do_16_of_36_multiplications():
    spec = ConvSpec.of(batch=2, spatial=(10, 8), kernel=(3, 3), in_channels=5, out_channels=7)
    x, w = (jnp.zeros(shape) for shape in (spec.x_shape, spec.w_shape))
    jaxpr = jax.make_jaxpr(functools.partial(evaluate, WINOGRAD2, "forward", spec=spec))(x, w)
    dots = [e for e in equations(jaxpr) if e.primitive.name == "dot_general"]
    done = sum(dot.outvars[0].aval.size * spec.c for dot in dots)
    assert done * 36 == spec.macs * 16


def test_nan_spreads_over_the_tiles_that_read_it():
    spec = ConvSpec.of(spatial=(10, 10), kernel=(3, 3), in_channels=2, out_channels=3)
    x = np.ones(spec.x_shape, "float32")
    x[0, 5, 0, 1] = np.inf
    y = np.asarray(compiled(WINOGRAD4, "forward", x, np.ones(spec.w_shape, "float32"), spec))
    bad = ~np.isfinite(y).all(-1)[0]
    assert bad[3:6, :1].all()  # the receptive field
    assert not bad[:, 4:].any()  # the tiles of columns 4 to 7 start reading at column 4
    assert bad.sum() > 3  # and more than the receptive field: it does spread


REFUSED = [
    ({"strides": (2, 1)}, "stride 1"),
    ({"lhs_dilation": (1, 2)}, "input dilation 1"),
    ({"rhs_dilation": (2, 2)}, "dilation 1 only"),
    ({"kernel": (1, 1)}, "one tap"),
    ({"kernel": (9, 3)}, "taps"),
    ({"groups": 8, "in_channels": 8, "out_channels": 8}, "one channel per group"),
    ({"x_dtype": "int32", "w_dtype": "int32", "y_dtype": "int32"}, "integers"),
]


@pytest.mark.parametrize(("changes", "reason"), REFUSED)
def test_refuses_with_a_reason(changes, reason):
    assert reason in WINOGRAD.rejects(SPECS["partial"].replace(**changes))


def test_tiles_are_the_cheapest_within_the_error():
    chosen = {
        size: [f and f.m for f in winograd.cheapest(ConvSpec.of(spatial=(size + 2, size), kernel=(3, 1)))]
        for size in (2, 3, 6, 8, 14)
    }
    for (size, (m, none)), tiles in itertools.product(chosen.items(), range(2, 7)):
        assert none is None
        assert -(-size // m) * (m + 2) <= -(-size // tiles) * (tiles + 2)
