"""The hint that the user's channels come first: another order of work, the same result."""

import functools
import itertools
import math

import jax
import numpy as np
import pytest
from jax import lax
from oracles import lax_role

from jconv.algorithms import ALGORITHMS
from jconv.algorithms.gemm import by_image
from jconv.algorithms.pointwise import summed_by_image
from jconv.algorithms.record import evaluate, forms_of, refuses
from jconv.choice.pick import choose
from jconv.lax import conv_general_dilated
from jconv.runtime import verified
from jconv.spec import ROLES, ConvSpec
from jconv.spec.roles import canonical
from jconv.spec.tolerance import tolerance
from jconv.testing import cases

LARGE = ConvSpec.of(batch=2, spatial=(17, 19), kernel=(1, 1), in_channels=5, out_channels=7)
PADDED = LARGE.replace(kernel=(3, 2), padding=((1, 1), (2, 0)))
CASES = {
    "image by image": ("pointwise", LARGE),
    "one image": ("pointwise", LARGE.replace(batch=1)),
    "subsampled": ("pointwise", LARGE.replace(spatial=(37, 61), strides=(2, 3), padding=((1, 0), (0, 2)))),
    "few pixels": ("pointwise", LARGE.replace(spatial=(3, 5), in_channels=30, out_channels=20)),
    "a volume": ("pointwise", ConvSpec.of(batch=2, spatial=(7, 6, 8), kernel=(1, 1, 1), in_channels=3)),
    "tiles": ("patchify", LARGE.replace(kernel=(2, 3), strides=(2, 3), padding=((1, 0), (0, 2)))),
    "tiles in 1-D": ("patchify", ConvSpec.of(spatial=(12,), kernel=(4,), strides=(4,), in_channels=3)),
    "columns": ("im2col", PADDED),
    "columns of one image": ("im2col", PADDED.replace(batch=1)),
    "columns of groups": ("im2col", PADDED.replace(in_channels=6, out_channels=8, groups=2)),
    "columns of few pixels": ("im2col", PADDED.replace(spatial=(6, 5), groups=1)),
    "columns apart": ("im2col", PADDED.replace(spatial=(36, 43), strides=(2, 1), rhs_dilation=(1, 3))),
    "a kernel larger than an image": ("im2col", PADDED.replace(in_channels=90, out_channels=80)),
    "columns in 1-D": ("im2col", ConvSpec.of(spatial=(300,), kernel=(3,), in_channels=3)),
    "shifted": ("overlap_add", PADDED),
    "shifted, few pixels": ("overlap_add", PADDED.replace(spatial=(6, 5))),
    "shifted, input dilated": ("overlap_add", PADDED.replace(lhs_dilation=(2, 3))),
}  # fmt: skip


def test_the_cases_take_every_way():
    specs = [spec.replace(channels_first=True) for _, spec in CASES.values()]
    pointwise = [spec for spec in specs if spec.is_pointwise]
    for some in (specs, pointwise):
        assert {by_image(spec, math.prod(spec.out_spatial)) for spec in some} == {True, False}
    assert {summed_by_image(spec) for spec in pointwise} == {True, False}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("name", "spec"), CASES.values(), ids=CASES)
def test_results_do_not_depend_on_the_hint(name, spec, role):
    forms = [form for form in forms_of(ALGORITHMS[name]) if not refuses(form, role, spec)]
    ways = list(itertools.product((spec, spec.replace(channels_first=True)), forms))

    @jax.jit
    def all_of_them(a, b):
        return lax_role(role, a, b, spec), [evaluate(form, role, a, b, hinted) for hinted, form in ways]

    wanted, found = all_of_them(*cases.operands(role, cases.normal(spec)))
    bound = tolerance("float32", cases.reduction(role, spec)) * np.abs(wanted).max()
    for got in found:
        np.testing.assert_allclose(got, wanted, rtol=0, atol=bound)


@pytest.mark.parametrize("role", ROLES)
def test_a_pointwise_convolution_in_nchw_turns_no_image(role, monkeypatch):
    spec = LARGE.replace(batch=1, spatial=(67, 59), in_channels=64, out_channels=32, channels_first=True)
    monkeypatch.setenv("JCONV_PORTABLE", "1")
    assert choose(spec, role, "cpu").algorithm.name == "pointwise"
    x, w, g = np.ones((1, 64, 67, 59), "f"), np.ones((32, 64, 1, 1), "f"), np.ones((1, 32, 67, 59), "f")

    def forward(x, w):
        return conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=("NCHW", "OIHW", "NCHW"))

    program = {
        "forward": forward,
        "grad_input": lambda x, w: jax.vjp(lambda x: forward(x, w), x)[1](g)[0],
        "grad_kernel": lambda x, w: jax.vjp(lambda w: forward(x, w), w)[1](g)[0],
    }[role]
    compiled = jax.jit(program).lower(x, w).compile()
    if jax.default_backend() == "cpu" and role != "grad_kernel":  # there the compiler may turn an operand
        assert compiled.memory_analysis().temp_size_in_bytes < x.nbytes


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)])
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the memory of CPU programs")
def test_a_kernel_larger_than_the_image_is_not_turned(kernel):
    x, w = np.ones((1, 128, 7, 7), "f"), np.ones((320, 128, *kernel), "f")

    def forward(x, w):
        return conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW"))

    def taken(program, *args):
        return jax.jit(program).lower(*args).compile().memory_analysis().temp_size_in_bytes

    assert taken(forward, x, w) < w.nbytes
    g = forward(x, w)
    assert taken(lambda g, w: jax.vjp(lambda x: forward(x, w), x)[1](g)[0], g, w) < w.nbytes


@pytest.mark.parametrize("wrt", ["y", "w"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the memory of CPU programs")
def test_the_kernel_of_a_transposed_convolution_is_not_turned(layout, wrt):
    """As Flax, Equinox and Haiku write it, which is not how a gradient finds it."""
    if reason := verified.refusal() or verified.refusal_of("float32", "float32"):
        pytest.skip(reason)
    first = layout == "NCHW"
    spec = ConvSpec.of(
        spatial=(8, 7), kernel=(4, 3), in_channels=256, out_channels=128, lhs_dilation=(2, 2),
        padding=((2, 3), (1, 0)),
    ).replace(channels_first=first)  # fmt: skip
    behind, role = canonical(spec, "forward" if wrt == "y" else "grad_kernel")
    assert choose(behind, role, "cpu").algorithm.name == "im2col"
    arrays = cases.normal(spec)
    x, w, g = (np.moveaxis(arrays[n], -1, 1) if first else arrays[n] for n in "xwy")
    w = np.ascontiguousarray(np.moveaxis(arrays["w"], (-1, -2), (0, 1)) if first else arrays["w"])

    def forward(conv, x, w):
        numbers = (layout, "OIHW" if first else "HWIO", layout)
        return conv(x, w, (1, 1), spec.padding, (2, 2), dimension_numbers=numbers)

    def result(conv, x, w, g):
        return forward(conv, x, w) if wrt == "y" else jax.vjp(lambda w: forward(conv, x, w), w)[1](g)[0]

    program = jax.jit(functools.partial(result, conv_general_dilated)).lower(x, w, g).compile()
    assert program.memory_analysis().temp_size_in_bytes < w.nbytes
    wanted = result(lax.conv_general_dilated, x, w, g)
    bound = tolerance("float32", cases.reduction(role, behind)) * np.abs(wanted).max()
    np.testing.assert_allclose(program(x, w, g), wanted, rtol=0, atol=bound)
