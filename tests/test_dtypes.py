"""Types: results as lax types them, sums wide enough, integers exact and never in XLA's naive loop."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

import jconv
from jconv.choice.pick import choose
from jconv.spec.tolerance import tolerance
from jconv.testing import cases

INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
FLOATS = ["float16", "bfloat16", "float32", "float64"]
COMPLEX = ["complex64", "complex128"]
EVERYTHING = cases.named("everything").spec
DEPTHWISE = ["int8", "int32", "complex64"]  # the types that are tried on it
LAST = ("NHWC", "HWIO", "NHWC")


def drawn(dtype, *shapes):
    """Random bits for integers, so that sums wrap around; normal numbers otherwise."""
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind in "iub":
        info = np.iinfo(dtype) if dtype != "bool" else None
        low, high = (info.min, info.max) if info else (0, 1)
        return [rng.integers(low, high, shape, np.dtype(dtype), endpoint=True) for shape in shapes]
    values = [rng.standard_normal((2, *shape)) for shape in shapes]
    return [jnp.asarray(v[0] + 1j * v[1] if "complex" in dtype else v[0], dtype) for v in values]


def arguments(spec):
    return (spec.strides, spec.padding, spec.lhs_dilation, spec.rhs_dilation, LAST, spec.groups)


def on_cases(dtypes):
    names = ("everything", "transposed_groups", "multiplier")
    pairs = [(d, cases.named(name).spec) for name in names for d in dtypes
             if name != "multiplier" or d in DEPTHWISE]  # fmt: skip
    return pytest.mark.parametrize(("dtype", "spec"), pairs, ids=str)


@on_cases(["bool", *INTEGERS])
def test_integers_are_exact_modulo_their_size(dtype, spec, x64):
    x, w = drawn(dtype, spec.x_shape, spec.w_shape)
    found = jconv.conv_general_dilated(x, w, *arguments(spec))
    expected = cases.reference("forward", x.astype(np.int64), w.astype(np.int64), spec).astype(dtype)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


PREFERRED = [
    ("int8", "int16"), ("int8", "int32"), ("int8", "int64"), ("uint8", "int32"), ("int16", "int32"),
    ("int32", "int64"), ("int8", "float16"), ("int8", "float32"), ("int16", "bfloat16"), ("int32", "float32"),
    ("int64", "float64"), ("bool", "int32"), ("float16", "float32"), ("bfloat16", "float32"),
    ("bfloat16", "float64"), ("float32", "float64"), ("complex64", "complex128"),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "preferred"), PREFERRED)
def test_preferred_element_type(dtype, preferred, x64):
    """As if the operands had been widened first."""
    spec = EVERYTHING
    x, w = drawn("int8" if dtype.startswith("int") else dtype, spec.x_shape, spec.w_shape)
    x, w = jnp.asarray(x, dtype), jnp.asarray(w, dtype)
    knobs = dict(stride=spec.strides, padding=spec.padding, dilation=spec.rhs_dilation, groups=spec.groups,
                 layout="NHWC")  # fmt: skip
    found = jconv.conv2d(x, w, preferred_element_type=preferred, **knobs)
    wide = "float64" if preferred in ("float16", "bfloat16") else preferred
    exact = cases.reference("forward", np.asarray(x.astype(wide)), np.asarray(w.astype(wide)), spec)
    expected = np.asarray(jnp.asarray(exact).astype(preferred))
    assert found.dtype == preferred
    scale = float(np.abs(expected.astype("complex128")).max())
    bound = scale * tolerance(preferred, spec.taps * spec.c)
    difference = np.abs(np.asarray(found).astype("complex128") - expected.astype("complex128")).max()
    assert difference <= bound


@on_cases([*FLOATS, *COMPLEX])
def test_floats_in_all_three_roles(dtype, spec, x64):
    x, w, g = drawn(dtype, spec.x_shape, spec.w_shape, spec.y_shape)

    def all_roles(x, w, g):
        y, pullback = jax.vjp(lambda x, w: jconv.conv_general_dilated(x, w, *arguments(spec)), x, w)
        return y, *pullback(g)

    given = dict(zip("xwy", map(np.asarray, (x, w, g)), strict=True))
    for role, found in zip(
        ("forward", "grad_input", "grad_kernel"), jax.jit(all_roles)(x, w, g), strict=True
    ):
        expected = cases.reference(role, *cases.operands(role, given), spec)
        assert found.dtype == dtype
        bound = np.abs(expected).max() * tolerance(dtype, cases.reduction(role, spec))
        # the three real products of a complex one add and subtract: two more roundings of larger parts
        bound *= 4 if "complex" in dtype else 1
        assert np.abs(np.asarray(found).astype(expected.dtype) - expected).max() <= bound


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("algorithm", ["im2col", "shift", "xla"])
def test_halves_are_summed_in_float32(dtype, algorithm):
    """4,096 ones: a float16 sum would stop at 2,048, a bfloat16 one at 256."""
    x, w = jnp.ones((1, 1024, 2, 2), dtype), jnp.ones((1, 1024, 2, 2), dtype)
    assert jconv.conv2d(x, w, algorithm=algorithm).item() == 4096


def test_complex_gradients_do_not_conjugate():
    """JAX transposes without conjugating: the gradients are lax's, and numeric differences agree."""
    spec = EVERYTHING.replace(batch=1)
    x, w, g = drawn("complex64", spec.x_shape, spec.w_shape, spec.y_shape)
    ours, theirs = (
        jax.vjp(lambda x, w, conv=conv: conv(x, w, *arguments(spec)), x, w)[1](g)
        for conv in (jconv.conv_general_dilated, lax.conv_general_dilated)
    )
    for mine, its in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, its, atol=np.abs(its).max() * 4 * tolerance("complex64", 100))
    x, w = drawn("complex64", (1, 1, 4), (1, 1, 2))
    check_grads(lambda x: jconv.conv1d(x, w), (x,), 2, atol=0.05, rtol=0.05)


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype")
def test_without_x64_wide_types_become_narrow():
    x, w = jnp.ones((1, 1, 3)), jnp.ones((1, 1, 2))
    for _ in range(2):  # the second time from the caches
        found = jconv.lax.conv(x, w, (1,), "VALID", preferred_element_type=np.float64)
        assert found.dtype == jnp.float32
        with jax.enable_x64(True):
            found = jconv.lax.conv(x, w, (1,), "VALID", preferred_element_type=np.float64)
            assert found.dtype == jnp.float64


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32"])
@pytest.mark.parametrize("name", ["same", "stride", "groups", "depthwise", "transposed", "1d", "3d"])
def test_integers_avoid_the_naive_convolution(dtype, name):
    """XLA:CPU has no fast convolution for them, but it has a matrix product."""
    spec = cases.named(name).spec.with_dtype(dtype)
    assert "xla" not in choose(spec, "forward", "cpu").algorithm.name


def test_no_convolution_in_the_program_of_an_integer_one():
    x, w = jnp.ones((1, 4, 8, 8), jnp.int32), jnp.ones((4, 4, 3, 3), jnp.int32)
    program = jax.jit(jconv.conv2d).lower(x, w).as_text()
    assert not re.search("stablehlo.convolution", program)
