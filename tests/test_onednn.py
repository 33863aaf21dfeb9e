"""oneDNN's calls: values in every role, layout, dtype and mode of JAX; what lies where; memory.

Everything here runs it, and is skipped with the reason where `verified` refuses it.
"""

import concurrent.futures
import functools
import itertools
import math
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from oracles import compiled

import jconv
from jconv.algorithms import ONEDNN, onednn_images, onednn_lines, onednn_rows, pieces
from jconv.algorithms.record import evaluate, refuses
from jconv.calculus.primitives import OPERANDS, RESULT, convolve
from jconv.runtime import verified
from jconv.spec import ROLES, ConvSpec
from jconv.testing import cases, check_algorithm

ROOT = Path(__file__).parents[1]
ROUNDING = 2.0**-8  # of bfloat16


@pytest.fixture(autouse=True)
def available():
    if reason := verified.refusal() or verified.refusal_of("float32", "float32"):
        pytest.skip(reason)


def whole(*shape):
    return np.random.default_rng(shape).integers(-2, 3, shape).astype("float32")


# -- values ----------------------------------------------------------------------------------------


def all_roles(spec, channels_first, roles=ROLES):
    """(x, w, g) → the results of the roles, of arrays that lie in memory as a user's do."""
    spec = spec.replace(channels_first=channels_first)
    last = lambda v, name: jnp.moveaxis(v, 1, -1) if channels_first and name != "w" else v  # noqa: E731
    first = lambda v, name: jnp.moveaxis(v, -1, 1) if channels_first and name != "w" else v  # noqa: E731

    def results(*arrays):
        held = {name: last(v, name) for name, v in zip("xwy", arrays, strict=True)}
        return {
            role: first(convolve(role, *(held[n] for n in OPERANDS[role]), spec, "onednn"), RESULT[role])
            for role in roles
        }

    return results


def lying(arrays, channels_first):
    return [np.moveaxis(v, -1, 1) if channels_first and name != "w" else v for name, v in arrays.items()]


NARROW = ("multiplier", "1d_causal")  # groups for which oneDNN has no kernel of its own
CASES = [case for case in cases.CASES if case.name not in NARROW]


@pytest.mark.parametrize("name", NARROW)
def test_groups_without_a_kernel_of_their_own_are_refused(name):
    assert "for which oneDNN has no kernel" in refuses(ONEDNN, "forward", cases.named(name).spec)


def test_a_kernel_gradient_along_rows_is_on_the_list_or_not_its_own():
    """Depthwise in 3-D, the rows of several images would be groups of several channels to one."""
    one = ConvSpec.of(spatial=(5, 6, 7), kernel=(3, 3, 3), in_channels=4, out_channels=4, groups=4)
    assert ONEDNN.own(one, "grad_kernel")
    assert not ONEDNN.own(one.replace(batch=2), "grad_kernel")
    assert ONEDNN.own(one.replace(batch=2, channels_first=True), "grad_kernel"), "images are channels there"


def check_values(spec, dtype, most, roles=ROLES, spoilt=()):
    """Whole numbers against NumPy in float64, channels last and first.  A NaN in one of the arrays `spoilt`
    reaches results that read it and no other."""
    arrays = {name: v.astype(dtype) for name, v in cases.whole(spec.replace(x_dtype="int8")).items()}
    roles = [role for role in roles if refuses(ONEDNN, role, spec) is None]
    assert roles
    for channels_first in (False, True):
        program = jax.jit(all_roles(spec, channels_first, roles))
        compute = functools.partial(lying_last, program, channels_first)
        for role, result in compute(arrays).items():
            want = cases.reference(role, *cases.operands(role, arrays), spec)
            assert result.dtype.name == spec.result(role)[1]
            assert result.shape == want.shape
            assert cases.error(result.astype(want.dtype), want) <= most, (role, channels_first)
        for name in spoilt:
            nans = {other: np.full_like(v, other != name) for other, v in arrays.items()}
            nans[name].flat[np.random.default_rng(len(spec.kernel)).integers(nans[name].size)] = 1
            bad = arrays | {name: np.where(nans[name], np.nan, arrays[name])}
            for role, result in compute(bad).items():
                if name == OPERANDS[role][0]:  # in g it would meet zeros around x
                    may = cases.reference(role, *cases.operands(role, nans), spec) > 0
                    assert not (np.isnan(result) & ~may).any(), (role, channels_first)
                    assert np.isnan(result).any() == may.any(), (role, channels_first)


def lying_last(program, channels_first, arrays):
    """The results, channels last, of arrays that are."""
    results = jax.tree.map(np.asarray, program(*lying(arrays, channels_first)))
    moved = {role for role in results if channels_first and RESULT[role] != "w"}
    return {role: np.moveaxis(v, 1, -1) if role in moved else v for role, v in results.items()}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32_is_exact_on_whole_numbers(case):
    """And keeps a NaN where it is; a product of matrices multiplies it with zeros."""
    check_values(case.spec, "float32", 0.0, spoilt="" if case.spec.is_pointwise else "xy")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bfloat16_is_right_to_its_rounding(case):
    check_values(case.spec.with_dtype("bfloat16"), "bfloat16", ROUNDING)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("case", [c for c in CASES if c in cases.tagged("few")], ids=str)
def test_float32_stands_in_where_bfloat16_was_not_verified(case, role, monkeypatch):
    monkeypatch.setattr(verified, "features", lambda: frozenset(verified.FEATURES))
    spec = case.spec.with_dtype("bfloat16")
    a, b = cases.operands(role, {name: jnp.bfloat16(v) for name, v in cases.normal(spec).items()})
    assert refuses(ONEDNN, role, spec) == refuses(ONEDNN, role, case.spec)
    wide = compiled(ONEDNN, role, np.float32(a), np.float32(b), case.spec)
    np.testing.assert_array_equal(compiled(ONEDNN, role, a, b, spec), wide.astype("bfloat16"))


@pytest.mark.parametrize("result", ["float64", "float16", "complex64"])
def test_float32_stands_in_for_no_other_result(result, monkeypatch):
    monkeypatch.setattr(verified, "features", lambda: frozenset(verified.FEATURES))
    spec = cases.named("plain").spec.with_dtype("bfloat16").replace(y_dtype=result)
    assert f"bfloat16 to {result} was not verified" in ONEDNN.rejects(spec)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bfloat16_to_float32_is_exact_on_whole_numbers(case):
    spec = case.spec.with_dtype("bfloat16").replace(y_dtype="float32")
    check_values(spec, "bfloat16", 0.0, ["forward"])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_int8_to_int32_is_exact(case):
    check_values(case.spec.with_dtype("int8").replace(y_dtype="int32"), "int8", 0.0, ["forward"])


@pytest.mark.parametrize("role", ROLES)
def test_complex64_by_name_is_three_real_ones(role):
    """As "auto" takes it: what a name refuses is judged by what it would be given."""
    spec = cases.named("plain").spec
    x, w, g = (
        (real + 1j * other).astype("complex64")
        for real, other in zip(cases.whole(spec).values(), cases.whole(spec, 1).values(), strict=True)
    )
    spec = spec.replace(x_dtype="complex64", w_dtype="complex64", y_dtype="complex64")
    assert refuses(ONEDNN, role, spec) is None
    a, b = cases.operands(role, dict(zip("xwy", (x, w, g), strict=True)))
    np.testing.assert_array_equal(compiled(ONEDNN, role, a, b, spec), cases.reference(role, a, b, spec))


def test_int8_is_exact_where_float32_is_not():
    """4050 products of -128 and ±127: their sum needs more than the 24 bits of a float32."""
    spec = ConvSpec.of(
        spatial=(6, 7), kernel=(3, 3), in_channels=450, out_channels=5, padding=((1, 1), (0, 1)), dtype="int8"
    ).replace(y_dtype="int32")
    x, w = np.full(spec.x_shape, -128, "int8"), np.full(spec.w_shape, 127, "int8")
    w[0, 0, ::7] = -127
    y = jax.jit(lambda x, w: evaluate(ONEDNN, "forward", x, w, spec))(x, w)
    np.testing.assert_array_equal(y, cases.reference("forward", x, w, spec))
    assert np.abs(np.asarray(y)).max() > 2**25


def test_halves_and_bytes_of_lax():
    """`preferred_element_type` says what comes out, as lax does."""
    x, w = np.arange(-60, 60).reshape(1, 4, 5, 6) % 7 - 3, np.arange(-36, 36).reshape(2, 4, 3, 3) % 5 - 2
    want = lax.conv_general_dilated(x.astype("float32"), w.astype("float32"), (1, 2), "SAME")
    for dtype, result in (("bfloat16", "float32"), ("int8", "int32")):
        plain = functools.partial(lax.conv_general_dilated, window_strides=(1, 2), padding="SAME",
                                  preferred_element_type=jnp.dtype(result))  # fmt: skip
        f = jconv.accelerate(plain, "onednn")
        a, b = jnp.asarray(x, dtype), jnp.asarray(w, dtype)
        assert "__onednn$convolution" in jax.jit(f).lower(a, b).as_text()
        y = jax.jit(f)(a, b)
        assert y.dtype == result
        np.testing.assert_array_equal(y, want)


def test_it_is_an_algorithm_as_any_other():
    assert all(verdict.agrees for verdict in check_algorithm(ONEDNN, cases.tagged("few")))


# -- what lies where -------------------------------------------------------------------------------

MOVED = r"= \w+\[([\d,]*)\]\S* (transpose|copy|reverse|bitcast|pad|slice)\("


def layout_case(layout):
    if layout == "NCHW":
        return whole(2, 16, 14, 13), whole(24, 16, 3, 3), whole(2, 24, 14, 13)
    return whole(2, 14, 13, 16), whole(3, 3, 16, 24), whole(2, 14, 13, 24)


def moved(text):
    """How many values every instruction moves that does nothing but move values."""
    return [math.prod(int(n) for n in shape.split(",") if n) for shape, _ in re.findall(MOVED, text)]


def compiled_text(fun, *args):
    return jax.jit(fun).lower(*args).compile().as_text()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_forward_is_one_call_of_what_lies_there(layout, stride):
    x, w, _ = layout_case(layout)
    conv = lambda x, w: jconv.conv2d(x, w, padding=1, stride=stride, layout=layout, algorithm="onednn")  # noqa: E731
    text = compiled_text(conv, x, w)
    assert text.count('custom_call_target="__onednn$convolution"') == 1
    assert moved(text) == []


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_input_gradient_moves_nothing_but_the_kernel(layout):
    x, w, g = layout_case(layout)
    conv = lambda x, w: jconv.conv2d(x, w, padding=1, layout=layout, algorithm="onednn")  # noqa: E731
    text = compiled_text(lambda g, w: jax.linear_transpose(lambda x: conv(x, w), x)(g)[0], g, w)
    assert text.count('custom_call_target="__onednn$convolution"') == 1
    assert set(moved(text)) == {w.size}, "the kernel is flipped in space"


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_small_image_is_flipped_in_place_of_a_large_kernel(layout):
    if layout == "NCHW":
        x, w, g = whole(1, 64, 7, 5), whole(96, 64, 3, 3), whole(1, 96, 7, 5)
    else:
        x, w, g = whole(1, 7, 5, 64), whole(3, 3, 64, 96), whole(1, 7, 5, 96)
    conv = lambda x, w: jconv.conv2d(x, w, padding=1, layout=layout, algorithm="onednn")  # noqa: E731
    text = compiled_text(lambda g, w: jax.linear_transpose(lambda x: conv(x, w), x)(g)[0], g, w)
    assert text.count('custom_call_target="__onednn$convolution"') == 1
    assert w.size not in moved(text)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_grouped_input_gradient_moves_nothing_but_the_kernel(layout):
    spec = ConvSpec.of(
        spatial=(9, 8), kernel=(3, 3), in_channels=24, out_channels=40, groups=4, padding=((1, 1), (1, 1))
    )
    x, w, g = (whole(*shape) for shape in (spec.x_shape, spec.w_shape, spec.y_shape))
    if layout == "NCHW":
        x, w, g = np.moveaxis(x, -1, 1), w.transpose(3, 2, 0, 1), np.moveaxis(g, -1, 1)
    conv = lambda x, w: jconv.conv2d(x, w, padding=1, groups=4, layout=layout, algorithm="onednn")  # noqa: E731
    text = compiled_text(lambda g, w: jax.linear_transpose(lambda x: conv(x, w), x)(g)[0], g, w)
    assert text.count('custom_call_target="__onednn$convolution"') == 1
    assert set(moved(text)) == {w.size}


def test_the_kernel_gradient_of_a_1x1_kernel_is_a_product_of_what_lies_there():
    x, w, g = whole(2, 7, 5, 24), whole(1, 1, 24, 40), whole(2, 7, 5, 40)
    conv = lambda x, w: jconv.conv2d(x, w, layout="NHWC", algorithm="onednn")  # noqa: E731
    text = compiled_text(lambda x, g: jax.linear_transpose(lambda w: conv(x, w), w)(g)[0], x, g)
    assert text.count('custom_call_target="__onednn$matmul"') == 1
    assert not re.findall(r" (transpose|copy|pad|concatenate)\(", text)


@pytest.mark.parametrize("role", ["forward", "grad_input"])
@pytest.mark.parametrize("name", ["plain", "stride", "3d", "groups", "dilation", "asymmetric"])
def test_images_with_channels_first_are_exact_in_pieces(name, role, monkeypatch):
    """oneDNN copies them to channels last and back, and memory for all of them would be mapped anew."""
    monkeypatch.setattr(pieces, "REUSED", 0)
    monkeypatch.setattr(pieces, "IN_CACHE", 1 << 9)
    spec = cases.named(name).spec.replace(channels_first=True)
    arrays = cases.whole(spec, 0)
    a, b = (jnp.asarray(v) for v in cases.operands(role, arrays))
    lowered = jax.jit(lambda a, b: evaluate(ONEDNN, role, a, b, spec)).lower(a, b)
    assert "while" in lowered.as_text() or (role, name) == ("grad_input", "stride")
    np.testing.assert_array_equal(lowered.compile()(a, b), cases.reference(role, a, b, spec))


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("cut", ["images", "rows"])
@pytest.mark.parametrize("name", ["plain", "stride", "3d", "groups"])
def test_a_kernel_gradient_in_pieces_is_exact_on_whole_numbers(name, cut, channels_first, monkeypatch):
    """What is too large is summed some images, or some rows of one, at a time."""
    spec = cases.named(name).spec.replace(channels_first=channels_first)
    image = spec.replace(batch=1)
    fits = onednn_rows._size(image) if spec.groups > 1 else max(image.x_bytes, image.y_bytes)
    monkeypatch.setattr(onednn_rows, "STREAMED", 0)
    for limit in ("IN_CACHE", "REUSED"):
        monkeypatch.setattr(pieces, limit, fits if cut == "images" else fits // 3)
    part = (onednn_rows if spec.groups > 1 else onednn_lines)._part(spec)
    assert part.batch == 1 < spec.batch
    assert (part == image) == (cut == "images")
    x, g = whole(*spec.x_shape), whole(*spec.y_shape)
    got = compiled(ONEDNN, "grad_kernel", jnp.asarray(x), jnp.asarray(g), spec)
    np.testing.assert_array_equal(got, cases.reference("grad_kernel", x, g, spec))


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_kernel_gradient_along_lines_keeps_a_nan_in_its_window(dilation, batch, channels_first):
    spec = ConvSpec.of(
        batch=batch, in_channels=4, out_channels=5, spatial=(11, 13), kernel=(2, 3),
        padding=((1, 0), (dilation, -1)), rhs_dilation=(1, dilation),
    ).replace(channels_first=channels_first)  # fmt: skip
    x, g = whole(*spec.x_shape), whole(*spec.y_shape)
    compute = jax.jit(lambda x, g: evaluate(ONEDNN, "grad_kernel", x, g, spec))
    expected = cases.reference("grad_kernel", x, g, spec)
    x[:, :, -1:] = np.nan  # what the padding cuts off
    np.testing.assert_array_equal(compute(x, g), expected)
    x[0, 4, 0, 1] = np.nan  # at the border, where the last tap of a row does not look
    nans = np.isnan(compute(x, g))
    assert nans[:, :2, 1].all()
    assert nans.sum() == nans[:, :2, 1].sum()


@pytest.mark.parametrize("batch", [1, 3])
def test_a_kernel_gradient_reads_images_where_they_lie(batch):
    """Of several images the kernel's gradient comes out with its outputs first, and is moved."""
    x, w, g = whole(batch, 9, 8, 24), whole(3, 3, 24, 40), whole(batch, 9, 8, 40)
    conv = lambda x, w: jconv.conv2d(x, w, padding=1, layout="NHWC", algorithm="onednn")  # noqa: E731
    text = compiled_text(lambda x, g: jax.linear_transpose(lambda w: conv(x, w), w)(g)[0], x, g)
    assert text.count('custom_call_target="__onednn$convolution"') == 1
    shapes = re.findall(r"f32\[([\d,]+)\]\S* (?:transpose|copy|pad|concatenate)\(", text)
    assert {math.prod(map(int, shape.split(","))) for shape in shapes} == ({w.size} if batch > 1 else set())


def test_only_pairs_of_dtypes_that_were_verified_reach_onednn():
    """A gradient's operands and result are of the dtypes of x, w and y in another order."""
    names = ["float16", "bfloat16", "float32", "float64", "int8", "int32"]
    for dtypes in itertools.product(names, repeat=3):
        x, w, y = dtypes
        spec = ConvSpec.of(spatial=(9, 9), kernel=(3, 3)).replace(x_dtype=x, w_dtype=w, y_dtype=y)
        for role, sides in {"forward": (x, w, y), "grad_input": (y, w, x), "grad_kernel": (x, y, w)}.items():
            verified = set(dtypes) <= {"bfloat16", "float32"} or sides == ("int8", "int8", "int32")
            assert verified or refuses(ONEDNN, role, spec), (role, dtypes)


def test_a_result_wider_than_its_operands_keeps_its_gradients_from_onednn():
    with jax.enable_x64(True):
        x, w = jnp.ones((2, 4, 6, 6), "float32"), jnp.ones((4, 2, 3, 3), "float32")
        call = dict(padding=1, groups=2, preferred_element_type="float64")
        got = jax.grad(lambda w: jconv.conv2d(x, w, **call).sum())(w)
    assert got.dtype == "float32"
    assert got[0, 0].tolist() == [[50, 60, 50], [60, 72, 60], [50, 60, 50]]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (ConvSpec.of(out_channels=2, spatial=(300, 300), kernel=(150, 3)), "as tall as (150, 3)"),
        (ConvSpec.of(in_channels=17, spatial=(9, 1), kernel=(3, 1)), "one column of 17 channels"),
        (ConvSpec.of(in_channels=24, spatial=(9, 9, 1), kernel=(3, 1, 1)), "one column of 24 channels"),
        (ConvSpec.of(in_channels=17, spatial=(9, 2), kernel=(3, 1), strides=(1, 2)), "one column"),
    ],
)
def test_what_onednn_cannot_compute_is_refused(spec, told):
    """As a forward, and as the forward that a gradient is."""
    assert told in refuses(ONEDNN, "forward", spec)
    if not spec.is_strided:
        assert told in refuses(ONEDNN, "grad_input", spec.as_grad_input())


def test_a_kernel_gradient_goes_another_way_where_along_lines_onednn_cannot_compute_it(monkeypatch):
    tall = ConvSpec.of(out_channels=2, spatial=(300, 300), kernel=(151, 298))
    assert refuses(ONEDNN, "grad_kernel", tall)
    with monkeypatch.context() as changed:  # two of these at once would do, and one alone would not
        changed.setattr(pieces, "REUSED", tall.x_bytes)
        assert not onednn_lines.applies(tall.replace(batch=2))
    column = ConvSpec.of(batch=17, out_channels=2, spatial=(30, 9), kernel=(2, 3), rhs_dilation=(1, 2))
    assert not onednn_lines.applies(column)
    x, g = whole(*column.x_shape), whole(*column.y_shape)
    got = compiled(ONEDNN, "grad_kernel", jnp.asarray(x), jnp.asarray(g), column)
    np.testing.assert_array_equal(got, cases.reference("grad_kernel", x, g, column))


@pytest.mark.parametrize("name", ["depthwise", "transposed_depthwise"])
@pytest.mark.parametrize("channels_first", [False, True])
def test_a_depthwise_kernel_gradient_in_pieces_is_exact_on_whole_numbers(name, channels_first, monkeypatch):
    """oneDNN writes code for every tap and output; it writes it for some images or rows of g."""
    monkeypatch.setattr(onednn_images, "MOST_CODE", 1 << 11)
    spec = cases.named(name).spec.replace(channels_first=channels_first)
    spec = spec if max(spec.lhs_dilation) == 1 else spec.as_grad_input()
    assert onednn_images._part(spec) != spec
    x, g = whole(*spec.x_shape), whole(*spec.y_shape)
    got = compiled(ONEDNN, "grad_kernel", jnp.asarray(x), jnp.asarray(g), spec)
    np.testing.assert_array_equal(got, cases.reference("grad_kernel", x, g, spec))


@pytest.mark.parametrize("most", [0, 8 << 20], ids=["tap by tap", "all at once"])
def test_columns_in_one_dimension_are_right_however_many_taps_fit(most, monkeypatch):
    monkeypatch.setattr("jconv.algorithms.onednn_products.IN_CACHE", most)
    spec = ConvSpec.of(
        batch=2, spatial=(47,), kernel=(4,), in_channels=5, out_channels=7, strides=(2,), padding=((3, -1),),
        rhs_dilation=(3,),
    )  # fmt: skip
    check_values(spec, "float32", 0.0, ["grad_kernel"])


# -- modes of JAX ----------------------------------------------------------------------------------


X, W = whole(2, 5, 9, 8), whole(5, 5, 3, 3)  # as many channels out as in, so that it can be repeated


def conv(x, w, algorithm="onednn"):
    return jconv.conv2d(x, w, padding=1, algorithm=algorithm)


def by_lax(x, w):
    return lax.conv_general_dilated(x, w, (1, 1), ((1, 1), (1, 1)))


def scanned(conv, x, w):
    ws = jnp.stack([w, w[::-1], -w])
    return lax.scan(lambda x, w: (conv(x, w) % 5, x.sum()), x, ws)


def looped(conv, x, w):
    body = lambda state: (state[0] + 1, conv(state[1], w) % 7)  # noqa: E731
    return lax.while_loop(lambda state: state[0] < 4, body, (0, x))[1]


def conditional(conv, x, w):
    return lax.cond(x[0, 0, 0, 0] > -9, lambda: conv(x, w), lambda: conv(x, -w))


def over_images(conv, x, w):
    return jax.vmap(lambda x: conv(x[None], w))(x)


def over_kernels(conv, x, w):
    return jax.vmap(lambda w: conv(x, w))(jnp.stack([w, w + 1, -w]))


def over_both(conv, x, w):
    return jax.vmap(conv)(jnp.stack([x, x + 1]), jnp.stack([w, -w]))


def gradients(conv, x, w):
    return jax.grad(lambda x, w: (conv(x, w) * X).sum(), (0, 1))(x, w)


def remat(conv, x, w):
    return jax.grad(lambda x, w: (jax.checkpoint(lambda x: conv(conv(x, w), w))(x) * X).sum(), (0, 1))(x, w)


def twice(conv, x, w):
    return jax.grad(lambda w: (jax.grad(lambda x: (conv(x, w) ** 2).sum())(x) * X).sum())(w)


def per_example(conv, x, w):
    return jax.vmap(jax.grad(lambda w, x: (conv(x[None], w) * X[:1]).sum()), (None, 0))(w, x)


def forward_mode(conv, x, w):
    return jax.jvp(conv, (x, w), (x + 1, w - 1))


MODES = [scanned, looped, conditional, over_images, over_kernels, over_both, gradients, remat, twice,
         per_example, forward_mode]  # fmt: skip


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.__name__)
def test_modes_agree_to_the_bit(mode):
    """All sums stay below 2²⁴, so that float32 is exact."""
    program = jax.jit(functools.partial(mode, conv)).lower(X, W)
    assert "__onednn$convolution" in program.as_text()
    want = jax.jit(functools.partial(mode, by_lax))(X, W)
    for got in (program.compile()(X, W), mode(conv, X, W)):
        jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("mode", [gradients, over_both, scanned], ids=lambda mode: mode.__name__)
def test_modes_agree_without_jit(mode):
    with jax.disable_jit():
        got = mode(conv, X, W)
    jax.tree.map(np.testing.assert_array_equal, got, mode(by_lax, X, W))


@pytest.mark.parametrize("mode", [gradients, over_both, scanned], ids=lambda mode: mode.__name__)
def test_modes_agree_with_64_bit_types_on(mode, x64):
    got = jax.jit(functools.partial(mode, conv))(X, W)
    jax.tree.map(np.testing.assert_array_equal, got, mode(by_lax, X, W))
    assert jax.tree.leaves(got)[0].dtype == "float32"
    with pytest.raises(ValueError, match="float64 to float64 was not verified with oneDNN"):
        conv(X.astype("float64"), W.astype("float64"))


def test_donated_arrays_are_not_read_after_they_are_written():
    step = jax.jit(lambda x, w: conv(x, w) % 5 - 2, donate_argnums=0)
    got, want = jnp.asarray(X), X
    for _ in range(20):
        given, got = got, step(got, W)
        want = np.asarray(by_lax(want, W)) % 5 - 2
        assert given.is_deleted()
    np.testing.assert_array_equal(got, want)


def test_eight_threads_of_two_hundred_calls():
    shapes = [((1 + n % 3, 3 + n, 7 + n, 8), (4 + n, 3 + n, 3, 2 + n % 2)) for n in range(8)]
    programs = [
        (jax.jit(lambda x, w: jax.vjp(lambda x, w: conv(x, w), x, w)[1](conv(x, w))), whole(*x), whole(*w))
        for x, w in shapes
    ]
    want = [jax.jit(lambda x, w: jax.vjp(by_lax, x, w)[1](by_lax(x, w)))(x, w) for _, x, w in programs]

    def calls(number):
        program, x, w = programs[number]
        results = [program(x, w) for _ in range(200)]
        return all(
            np.array_equal(got, right)
            for result in results
            for got, right in zip(result, want[number], strict=True)
        )

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(calls, range(8)))


# -- memory ----------------------------------------------------------------------------------------

MIB = 1 << 20
LARGE = [
    dict(batch=8, in_channels=64, out_channels=64, spatial=(56, 56), kernel=(3, 3), padding=((1, 1), (1, 1))),
    dict(batch=4, in_channels=144, out_channels=144, groups=144, spatial=(56, 56), kernel=(3, 3),
         padding=((1, 1), (1, 1))),
    dict(batch=4, in_channels=3, out_channels=64, spatial=(112, 112), kernel=(7, 7), strides=(2, 2),
         padding=((3, 3), (3, 3))),
    dict(batch=1, in_channels=32, out_channels=32, groups=32, spatial=(56, 56), kernel=(31, 31),
         padding=((15, 15), (15, 15))),
    dict(batch=2, in_channels=512, out_channels=512, spatial=(14, 14), kernel=(3, 3),
         padding=((1, 1), (1, 1))),
    dict(batch=1, in_channels=16, out_channels=32, spatial=(16, 28, 28), kernel=(3, 3, 3),
         padding=((1, 1),) * 3),
]  # fmt: skip


def peak(role, spec, algorithm):
    """Bytes that a process grows by at most in its first runs, its arguments and program being there."""
    if refuses(ONEDNN, role, spec):
        return None
    operands = [jnp.asarray(v) for v in cases.operands(role, cases.normal(spec))]
    program = jax.jit(lambda a, b: convolve(role, a, b, spec, algorithm)).lower(*operands).compile()
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
    for _ in range(3):
        jax.block_until_ready(program(*operands))
    return _resident("VmHWM") - before


def _resident(what):
    line = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line[1]) << 10


def peaks(problems):
    """Prints what lax's and oneDNN's take, each in a fork of its own of a process that has not run JAX yet:
    what one freed and kept would be the other's."""
    each = [(role, spec, name) for spec in problems for role in ROLES for name in ("xla", "onednn")]
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        found = pool.starmap(peak, each, chunksize=1)
    for (role, spec, _), lax_takes, onednn_takes in zip(each[::2], found[::2], found[1::2], strict=True):
        if lax_takes is not None:
            print(lax_takes, onednn_takes, role, spec)


def test_the_process_takes_at_most_twice_what_lax_does_and_32_mib():
    """oneDNN's own memory is not in `memory_analysis()`: it is the process that is measured."""
    at_once = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # freed is given back
    environment = os.environ | at_once | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split(" ", 2) for line in done.stdout.splitlines()]
    assert len(lines) == len(ROLES) * len(LARGE)
    assert max(int(onednn_takes) for _, onednn_takes, _ in lines) > MIB, "something was measured"
    over = [line for line in lines if int(line[1]) > 2 * int(line[0]) + 32 * MIB]
    assert not over, over


if __name__ == "__main__":  # with --table, of the whole table as well
    peaks([ConvSpec.of(**large) for large in LARGE] + [case.spec for case in CASES if "--table" in sys.argv])
