"""Blocks of taps, and in the kernel's gradient of rows: few channels made many, in bounded memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jconv
from jconv.algorithms.record import evaluate, refuses
from jconv.algorithms.two_level import FILLED, TWO_LEVEL, block_of_rows
from jconv.spec import ConvSpec
from jconv.testing import cases

LARGE = ConvSpec.of(batch=4, spatial=(113, 109), kernel=(60, 50), in_channels=3, out_channels=1)
SPECS = {
    "blocks that divide the rows": ConvSpec.of(spatial=(71, 13), kernel=(8, 9)),
    "a last block that begins early": ConvSpec.of(batch=2, spatial=(51, 17), kernel=(9, 8), in_channels=2),
    "several channels": ConvSpec.of(spatial=(30, 14), kernel=(11, 6), in_channels=3, out_channels=5),
    "dilated, padded, with a stride beside": ConvSpec.of(
        spatial=(40, 21), kernel=(9, 8), rhs_dilation=(2, 1), strides=(1, 2), padding=((7, 3), (-1, 4)),
    ),
    "a volume": ConvSpec.of(spatial=(19, 6, 7), kernel=(5, 4, 4), out_channels=17),
}  # fmt: skip


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_kernels_gradient_is_exact_and_keeps_nans_in_their_windows(spec, onednn):
    spec = spec.replace(onednn=onednn)
    assert refuses(TWO_LEVEL, "grad_kernel", spec) is None
    x, g = cases.operands("grad_kernel", cases.whole(spec))
    program = jax.jit(functools.partial(evaluate, TWO_LEVEL, "grad_kernel", spec=spec))
    np.testing.assert_array_equal(program(x, g), cases.reference("grad_kernel", x, g, spec))
    for corner in (0, -1):
        seen = np.zeros(x.shape)
        seen[(0, *[corner] * spec.ndim, 0)] = 1
        may = cases.reference("grad_kernel", seen, np.ones(g.shape), spec) > 0
        got = program(np.where(seen, np.nan, x), g)
        np.testing.assert_array_equal(np.isnan(got), may)


def test_a_block_fills_a_vector_register_and_not_the_memory():
    part = block_of_rows(LARGE)
    assert part.out_spatial[0] * LARGE.o >= FILLED
    assert part.batch < LARGE.batch
    a, b = (jax.ShapeDtypeStruct(*LARGE.result(role)) for role in ("grad_input", "forward"))
    program = jax.jit(functools.partial(evaluate, TWO_LEVEL, "grad_kernel", spec=LARGE)).lower(a, b).compile()
    assert program.memory_analysis().temp_size_in_bytes <= 1.1 * TWO_LEVEL.workspace(LARGE, "grad_kernel")


def test_by_name_what_onednn_computes_inside_is_differentiated():
    """JAX cannot run a call of oneDNN backwards, and along one axis there is no gradient of its own."""
    x, w = jnp.arange(622.0).reshape(1, 2, 311) % 7, jnp.ones((1, 2, 107))
    conv = functools.partial(jconv.conv, dilation=2)
    wanted = jax.grad(lambda w: conv(x, w, algorithm="xla").sum())(w)
    got = jax.grad(lambda w: conv(x, w, algorithm="overlap_add").sum())(w)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", ["overlap_add", "im2col"])
def test_a_kernel_longer_than_what_is_taken_for_an_unknown_size(name):
    x, w = np.ones((2, 1, 37, 33), "f"), np.ones((2, 1, 32, 20), "f")
    like = jax.export.symbolic_args_specs((x, w), ("2, 1, h, w", None))
    gradient = jax.grad(lambda w, x: (jconv.conv2d(x, w, algorithm=name) ** 2).sum())
    exported = jax.export.export(jax.jit(lambda x, w: gradient(w, x)))(*like)
    np.testing.assert_allclose(exported.call(x, w), gradient(w, x), rtol=1e-5)
