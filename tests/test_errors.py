"""Every wrong argument, by message: the argument in backticks, what came, what would work."""

import functools
import inspect
import os
import pydoc
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jconv
import jconv.sharding
from jconv.algorithms import ALGORITHMS
from jconv.api import options, problem
from jconv.programs.tune import Tuned, collect
from jconv.spec import ROLES, ConvSpec

X = np.zeros((2, 8, 9, 7), "float32")
W = np.zeros((6, 8, 3, 3), "float32")
G = np.zeros((2, 6, 7, 5), "float32")
KEYS = jax.random.split(jax.random.key(0), (4, 4, 3, 3))

ARRAYS = {
    "list": (TypeError, ([[1.0]], W), "`x` must be an array, got list; wrap it in jnp.asarray"),
    "none": (TypeError, (None, W), "`x` must be an array, got NoneType; pass a jax or numpy array"),
    "function": (TypeError, (X, len), "`w` must be an array, got builtin_function_or_method; pass a jax"),
    "void": (TypeError, (X.view("V4"), W), "`x` must be an array of numbers, got one of |V4"),
    "records": (TypeError, (X, W.view([("a", "f4")])), "`w` must be an array of numbers, got one of [('a',"),
    "spans": (TypeError, (X.astype("m8[s]"), W), "`x` must be an array of numbers, got one of timedelta64"),
    "keys": (TypeError, (KEYS, KEYS), "`x` must be an array of numbers, got one of key<fry>"),
    "float": (TypeError, (X, 1.0), "`w` must be an array, got float"),
    "strings": (TypeError, (np.array(["a"]), W), "`x` must be an array of numbers, got one of <U1"),
    "objects": (TypeError, (X, np.array([None])), "`w` must be an array of numbers, got one of object"),
    "x_rank_low": (ValueError, (X[0, 0], W),
     "`x` must have 3 or 4 axes (batch if any, channels, 2 spatial), got"),
    "x_rank_high": (ValueError, (X[None], W), "`x` must have 3 or 4 axes"),
    "w_rank": (ValueError, (X, W[0]),
     "`w` must have 4 axes (in and out channels, 2 spatial), got shape (8, 3, 3)"),
    "channels": (ValueError, (X, W[:, :5]),
     "`w` (6, 5, 3, 3) takes 5 input channels, but `x` (2, 8, 9, 7) has 8"),
    "dtypes": (TypeError, (X, W.astype("float16")),
     "`w` is float16 but `x` is float32; cast one: w.astype(x.dtype)"),
    "bias_shape": (ValueError, (X, W, np.zeros(5, "float32")),
     "`b` must have shape (6,), one value per output"),
    "bias_rank": (ValueError, (X, W, np.zeros((6, 1), "float32")), "`b` must have shape (6,)"),
    "bias_dtype": (TypeError, (X, W, np.zeros(6, "int32")),
     "`b` is int32 but the output is float32; cast it"),
    "bias_list": (TypeError, (X, W, [0.0] * 6), "`b` must be an array, got list"),
    "kernel_too_large": (ValueError, (X[:, :, :2], W),
     "`w` covers (3, 3) positions with its dilation but the padded `x`"),
    "empty_kernel": (ValueError, (X, W[:, :, :0]), "`w` is empty: (6, 8, 0, 3)"),
    "no_outputs": (ValueError, (X, W[:0]), "`w` is empty: (0, 8, 3, 3)"),
    "empty_side": (ValueError, (X[:, :, :0], W), "`x` has an empty side: (0, 7)"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_wrong_arrays(name):
    kind, arguments, message = ARRAYS[name]
    with pytest.raises(kind, match=re.escape(message)):
        jconv.conv2d(*arguments)


TWO = "must be an int or 2 ints, one per spatial dimension"
NEGATIVE = "must be at least 0; jconv.conv_general_dilated takes negative padding"
PADS = "`padding` must be an int, 2 ints or 2 (lo, hi) pairs"
KNOBS = [
    (ValueError, dict(stride=0), "`stride`=0 must be at least 1"),
    (ValueError, dict(stride=(1, -2)), "`stride`=-2 must be at least 1"),
    (ValueError, dict(stride=(1, 1, 1)), f"`stride`=(1, 1, 1) {TWO}"),
    (ValueError, dict(stride=()), f"`stride`=() {TWO}"),
    (TypeError, dict(stride=2.0), f"`stride` {TWO}, got 2.0"),
    (TypeError, dict(stride=1.0), f"`stride` {TWO}, got 1.0"),
    (TypeError, dict(stride=True), f"`stride` {TWO}, got True"),
    (TypeError, dict(stride="2"), f"`stride` {TWO}, got '2'"),
    (TypeError, dict(stride=None), f"`stride` {TWO}, got None"),
    (TypeError, dict(stride=[[1], [1]]), f"`stride` {TWO}, got (1,)"),
    (TypeError, dict(stride={1, 2}), "`stride` must be made of ints, strings or tuples, got {1, 2}"),
    (TypeError, dict(stride=np.float32(2)), f"`stride` {TWO}"),
    (ValueError, dict(dilation=0), "`dilation`=0 must be at least 1"),
    (ValueError, dict(dilation=(2, -1)), "`dilation`=-1 must be at least 1"),
    (TypeError, dict(dilation=1.5), f"`dilation` {TWO}, got 1.5"),
    (ValueError, dict(dilation=5),
     "`w` covers (11, 11) positions with its dilation but the padded `x` has only (9, 7)"),
    (ValueError, dict(groups=3),
     "`groups`=3 must divide the 8 input channels of `x` (2, 8, 9, 7); choose 1, 2, 4 or 8"),
    (ValueError, dict(groups=4),
     "`groups`=4 must divide the 6 output channels of `w` (6, 8, 3, 3); choose 1, 2, 3 or 6"),
    (ValueError, dict(groups=2), "but `x` (2, 8, 9, 7) has 8 channels in 2 groups; `w` needs 4"),
    (ValueError, dict(groups=0), "`groups`=0 must be at least 1"),
    (TypeError, dict(groups=1.0), "`groups` must be an int, got 1.0"),
    (TypeError, dict(groups=True), "`groups` must be an int, got True"),
    (TypeError, dict(groups=[1, 1]), "`groups` must be an int, got (1, 1)"),
    (ValueError, dict(padding=-1), f"`padding`=-1 {NEGATIVE}"),
    (ValueError, dict(padding=((0, -2), (0, 0))), f"`padding`=-2 {NEGATIVE}"),
    (ValueError, dict(padding=(1, 1, 1)), "`padding`=(1, 1, 1) must be an int, 2 ints or 2 (lo, hi) pairs"),
    (ValueError, dict(padding=((1, 1, 1), (0, 0))), f"{PADS}, got the entry (1, 1, 1)"),
    (TypeError, dict(padding=1.5), f"{PADS}, got 1.5"),
    (TypeError, dict(padding=None), f"{PADS}, got None"),
    (TypeError, dict(padding=False), f"{PADS}, got False"),
    (TypeError, dict(padding=("same", "same")), f"{PADS}, got 'same'"),
    (TypeError, dict(padding={}), "`padding` must be made of ints, strings or tuples, got {}"),
    (ValueError, dict(padding="full"),
     "`padding`='full' is not known; choose one of same, valid, same_lower, causal"),
    (ValueError, dict(padding="causal"), "`padding`='causal' has a meaning in 1-D only"),
    (ValueError, dict(padding_mode="mirror"),
     "`padding_mode`='mirror' is not known; choose one of zeros, reflect"),
    (TypeError, dict(padding_mode=None), "`padding_mode` must be a string, got None"),
    (ValueError, dict(layout="NHCW"), "`layout`='NHCW' is not known; choose 'NCHW' or 'NHWC'"),
    (ValueError, dict(layout=""), "`layout`='' is not known"),
    (ValueError, dict(layout="NDHWC"), "`layout`='NDHWC' is not known; choose 'NCHW' or 'NHWC'"),
    (TypeError, dict(layout=1), "`layout` must be a string, got 1"),
    (ValueError, dict(algorithm="im2cool"), "`algorithm`='im2cool' is not known; choose one of auto, "),
    (TypeError, dict(algorithm=None), "`algorithm` must be a name or a jconv.Algorithm, got None"),
    (TypeError, dict(algorithm=["xla"]), "`algorithm` must be a name or a jconv.Algorithm, got ('xla',)"),
    (ValueError, dict(precision="best"),
     "`precision`='best' is not known; choose 'default', 'high', 'highest'"),
    (ValueError, dict(precision=("high",) * 3), "`precision`=('high', 'high', 'high') is not known"),
    (ValueError, dict(precision=2), "`precision`=2 is not known"),
    (ValueError, dict(precision=(None, "high")), "`precision`=(None, 'high') is not known"),
    (ValueError, dict(precision="F32_F32_F32"),
     "`precision`='F32_F32_F32' is for matrix products alone; choose 'default', 'high', 'highest'"),
    (ValueError, dict(precision=jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X3),
     "`precision`=DotAlgorithmPreset.BF16_BF16_F32_X3 is for matrix products alone; choose 'default'"),
    (TypeError, dict(stride=b"12"), f"`stride` {TWO}, got b'12'"),
    (TypeError, dict(padding=b"12"), f"{PADS}, got b'12'"),
    (ValueError, dict(stride=10**30), f"`stride`={10**30} must be at most 2147483647"),
    (ValueError, dict(dilation=(1, 10**30)), f"`dilation`={10**30} must be at most 2147483647"),
    (ValueError, dict(padding=10**30), f"`padding`={10**30} must be at most 2147483647"),
    (ValueError, dict(padding=((0, 2**31), 0)), "`padding`=2147483648 must be at most 2147483647"),
    (TypeError, dict(preferred_element_type="int8"), "`preferred_element_type`='int8' does not suit float32"),
    (ValueError, dict(preferred_element_type="\ud800"), "`preferred_element_type`='\\ud800' does not suit"),
    (TypeError, dict(preferred_element_type="foo"), "`preferred_element_type`='foo' does not suit float32"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "knobs", "message"), KNOBS, ids=lambda v: str(v) if isinstance(v, dict) else ""
)
def test_wrong_knobs(kind, knobs, message):
    with pytest.raises(kind, match=re.escape(message)):
        jconv.conv2d(X, W, **knobs)


def test_a_right_call_does_not_let_its_equal_but_wrong_twin_in():
    """1 == True == 1.0, and the border remembers what it has understood."""
    jconv.conv2d(X, W, stride=1, groups=1, padding=0)
    for wrong in (
        dict(stride=True),
        dict(stride=1.0),
        dict(groups=1.0),
        dict(padding=False),
        dict(padding=(0.0, 0)),
    ):
        with pytest.raises(TypeError, match=f"`{next(iter(wrong))}` must be"):
            jconv.conv2d(X, W, **dict(stride=1, groups=1, padding=0) | wrong)


def test_what_varies_in_a_trace_is_no_knob():
    with pytest.raises(TypeError, match=r"`stride` must be known when JAX traces.*static_argnames"):
        jax.jit(lambda s: jconv.conv2d(X, W, stride=s))(2)


def test_ints_of_any_make_are_ints():
    want = jconv.conv2d(X, W, stride=2, padding=1).shape
    for two in (np.int64(2), np.array(2), jnp.array([2, 2]), [2, np.int8(2)]):
        assert jconv.conv2d(X, W, stride=two, padding=np.uint8(1)).shape == want


def test_iterators_are_sequences():
    want = jconv.conv2d(X, W, stride=(2, 1), padding=((1, 0), (1, 2))).shape
    found = jconv.conv2d(X, W, stride=iter((2, 1)), padding=zip((1, 1), (0, 2), strict=True))
    assert found.shape == want


def test_every_precision_that_the_error_offers_is_taken_in_either_case():
    with pytest.raises(ValueError, match="is not known; choose") as error:
        jconv.conv2d(X, W, precision="best")
    names = re.findall(r"'(\w+)'", str(error.value).partition("choose")[2])
    assert len(names) == 8
    for name in names:
        want = jconv.choose(X, W, precision=jax.lax.Precision(name)).spec
        for value in (name, name.upper(), (name.title(), jax.lax.Precision(name))):
            assert jconv.choose(X, W, precision=value).spec == want


LAYOUTS = {  # x, w, knobs, the end of the message
    "both": ((1, 32, 32, 3), (3, 3, 3, 16), {}, "; `w` needs 32; or pass layout='NHWC'"),
    "both_last": ((1, 3, 32, 32), (16, 3, 3, 3), dict(layout="nhwc"), "; or pass layout='NCHW'"),
    "image": ((1, 6, 6, 4), (4, 4, 3, 3), {},
     "; or pass layout='NHWC': kernels are then (kh, kw, c_in, c_out)"),
    "kernel": ((1, 32, 32, 3), (16, 3, 5, 5), dict(layout="NHWC"),
     "; with layout='NHWC' kernels are (kh, kw, c_in, c_out)"),
    "kernel_first": ((1, 3, 9, 9), (5, 5, 3, 16), {},
     "; with layout='NCHW' kernels are (c_out, c_in, kh, kw)"),
    "no_batch": ((32, 32, 3), (3, 3, 3, 16), {}, "; or pass layout='NHWC'"),
    "groups": ((1, 30, 30, 8), (3, 3, 1, 8), dict(groups=8), "10, 15 or 30; or pass layout='NHWC'"),
    "neither": ((1, 6, 6, 5), (4, 4, 3, 3), {}, "; `w` needs 6"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_channels_that_agree_in_the_other_layout(name):
    x, w, knobs, end = LAYOUTS[name]
    with pytest.raises(ValueError, match=re.escape(end) + "$"):
        jconv.conv2d(np.zeros(x, "float32"), np.zeros(w, "float32"), **knobs)


def test_layouts_are_called_what_they_are_in_other_dimensions():
    with pytest.raises(ValueError, match=r"; or pass layout='NWC'$"):
        jconv.conv1d(np.zeros((1, 32, 3), "float32"), np.zeros((5, 3, 16), "float32"))
    with pytest.raises(ValueError, match=r"'NDHWC': kernels are then \(kd, kh, kw, c_in, c_out\)$"):
        jconv.conv3d(np.zeros((1, 8, 8, 8, 3), "float32"), np.zeros((16, 3, 5, 5, 5), "float32"))


def test_errors_come_before_tracing_goes_deeper():
    """The same message under jit, grad and vmap."""
    wrong = functools.partial(jconv.conv2d, groups=3)
    loss = lambda x, w: wrong(x, w).sum()  # noqa: E731
    for fn in (jax.jit(wrong), jax.grad(loss), jax.vmap(wrong, (0, None))):
        with pytest.raises(ValueError, match="`groups`=3 must divide the 8 input channels of `x`"):
            fn(X, W)


def test_a_named_algorithm_refuses_and_says_why():
    picky = jconv.Algorithm("picky", lambda x, w, spec: x, lambda spec: "it is never in the mood")
    message = "`algorithm`='picky' refuses 3×3 8→6 on 2×9×7, float32: it is never in the mood; choose 'auto'"
    with pytest.raises(ValueError, match=re.escape(message)):
        jconv.conv2d(X, W, algorithm=picky)


@pytest.mark.parametrize(
    ("conv", "message"),
    [
        (
            jconv.conv1d,
            "`x` must have 2 or 3 axes (batch if any, channels, 1 spatial), got shape (2, 8, 9, 7)",
        ),
        (jconv.conv3d, "`w` must have 5 axes (in and out channels, 3 spatial), got shape (6, 8, 3, 3)"),
    ],
)
def test_another_number_of_dimensions(conv, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        conv(X, W)


def test_what_an_error_says_takes_negative_padding_does():
    with pytest.raises(ValueError, match=r"-1 must be .* jconv\.conv_general_dilated_patches takes negative"):
        jconv.unfold(X, 3, padding=-1)
    crop = [(-1, 0), (0, -1)]
    cropped = X[:, :, 1:, :-1]
    assert jconv.conv_general_dilated(X, W, (1, 1), crop).shape == jconv.conv2d(cropped, W).shape
    columns = jconv.conv_general_dilated_patches(X, (3, 3), (1, 1), crop)
    assert columns.reshape(2, 72, -1).shape == jconv.unfold(cropped, 3).shape


def test_layouts_of_more_than_three_dimensions():
    x, w = np.zeros((1, 1, 5, 5, 5, 5), "float32"), np.zeros((1, 1, 2, 2, 2, 2), "float32")
    with pytest.raises(ValueError, match="`layout`='NCDHW' is not known; choose 'NCHW' or 'NHWC'"):
        jconv.choose(x, w, layout="NCDHW")
    assert jconv.choose(x, w, layout="NCHW").spec == jconv.choose(x, w).spec


SHORT = "must have two channel or batch axes and at least one spatial"
GRADIENTS = {
    "input_g": (ValueError, "grad_input", (X.shape, W, G[..., 1:]),
     "`g` has shape (2, 6, 7, 4), but the output"),
    "input_g_rank": (ValueError, "grad_input", (X.shape, W, G[0]),
     "`g` has shape (6, 7, 5), but the output of this"),
    "input_int": (TypeError, "grad_input", (9, W, G), "`input_shape` must be a sequence of ints, got 9"),
    "input_str": (TypeError, "grad_input", ("abcd", W, G),
     "`input_shape` must be a sequence of ints, got 'abcd'"),
    "input_float": (TypeError, "grad_input", ((2, 8, 9.0, 7), W, G), "`input_shape` must be an int, got 9.0"),
    "input_negative": (ValueError, "grad_input", ((2, 8, -9, 7), W, G),
     "`input_shape`=-9 must be at least 0"),
    "input_short": (ValueError, "grad_input", ((8, 9), W, G), f"`input_shape`=(8, 9) {SHORT}"),
    "input_channels": (ValueError, "grad_input", ((2, 7, 9, 7), W, G),
     "but `input_shape` (2, 7, 9, 7) has 7 channels"),
    "input_kernel": (ValueError, "grad_input", (X.shape, W[0, 0], G),
     "`w` must have two channel and at least one"),
    "input_dtype": (TypeError, "grad_input", (X.shape, W, G.astype(int)), "`g` is int32 but `w` is float32"),
    "kernel_g": (ValueError, "grad_kernel", (X, W.shape, G[:1]),
     "`g` has shape (1, 6, 7, 5), but the output of this"),
    "kernel_none": (TypeError, "grad_kernel", (X, None, G),
     "`kernel_shape` must be a sequence of ints, got None"),
    "kernel_channels": (ValueError, "grad_kernel", (X, (6, 5, 3, 3), G),
     "`kernel_shape` (6, 5, 3, 3) takes 5 input"),
    "kernel_rank": (ValueError, "grad_kernel", (X, (6, 8, 3), G), "`x` must have 2 or 3 axes"),
    "kernel_list_x": (TypeError, "grad_kernel", ([1.0], W.shape, G), "`x` must be an array, got list"),
    "kernel_dtype": (TypeError, "grad_kernel", (X, W.shape, G.astype("float16")),
     "`g` is float16 but `x` is float32"),
}  # fmt: skip


@pytest.mark.parametrize("name", GRADIENTS)
def test_wrong_gradients(name):
    kind, function, arguments, message = GRADIENTS[name]
    with pytest.raises(kind, match=re.escape(message)):
        getattr(jconv, function)(*arguments)


DOORS = {
    "conv2d": (jconv.conv2d, X, W), "conv_transpose2d": (jconv.conv_transpose2d, X, W.swapaxes(0, 1)),
    "grad_input": (jconv.grad_input, X.shape, W, G), "grad_kernel": (jconv.grad_kernel, X, W.shape, G),
    "unfold": (jconv.unfold, X, 3), "fold": (jconv.fold, np.zeros((2, 72, 35), "float32"), (9, 7), 3),
    "choose": (jconv.choose, X, W), "tune": (jconv.tune, X, W),
}  # fmt: skip
WRONG = [dict(stride=0), dict(dilation=0), dict(padding=-1), dict(groups=0), dict(groups=-1), dict(groups=7),
         dict(layout="no"), dict(algorithm="no"), dict(precision="no"), dict(padding_mode="no")]  # fmt: skip
EVERYWHERE = [(door, knobs) for door, (function, *_) in DOORS.items() for knobs in WRONG
              if set(knobs) <= set(inspect.signature(function).parameters)]  # fmt: skip


@pytest.mark.parametrize(("door", "knobs"), EVERYWHERE, ids=str)
def test_what_is_wrong_at_one_door_is_wrong_at_every_other(door, knobs):
    function, *arguments = DOORS[door]
    with pytest.raises(ValueError, match=f"^`{next(iter(knobs))}`="):
        function(*arguments, **knobs)


# -- names of options --------------------------------------------------------------------------------

POSITIONAL = [
    (lambda: jconv.conv2d(X, W, None, 2), "conv2d() takes its arrays by position and the rest by name"),
    (lambda: jconv.conv2d(X, W, None, 2, (1, 0), 1), "conv2d(…, stride=2, padding=(1, 0), dilation=1)"),
    (lambda: jconv.conv_transpose2d(X, W, None, 2, 0, 1), "(…, stride=2, padding=0, output_padding=1)"),
    (lambda: jconv.grad_input(X.shape, W, G, 1), "grad_input() takes its arrays by position"),
    (lambda: jconv.grad_kernel(X, W.shape, G, 1, 1), "grad_kernel(…, stride=1, padding=1)"),
    (lambda: jconv.unfold(X, 3, 1, 2), "unfold(…, dilation=1, padding=2)"),
    (lambda: jconv.conv(X, W, None, np.ones(99)), "stride=an array of shape (99,)"),
    (lambda: jconv.choose(X, W, 2), "choose() takes `x` and `w` by position, got 1 more"),
    (lambda: jconv.conv2d(X, W, strides=2), "conv2d() has no option `strides`; did you mean `stride`?"),
    (lambda: jconv.conv2d(X, W, data_format="NHWC"), "no option `data_format`; here it is called `layout`"),
    (lambda: jconv.conv2d(X, W, output_size=3), "no option `output_size`; choose from stride, padding"),
    (lambda: jconv.conv2d(X, W, output_padding=1), "conv2d() has no option `output_padding`"),
    (lambda: jconv.tune(X, W, algorithm="xla"), "tune() has no option `algorithm`"),
    (lambda: jconv.conv2d(X, W, W[:, 0, 0, 0], bias=W[:, 0, 0, 0]), "`b` and `bias` are two names of one"),
]  # fmt: skip


def test_the_second_name_of_the_bias():
    b = np.arange(6, dtype="float32")
    np.testing.assert_array_equal(jconv.conv2d(X, W, bias=b), jconv.conv2d(X, W, b))
    wt, bt = W[:, :4].swapaxes(0, 1).repeat(2, 0), b
    np.testing.assert_array_equal(jconv.conv_transpose2d(X, wt, bias=bt), jconv.conv_transpose2d(X, wt, bt))
    with pytest.raises(ValueError, match=r"`b` must have shape \(6,\)"):
        jconv.conv2d(X, W, bias=b[:5])


CONVS = [getattr(jconv, f"{kind}{d}") for kind in ("conv", "conv_transpose") for d in ("", "1d", "2d", "3d")]
FUNCTIONS = [*CONVS, jconv.grad_input, jconv.grad_kernel, jconv.choose, jconv.tune,
             jconv.sharding.conv, jconv.sharding.conv_transpose]  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__qualname__)
def test_a_signature_shows_every_option_with_what_is_usual(function):
    """As `help`, notebooks and `inspect.signature` read it; nothing is hidden behind `**options`."""
    parameters = inspect.signature(function).parameters
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    assert parameters["stride"].default == 1
    assert parameters["padding_mode"].default == "zeros"
    text = " ".join(pydoc.render_doc(function, renderer=pydoc.plaintext).split())
    assert "stride=1, padding=0, dilation=1, groups=1" in text
    documented = " ".join(function.__doc__.split())
    assert "as in `conv" in documented or all(name in documented for name in parameters)


def test_options_are_static_names_for_jit():
    call = jax.jit(jconv.conv2d, static_argnames=("stride", "padding"))
    assert call(X, W, stride=2, padding="same").shape == (2, 6, 5, 4)


def test_a_type_checker_knows_every_name_of_an_algorithm():
    assert set(get_args(options.AlgorithmName)) == {"auto", "portable", "fastest", *ALGORITHMS}


TYPED = """
import jax
import jconv
x = jax.numpy.ones((1, 1, 4, 4))
y: jax.Array = jconv.conv2d(x, x, stride=2, padding="same", algorithm="im2col", layout="NHWC", bias=None)
z: jax.Array = jconv.conv_transpose(x, x, output_size=(8, 8), padding_mode="circular")
name: str = jconv.choose(x, (1, 1, 3, 3), role="grad_input").algorithm.name
several: int = len(jconv.choose(lambda x: x, x))
jconv.conv2d(x, x, algorithm="im2cool")
jconv.conv2d(x, x, layout="NHCW")
jconv.conv2d(x, x, padding="sane")
jconv.conv2d(x, x, strides=2)
jconv.conv2d(x, x, None, 2)
jconv.grad_input(x.shape, x, x, output_size=3)
"""


def test_a_type_checker_finds_what_is_mistyped(tmp_path):
    pytest.importorskip("mypy", reason="mypy is an optional checker")
    (tmp_path / "typed.py").write_text(TYPED)
    root = str(Path(jconv.__file__).parent.parent)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--follow-imports=silent",
        "--cache-dir",
        str(tmp_path),
        "typed.py",
    ]
    environment = os.environ | {"MYPYPATH": root}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    wrong = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    assert wrong == {9, 10, 11, 12, 13, 14}, done.stdout + done.stderr


def test_an_image_that_is_cut_is_padded_with_zeros():
    for function in (jconv.sharding.conv, jconv.sharding.conv_transpose):
        with pytest.raises(
            ValueError, match="`padding_mode`='reflect': an image that is cut is padded with 'z"
        ):
            function(X, W, spatial_axes=("rows", None), padding_mode="reflect")


# -- what an error quotes ----------------------------------------------------------------------------

LARGE = np.zeros((8, 64, 56, 56), "float32")
LONG = [
    lambda: jconv.grad_input(LARGE, W, G),
    lambda: jconv.grad_input(jnp.asarray(LARGE), W, G),
    lambda: jconv.grad_kernel(X, LARGE, G),
    lambda: jconv.grad_input(tuple(range(1, 100_000)), W, G),
    lambda: jconv.conv2d(X, W, stride=LARGE),
    lambda: jconv.conv2d(X, W, padding=LARGE.tolist()),
    lambda: jconv.conv2d(X, W, stride=tuple(range(1, 100_000))),
    lambda: jconv.conv2d(X, W, padding="same" * 10_000),
    lambda: jconv.conv2d(X, W, layout=LARGE),
    lambda: jconv.conv2d(X, W, preferred_element_type="float" * 10_000),
    lambda: jconv.conv2d(X, W, algorithm=LARGE),
    lambda: jconv.conv2d(X, W, precision=LARGE),
    lambda: jconv.conv2d(X, W, groups=LARGE),
    lambda: jconv.conv2d(X, W, padding_mode={"mode": LARGE}),
    lambda: jconv.conv_transpose2d(X, W, output_padding=tuple(range(100_000))),
    lambda: jconv.conv_transpose2d(X, W, output_size=LARGE),
    lambda: jconv.unfold(X, LARGE),
    lambda: jconv.unfold(X, tuple(range(100_000))),
    lambda: jconv.tune(LARGE),
    lambda: jconv.choose(LARGE),
    lambda: jconv.choose(X, W, platform=LARGE),
    lambda: jconv.ConvSpec.of(spatial=(4,), kernel=LARGE),
    lambda: jconv.ConvSpec.of(spatial=tuple(range(100_000)), kernel=(3,)),
]


@pytest.mark.parametrize("call", LONG, ids=range(len(LONG)))
def test_no_message_prints_an_array_or_a_long_tuple(call):
    with pytest.raises((TypeError, ValueError)) as error:
        call()
    assert str(error.value).startswith("`"), str(error.value)[:200]
    assert len(str(error.value)) < 500


def test_the_array_instead_of_its_shape():
    message = "`input_shape` must be a sequence of ints, got an array of shape (2, 8, 9, 7); pass its .shape"
    with pytest.raises(TypeError, match=re.escape(message)):
        jconv.grad_input(X, W, G)
    with pytest.raises(TypeError, match=r"\(2, 8, 9, 7\); the order is grad_input\(input_shape, w, g\)"):
        jconv.grad_input(W, X.shape, G)
    with pytest.raises(TypeError, match=r"the order is grad_kernel\(x, kernel_shape, g\)"):
        jconv.grad_kernel(W.shape, X, G)


# -- kernels that lie another way --------------------------------------------------------------------


@pytest.mark.parametrize("multiplier", [1, 2, 16])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_depthwise_kernel_as_keras_stores_it(multiplier, layout):
    """The advice is followed, and computes what Keras means: output channel c·multiplier + m."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(-4, 5, (1, 8, 8, 16)), rng.integers(-4, 5, (3, 3, 16, multiplier))
    x, w = x.astype("float32"), w.astype("float32")
    given = x if layout == "NHWC" else x.transpose(0, 3, 1, 2)
    with pytest.raises(ValueError, match=r"as Keras stores it.*write w\.reshape") as error:
        jconv.conv2d(given, w, groups=16, layout=layout)
    advice = str(error.value).rpartition("write ")[2]
    found = jconv.conv2d(given, eval(advice, {"w": w}), groups=16, layout=layout)
    found = found if layout == "NHWC" else found.transpose(0, 2, 3, 1)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    expected = np.einsum("npqcrs,rscm->npqcm", windows, w).reshape(1, 6, 6, -1)
    np.testing.assert_array_equal(found, expected)


def test_the_groups_that_a_kernel_is_made_for():
    with pytest.raises(ValueError, match=r"`w` .* takes 4.*; `w` \(6, 4, 3, 3\) fits `groups`=2$"):
        jconv.conv2d(X, W[:, :4])
    assert jconv.conv2d(X, W[:, :4], groups=2).shape == (2, 6, 7, 5)


IMPROBABLE = {  # function, x, w, knobs, how the kernel is read
    "oihw_as_hwio": (jconv.conv2d, (1, 32, 32, 3), (16, 3, 3, 3), dict(layout="NHWC"), "16×3 taps"),
    "hwio_as_oihw": (jconv.conv2d, (1, 3, 32, 32), (3, 3, 3, 16), {}, "3×16 taps"),
    "volume": (jconv.conv3d, (1, 16, 16, 16, 3), (8, 3, 3, 3, 3), dict(layout="NDHWC"), "8×3×3 taps"),
    "transposed": (jconv.conv_transpose2d, (1, 8, 8, 3), (3, 16, 3, 3), dict(layout="NHWC"), "3×16 taps"),
}


@pytest.mark.parametrize("case", IMPROBABLE)
def test_a_kernel_that_fits_by_accident_is_warned_about_once(case):
    function, x, w, knobs, taps = IMPROBABLE[case]
    x, w = np.zeros(x, "float32"), np.zeros(w, "float32")
    jax.clear_caches()
    problem.understand.cache_clear()
    with pytest.warns(UserWarning, match=taps) as record:
        function(x, w, **knobs)
    assert record[0].filename == __file__
    function(x, w, **knobs)  # a second one would be an error here


@pytest.mark.parametrize(
    "w", [(3, 3, 3, 3), (3, 3, 3, 16), (1, 3, 3, 3), (7, 1, 3, 7), (5, 5, 3, 3)], ids=str
)
def test_probable_kernels_are_not_warned_about(w):
    jconv.conv2d(np.zeros((1, 32, 32, 3), "float32"), np.zeros(w, "float32"), layout="NHWC")


# -- a user's own algorithm ---------------------------------------------------------------------------


def xla(x, w, spec):
    return ALGORITHMS["xla"].forward(x, w, spec)


OWN = {
    "shape": (ValueError, lambda x, w, s: x, "returned the shape (2, 9, 7, 8); (2, 7, 5, 6) was due"),
    "transposed": (ValueError, lambda x, w, s: xla(x, w, s).mT, "(2, 7, 6, 5); (2, 7, 5, 6) was due"),
    "dtype": (TypeError, lambda x, w, s: xla(x, w, s).astype(int), "returned int32; float32 was due"),
    "nothing": (TypeError, lambda x, w, s: None, "must return an array, got NoneType"),
}


@pytest.mark.parametrize("case", OWN)
@pytest.mark.parametrize("how", ["eager", "jit", "grad", "vmap"])
def test_an_own_algorithm_that_is_wrong_is_named(case, how):
    kind, forward, message = OWN[case]
    own = jconv.Algorithm("mine", forward)
    call = functools.partial(jconv.conv2d, algorithm=own)
    calls = {
        "eager": lambda: call(X, W),
        "jit": lambda: jax.jit(call)(X, W),
        "grad": lambda: jax.grad(lambda w: call(X, w).sum())(W),
        "vmap": lambda: jax.vmap(call, (0, None))(X[:, None], W),
    }
    with pytest.raises(kind, match=r"`algorithm`='mine': its forward of 3×3 8→6 on 2×9×7, float32") as error:
        calls[how]()
    assert message in str(error.value)


def test_the_gradients_of_an_own_algorithm_are_held_to_the_spec_too():
    own = jconv.Algorithm("mine", xla, grad_kernel=lambda x, g, spec: g)
    with pytest.raises(ValueError, match=r"its grad_kernel of .* the shape .*\(3, 3, 8, 6\) was due"):
        jax.grad(lambda w: jconv.conv2d(X, w, algorithm=own).sum())(W)
    right = jconv.Algorithm("mine", xla)
    np.testing.assert_array_equal(jconv.conv2d(X, W, algorithm=right), jconv.conv2d(X, W))


# -- choose, tune ------------------------------------------------------------------------------------


def test_choose_takes_arrays_shapes_with_a_dtype_specs_and_functions():
    want = jconv.choose(X, W, stride=2, groups=1)
    of = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in (X, W)]
    for x, w in [of, (X.shape, W.shape), (list(X.shape), np.array(W.shape)), (X.shape, W), (X, W.shape)]:
        assert jconv.choose(x, w, stride=2).spec == want.spec
    half = jconv.choose(X.shape, W.shape, stride=2, dtype="bfloat16").spec
    assert half == jconv.choose(jnp.asarray(X, "bfloat16"), jnp.asarray(W, "bfloat16"), stride=2).spec
    assert jconv.choose(want.spec).spec == want.spec
    (found,) = jconv.choose(lambda x, w: jconv.conv2d(x, w, stride=2), X, W)
    assert (found.spec, found.role) == (want.spec, "forward")
    roles = [c.role for c in jconv.choose(jax.grad(lambda w: (jconv.conv2d(X, w) ** 2).sum()), W)]
    assert sorted(roles) == ["forward", "grad_kernel"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jconv.choose(X, W, dtype="float32"), "`dtype`='float32' came with an array of float32"),
        (lambda: jconv.choose(X.shape, (6, 5, 3, 3)), "`w` (6, 5, 3, 3) takes 5 input channels"),
        (lambda: jconv.choose(X), "`w` must be an array or a shape, got None"),
        (lambda: jconv.choose(len, X, role="grad_input"), "`role`='grad_input' came with a function"),
        (lambda: jconv.tune(X), "`w` must be an array or a shape, got None"),
        (lambda: jconv.tune(X, W, strides=2), "tune() has no option `strides`; did you mean `stride`?"),
        (lambda: jconv.tune(len, X, stride=2), "`stride` goes with an input and a kernel"),
    ],
)
def test_what_choose_and_tune_refuse(call, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        call()


def test_tune_takes_what_choose_takes():
    want = jconv.choose(X, W, stride=2, padding=1).spec
    for x, w in [(X, W), (X.shape, W.shape)]:
        assert set(collect(x, w, stride=2, padding=1)) == {(want, role) for role in ROLES}


def test_what_choose_and_tune_return_prints_well_where_it_is_typed():
    choice = jconv.choose(X, W)
    assert repr(choice) == str(choice)
    tuned = Tuned(())
    assert repr(tuned) == str(tuned)


# -- misspelt --------------------------------------------------------------------------------------

SPEC = dict(spatial=(5, 5), kernel=(3, 3))
MISSPELT = {
    "ConvSpec.of, as in conv2d": (lambda: ConvSpec.of(**SPEC, stride=2), "`stride`; did you mean `strides`?"),
    "ConvSpec.of, PyTorch's": (lambda: ConvSpec.of(**SPEC, dilation=2), "`dilation`; here it is called `rhs"),
    "ConvSpec.of, far off": (lambda: ConvSpec.of(**SPEC, layout="NHWC"), "`layout`; choose from spatial"),
    "replace": (lambda: ConvSpec.of(**SPEC).replace(stride=(2,)), "`stride`; did you mean `strides`?"),
    "accelerate": (lambda: jconv.accelerate(len, algoritm="auto"), "`algoritm`; did you mean `algorithm`?"),
    "accelerate, otherwise": (lambda: jconv.accelerate(len, policy="auto"), "`policy`; here it is called `"),
    "accelerated": (lambda: jconv.accelerated(algo="auto"), "`algo`; did you mean `algorithm`?"),
    "install": (lambda: jconv.install(method="auto"), "`method`; here it is called `algorithm`"),
    "installed": (lambda: jconv.installed(algoritm="auto"), "`algoritm`; did you mean `algorithm`?"),
    "unfold": (lambda: jconv.unfold(X, 3, strides=2), "`strides`; did you mean `stride`?"),
    "fold": (lambda: jconv.fold(X, 3, kernel=2), "`kernel`; did you mean `kernel_size`?"),
    "im2col": (lambda: jconv.im2col(X, 3, pad=2), "`pad`; did you mean `padding`?"),
    "col2im": (lambda: jconv.col2im(X, 3, 3, dilations=2), "`dilations`; did you mean `dilation`?"),
    "Algorithm": (lambda: jconv.Algorithm("mine", foward=len), "`foward`; did you mean `forward`?"),
    "choose": (lambda: jconv.choose(X, W, strid=2), "`strid`; did you mean `stride`?"),
    "tune": (lambda: jconv.tune(X, W, strid=2), "`strid`; did you mean `stride`?"),
    "tune, its own": (lambda: jconv.tune(X, W, round=2), "`round`; did you mean `rounds`?"),
    "tune of a function": (lambda: jconv.tune(len, X, round=2), "`round`; did you mean `rounds`?"),
    "tune of a spec": (lambda: jconv.tune(ConvSpec.of(**SPEC), round=2), "`round`; did you mean `rounds`?"),
    "explain": (lambda: jconv.explain(X, W, strid=2), "`strid`; did you mean `stride`?"),
    "grad_input": (lambda: jconv.grad_input(X.shape, W, X, strid=2), "`strid`; did you mean `stride`?"),
    "conv_transpose2d": (lambda: jconv.conv_transpose2d(X, W, outpadding=1), "`outpadding`; did you mean `"),
}  # fmt: skip


@pytest.mark.parametrize("fn", [jconv.ConvSpec.of, jconv.accelerate, jconv.unfold, jconv.Algorithm])
def test_its_signature_is_shown_all_the_same(fn):
    names = [*inspect.signature(fn).parameters]
    assert names[0] in ("spatial", "fn", "x", "name")
    assert "kwargs" not in names


# -- what choose, tune and explain take ------------------------------------------------------------


@pytest.mark.parametrize("form", ["arrays", "numpy", "avals", "shapes", "spec", "specs", "pairs"])
def test_explain_takes_what_choose_and_tune_take(form):
    w = W
    options = dict(stride=2, padding=1)
    spec = jconv.choose(X, w, **options).spec
    like = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (X, w)]
    arguments, options = {
        "arrays": ((jnp.asarray(X), jnp.asarray(w)), options), "numpy": ((X, w), options),
        "avals": (like, options), "shapes": ((X.shape, list(w.shape)), options | {"dtype": "float32"}),
        "spec": ((spec,), {}), "specs": (([spec],), {}),
        "pairs": (([(spec, role) for role in ROLES],), {}),
    }[form]  # fmt: skip
    table = jconv.explain(*arguments, **options)
    assert [(row.spec, row.role) for row in table] == [(spec, role) for role in ROLES]
    for row in table:
        assert row.algorithm == jconv.choose(spec, role=row.role).algorithm.name
        assert row.taken
    assert set(collect(*arguments, **options)) == {(spec, role) for role in ROLES}
    assert str(table)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((3,), {}, "`fn_or_specs` must be a function, ConvSpecs or"),
        ((None,), {}, "`fn_or_specs` must be a function, ConvSpecs or"),
        (("im2col",), {}, "`fn_or_specs` must be a function, ConvSpecs or"),
        (([3, 4.5],), {}, "`fn_or_specs` must be a function, ConvSpecs or"),
        ((X,), {}, "`w` must be an array or a shape, got None"),
        ((X, W, W), {}, "takes an input and its kernel by position, got 1 more"),
        ((ConvSpec.of(**SPEC), W), {}, "arguments go with a function; specs take none"),
        ((ConvSpec.of(**SPEC),), dict(role="forward"), r"`role` .* a spec: \[\(spec, 'forward'\)\]"),
        ((ConvSpec.of(**SPEC),), dict(stride=2), "`stride` goes with an input and a kernel, not with specs"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("door", [jconv.explain, collect])
def test_explain_and_tune_refuse_alike(door, arguments, options, message):
    with pytest.raises(TypeError, match=message):
        door(*arguments, **options)


# -- what nobody means -----------------------------------------------------------------------------

KEY = jax.random.key(0)
NONSENSE = {
    "a key of random numbers": (lambda: jconv.conv2d(X, W, stride=KEY), "`stride` must be made of ints"),
    "a shape of keys": (lambda: jconv.grad_input(KEY, W, G), "`input_shape` must be made of ints"),
    "windows of keys": (lambda: jconv.unfold(X, KEY), "`kernel_size` must be made of ints"),
    "a function that is none": (lambda: jconv.Algorithm("mine", len, workspace=X),
     "`workspace` of Algorithm 'mine' must be a function, got an array of shape"),
    "a word for a flag": (lambda: jconv.Algorithm("mine", len, exact="yes"),
     "`exact` of Algorithm 'mine' must be a bool, got 'yes'"),
}  # fmt: skip


class Unspeakable:
    """A value without a hash that cannot even be printed."""

    __hash__ = None

    def __repr__(self):
        raise RuntimeError("no")


MASKED, BACKWARDS = np.ma.ones((6, 8, 3, 3), "float32"), W.astype(">f4")
SHARD = functools.partial(jconv.sharding.conv, X, W)
NONSENSE |= {
    "a masked array": (lambda: jconv.conv2d(X, MASKED), "`w` must be an array, got a masked one; fill it"),
    "bytes that lie backwards": (lambda: jconv.conv2d(X, BACKWARDS), "`w` is float32 in an order of bytes"),
    "long doubles": (lambda: jconv.conv2d(X.astype("longdouble"), W), "a size that JAX does not have; cast"),
    "a record": (lambda: jconv.conv2d(X, W, stride=np.zeros(1, "V4")[0]), "`stride` must be made of ints"),
    "no words for it": (lambda: jconv.conv2d(X, W, padding=Unspeakable()),
     "`padding` must be made of ints, strings or tuples, got a value of type Unspeakable"),
    "axes that are an array": (lambda: SHARD(spatial_axes=LARGE),
     "`spatial_axes` must have one entry per spatial dimension, got an array of shape (8, 64, 56, 56)"),
    "axes that are ints": (lambda: SHARD(spatial_axes=(1, None)),
     "`spatial_axes`=(1, None) must hold names of mesh axes"),
    "no axes": (lambda: SHARD(spatial_axes=()), "`spatial_axes` must have one entry per spatial dimension"),
    "a mode that is an array": (lambda: SHARD(spatial_axes=(None, None), padding_mode=LARGE),
     "`padding_mode` must be made of ints, strings"),
    "progress that is none": (lambda: jconv.tune(X, W, progress=X), "`progress` must be True or False or a"),
    "again, how often": (lambda: jconv.tune(X, W, again=X), "`again` must be True or False, got an array"),
    "nothing and its kernel": (lambda: jconv.explain(None, W), "`fn_or_specs` must be a function, ConvSpecs"),
    "a spec and a kernel": (lambda: jconv.tune(ConvSpec.of(**SPEC), W),
     "`args`: arguments go with a function"),
}  # fmt: skip


def _images():
    yield W


async def _images_later():
    yield W


class Later:
    async def __call__(self):
        return W


HERE = ConvSpec.of(**SPEC)
NONSENSE |= {
    "a dtype": (lambda: jconv.choose((1, 4, 8, 8), (4, 4, 3, 3), dtype="flot32"),
                "`dtype`='flot32' is no dtype"),
    "a size": (lambda: jconv.choose((1.0, 4, 8, 8), (4, 4, 3, 3)), "array or a shape, whose sizes are ints"),
    "a spec's dtype": (lambda: jconv.explain(HERE.replace(x_dtype=float)), "of a ConvSpec must be a name"),
    "a result": (lambda: jconv.accelerate(3),
                 "`fn` must be callable, got int; pass the function, not its result"),
    "a generator": (lambda: jconv.accelerate(_images), "computes after its call has returned"),
    "an asynchronous one": (lambda: jconv.accelerate(_images_later), "computes after its call has returned"),
    "a coroutine's object": (lambda: jconv.accelerate(Later()), "computes after its call has returned"),
    "a class": (lambda: jconv.accelerate(Later), "`fn`=Later is a class; accelerate an instance"),
    "a name": (lambda: jconv.Algorithm(5, xla), "`name` of an Algorithm must be a string, got 5"),
    "a forward": (lambda: jconv.Algorithm("mine", None),
                  "`forward` of Algorithm 'mine' must be a function, got None"),
    "rejects": (lambda: jconv.Algorithm("mine", xla, rejects="no"),
                "`rejects` of Algorithm 'mine' must be a function"),
    "a gradient": (lambda: jconv.Algorithm("mine", xla, grad_input=1),
                   "`grad_input` of Algorithm 'mine' must be"),
}  # fmt: skip
REFUSED = [(call, "() has no option " + message) for call, message in MISSPELT.values()]
REFUSED += [*POSITIONAL, *NONSENSE.values()]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_nobody_means_is_named(call, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        call()


OF_LAX = {
    "conv_general_dilated": lambda x, w: jconv.lax.conv_general_dilated(x, w, (1, 1), "SAME"),
    "conv_transpose": lambda x, w: jconv.lax.conv_transpose(x, w, (1, 1), "SAME"),
    "patches": lambda x, _: jconv.lax.conv_general_dilated_patches(x, (3, 3), (1, 1), "SAME"),
    "local": lambda x, w: jconv.lax.conv_general_dilated_local(x, w, (1, 1), "SAME", (3, 3)),
}
NO_ARRAYS = {
    "none": None,
    "shape": jax.ShapeDtypeStruct(X.shape, "float32"),
    "text": "a",
    "bytes": X.astype(">f4"),
}


@pytest.mark.parametrize("value", NO_ARRAYS)
@pytest.mark.parametrize("call", OF_LAX)
def test_what_is_no_array_is_named_where_lax_names_none(call, value):
    with pytest.raises(TypeError, match=r"^`lhs` "):
        OF_LAX[call](NO_ARRAYS[value], W)
    if call != "patches":
        with pytest.raises(TypeError, match=r"^`rhs` "):
            OF_LAX[call](X, NO_ARRAYS[value])


def test_a_list_for_lax_is_not_printed():
    with pytest.raises(TypeError, match=r"^`rhs` must be an array, got list; wrap it in jnp.asarray"):
        jconv.conv_general_dilated(X, W.tolist(), (1, 1), "SAME")


@pytest.mark.parametrize("door", [jconv.choose, jconv.explain, jconv.tune])
@pytest.mark.parametrize(
    ("change", "message"),
    [(dict(batch=-4), "`batch`=-4 must be at least 0"), (dict(groups=3), "`groups`=3 must divide"),
     (dict(strides=(2, 2, 2)), "`strides` must be one int per size")],
)  # fmt: skip
def test_a_spec_that_was_changed_into_none_is_refused(door, change, message):
    with pytest.raises(ValueError, match=message):
        door(ConvSpec.of(**SPEC).replace(**change))


def test_an_image_of_one_dimension_without_a_batch_has_a_shape_of_two():
    x, w = np.arange(24, dtype="float32").reshape(3, 8), np.arange(18, dtype="float32").reshape(2, 3, 3)
    g = np.arange(12, dtype="float32").reshape(2, 6)
    expected = jconv.grad_input((1, 3, 8), w, g[None])[0]
    np.testing.assert_array_equal(jconv.grad_input((3, 8), w, g), expected)
    assert jconv.choose((3, 8), (2, 3, 3)).spec == jconv.choose(x, w).spec
    with pytest.raises(ValueError, match=r"`x` must have 3 or 4 axes"):
        jconv.choose((3, 8), (2, 3, 3, 3))


FAR = 300  # of padding, where arrays may have no more than FEW elements
FEW = 2**20
UNCOUNTABLE = {
    "conv": lambda: jconv.conv2d(X, W, padding=FAR),
    "mode": lambda: jconv.conv2d(
        X[..., :1, :1].repeat(FAR, -1).repeat(FAR, -2), W, padding=1, padding_mode="circular"
    ),
    "transposed": lambda: jconv.conv_transpose2d(X, W[:, :6].swapaxes(0, 1).repeat(2, 0)[:8], stride=FAR),
    "grad_input": lambda: jconv.grad_input((2, 8, 2**10, 2**10), W, G),
    "unfold": lambda: jconv.unfold(X, 3, padding=FAR),
    "lax": lambda: jconv.lax.conv(X, W, (1, 1), [(FAR, FAR)] * 2),
    "patches": lambda: jconv.conv_general_dilated_patches(X, (3, 3), (1, 1), [(FAR, FAR)] * 2),
    "choose": lambda: jconv.choose(X, W, padding=FAR),
}


@pytest.mark.parametrize("call", UNCOUNTABLE)
def test_an_array_that_no_memory_holds_is_refused_at_the_border(call, monkeypatch):
    monkeypatch.setattr("jconv.api.arguments.MOST_ELEMENTS", FEW)
    with pytest.raises(ValueError, match="which no memory holds; take smaller ones"):
        UNCOUNTABLE[call]()


def test_counts_of_groups_are_bounded_as_steps_are():
    with pytest.raises(
        ValueError, match=re.escape("`groups`=a value of type int must be at most 2147483647")
    ):
        jconv.conv2d(X, W, groups=10**5000)


def test_long_kernels_are_cut_in_messages():
    with pytest.raises(ValueError, match="`kernel`=") as caught:
        ConvSpec.of(spatial=(5, 5), kernel=(3,) * 100000)
    assert len(str(caught.value)) < 300
    with pytest.raises(ValueError, match="such as") as caught:
        ConvSpec.of(spatial=(5,) * 1000, kernel=(3,) * 1000, padding=1000 * [(3, 3, 3)])
    assert len(str(caught.value)) < 500
