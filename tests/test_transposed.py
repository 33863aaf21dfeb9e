"""Transposed convolutions: what they are, in both layouts, and what their derivatives are."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from oracles import compiled, convolutions, equations, lax_role

import jconv
from jconv.algorithms import ALGORITHMS, XLA, overlap_add, phase
from jconv.algorithms.im2col import IM2COL as IM2COL_ROWS
from jconv.algorithms.multiply_add import BROADCAST, written_out
from jconv.algorithms.multiply_add import DEPTHWISE as CHANNELS_LAST
from jconv.algorithms.overlap_add import OVERLAP_ADD
from jconv.algorithms.phase import by_phase
from jconv.algorithms.record import evaluate, refuses
from jconv.algorithms.work import workspace
from jconv.spec import ConvSpec
from jconv.spec.tolerance import tolerance

KNOBS = dict(stride=(2, 3), padding=(1, 0), output_padding=(1, 2), dilation=(2, 1), groups=2)
X, W = (2, 4, 3, 4), (4, 3, 2, 3)


def normal(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def scattered(x, w, *, stride, padding, output_padding, dilation, groups):
    """Every input adds a copy of the kernel to the output: the definition, loop by loop, in float64."""
    (n, c, h, width), (_, o, kh, kw) = x.shape, w.shape
    size = [
        (p - 1) * s + d * (k - 1) + 1 + more
        for p, s, d, k, more in zip((h, width), stride, dilation, (kh, kw), output_padding, strict=True)
    ]
    y = np.zeros((n, o * groups, *size))
    for i, j, r, s in np.ndindex(h, width, kh, kw):
        at = i * stride[0] + r * dilation[0], j * stride[1] + s * dilation[1]
        for g in range(groups):
            ins, outs = slice(g * c // groups, (g + 1) * c // groups), slice(g * o, (g + 1) * o)
            y[:, outs, *at] += x[:, ins, i, j].astype(np.float64) @ w[ins, :, r, s].astype(np.float64)
    return y[:, :, padding[0] : size[0] - padding[0], padding[1] : size[1] - padding[1]]


def test_it_scatters_copies_of_the_kernel():
    x, w = normal(X, W)
    expected = scattered(x, w, **KNOBS)
    found = jconv.conv_transpose2d(x, w, **KNOBS)
    assert found.shape == expected.shape
    bound = tolerance("float32", 12) * np.abs(expected).max()
    chex.assert_trees_all_close(found, expected.astype(np.float32), rtol=0, atol=bound)


@pytest.mark.parametrize("algorithm", ["im2col", "shift", "xla"])
def test_algorithms_by_name(algorithm):
    x, w = (np.round(4 * a) for a in normal(X, W))
    found = jconv.conv_transpose2d(x, w, algorithm=algorithm, **KNOBS)
    np.testing.assert_array_equal(found, scattered(x, w, **KNOBS))


def test_channels_last_takes_the_matching_convolutions_kernel():
    x, w = normal(X, W)
    first = jconv.conv_transpose2d(x, w, **KNOBS)
    last = jconv.conv_transpose2d(x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), layout="NHWC", **KNOBS)
    chex.assert_trees_all_close(last.transpose(0, 3, 1, 2), first, rtol=0, atol=10 * tolerance("float32", 12))


def test_it_undoes_the_shape_of_a_convolution_and_is_its_transpose():
    """⟨conv(x), y⟩ = ⟨x, conv_transpose(y)⟩, with the very same kernel array."""
    knobs = dict(stride=(2, 3), padding=(1, 2), dilation=(2, 1), groups=2)
    x, w = (np.round(4 * a) for a in normal((2, 6, 10, 11), (4, 3, 2, 3)))
    y = jconv.conv2d(x, w, **knobs)
    g = np.round(4 * normal(y.shape, seed=1)[0])
    left_over = tuple((h + 2 * p - d * (k - 1) - 1) % s for h, p, d, k, s in
                      zip((10, 11), (1, 2), (2, 1), (2, 3), (2, 3), strict=True))  # fmt: skip
    back = jconv.conv_transpose2d(g, w, output_padding=left_over, **knobs)
    assert back.shape == x.shape
    assert np.vdot(y, g) == np.vdot(x, back)


def test_no_algorithm_convolves_over_inserted_zeros_unless_asked():
    """It is bound as grad_input, and its gradients are a convolution and its kernel gradient."""
    x, w = map(jnp.asarray, normal(X, W))
    assert roles(lambda x, w: jconv.conv_transpose2d(x, w, **KNOBS), x, w) == ["grad_input"]
    gradient = jax.grad(lambda x, w: jconv.conv_transpose2d(x, w, **KNOBS).sum(), (0, 1))
    assert sorted(roles(gradient, x, w)) == ["forward", "grad_input", "grad_kernel"]


def roles(fn, *arrays):
    found = convolutions(fn, *arrays)
    assert all(set(spec.lhs_dilation) == {1} for _, spec in found)
    return [role for role, _ in found]


def test_derivatives_of_second_order():
    x, w = normal((1, 2, 3, 2), (2, 1, 2, 3))
    knobs = dict(stride=(2, 1), padding=(1, 0), output_padding=(1, 0), groups=2)
    check_grads(lambda x: jconv.conv_transpose2d(x, w, **knobs), (x,), 2, atol=0.05, rtol=0.05, eps=1.0)
    check_grads(lambda w: jconv.conv_transpose2d(x, w, **knobs), (w,), 2, atol=0.05, rtol=0.05, eps=1.0)


def test_per_example_kernels():
    x, w = normal((3, 1, 2, 4), (3, 2, 3, 3))
    together = jax.vmap(lambda x, w: jconv.conv_transpose1d(x, w, stride=2))(x, w)
    each = jnp.stack([jconv.conv_transpose1d(*pair, stride=2) for pair in zip(x, w, strict=True)])
    chex.assert_trees_all_close(together, each, rtol=0, atol=10 * tolerance("float32", 6))


def test_int8_counts_in_int32():
    x, w = jnp.full((1, 64, 4), 127, jnp.int8), jnp.full((64, 1, 3), 127, jnp.int8)
    found = jconv.conv_transpose1d(x, w, stride=2, preferred_element_type=jnp.int32)
    assert found.dtype == jnp.int32
    assert found.max() == 2 * 64 * 127**2


def test_a_named_algorithm_refuses():
    with pytest.raises(ValueError, match="`algorithm`='pointwise' refuses"):
        jconv.conv_transpose2d(jnp.ones(X), jnp.ones(W), algorithm="pointwise", **KNOBS)
    assert "pointwise" in ALGORITHMS


@pytest.mark.parametrize("lhs_dilation", [(1, 1), (2, 3)], ids=str)
def test_overlap_add_block_by_block(lhs_dilation, monkeypatch):
    """Products past the bound are added up in a loop, to the same integers."""
    spec = ConvSpec.of(
        batch=2, spatial=(5, 4), kernel=(5, 4), in_channels=3, out_channels=2,
        padding=((3, 2), (1, 4)), lhs_dilation=lhs_dilation,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-4, 5, shape).astype("f") for shape in (spec.x_shape, spec.w_shape))
    monkeypatch.setattr(overlap_add, "REUSED", 0)
    program = jax.make_jaxpr(lambda x, w: evaluate(ALGORITHMS["overlap_add"], "forward", x, w, spec))
    loops = [e for e in equations(program(x, w)) if e.primitive.name in ("while", "scan")]
    assert len(loops) == 1
    got = compiled(ALGORITHMS["overlap_add"], "forward", x, w, spec)
    np.testing.assert_array_equal(got, lax_role("forward", x, w, spec))


@pytest.mark.parametrize(
    "algorithm", [by_phase(IM2COL_ROWS), by_phase(XLA), OVERLAP_ADD], ids=["im2col", "xla", "overlap_add"]
)
def test_the_memory_of_all_phases_is_counted(algorithm):
    spec = ConvSpec.of(
        spatial=(10, 11, 12), kernel=(4, 4, 4), in_channels=32, out_channels=16,
        lhs_dilation=(2, 2, 2), padding=((2, 2),) * 3,
    )  # fmt: skip
    shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in (spec.x_shape, spec.w_shape)]
    compiled = jax.jit(lambda x, w: evaluate(algorithm, "forward", x, w, spec)).lower(*shapes).compile()
    taken = compiled.memory_analysis().temp_size_in_bytes
    assert taken <= 1.25 * workspace(algorithm, "forward", spec) + 2**20


@pytest.mark.parametrize("groups", [1, 16])
def test_its_kernel_gradient_is_not_computed_by_phase(groups):
    """There g would be cut into parts and x unrolled for each of them."""
    spec = ConvSpec.of(spatial=(28, 27), kernel=(3, 3), lhs_dilation=(2, 2), padding=((1, 1), (1, 1)),
                       in_channels=16, out_channels=16, groups=groups)  # fmt: skip
    assert all(refuses(form, "grad_kernel", spec) for form in ALGORITHMS["phase"].forms)


@pytest.mark.parametrize("role", ["forward", "grad_input"])
@pytest.mark.parametrize("groups", [1, 3])
def test_phases_with_padding_on_both_sides_read_one_framed_image(role, groups, monkeypatch):
    spec = ConvSpec.of(batch=2, spatial=(7, 6), kernel=(3, 2), in_channels=3, out_channels=6, groups=groups,
                       lhs_dilation=(2, 2), rhs_dilation=(3, 1), padding=((3, 4), (2, -1)))  # fmt: skip
    rng = np.random.default_rng(4)
    shapes = (spec.y_shape if role == "grad_input" else spec.x_shape), spec.w_shape
    a, w = (rng.integers(-4, 5, shape).astype("f") for shape in shapes)
    algorithm = by_phase(BROADCAST if groups == 1 else CHANNELS_LAST, written_out)
    assert phase.is_framed(spec)
    for bound in (phase.IN_CACHE, 0):  # framed, and too large for it
        monkeypatch.setattr(phase, "IN_CACHE", bound)
        got = compiled(algorithm, role, a, w, spec)
        np.testing.assert_array_equal(got, lax_role(role, a, w, spec))
