"""Every wrong argument, by message: the argument in backticks, what came, what would work."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jconv

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
    "x_rank_low": (
        ValueError,
        (X[0, 0], W),
        "`x` must have 3 or 4 axes (batch if any, channels, 2 spatial), got",
    ),
    "x_rank_high": (ValueError, (X[None], W), "`x` must have 3 or 4 axes"),
    "w_rank": (
        ValueError,
        (X, W[0]),
        "`w` must have 4 axes (in and out channels, 2 spatial), got shape (8, 3, 3)",
    ),
    "channels": (
        ValueError,
        (X, W[:, :5]),
        "`w` (6, 5, 3, 3) takes 5 input channels, but `x` (2, 8, 9, 7) has 8",
    ),
    "dtypes": (
        TypeError,
        (X, W.astype("float16")),
        "`w` is float16 but `x` is float32; cast one: w.astype(x.dtype)",
    ),
    "bias_shape": (
        ValueError,
        (X, W, np.zeros(5, "float32")),
        "`b` must have shape (6,), one value per output",
    ),
    "bias_rank": (ValueError, (X, W, np.zeros((6, 1), "float32")), "`b` must have shape (6,)"),
    "bias_dtype": (
        TypeError,
        (X, W, np.zeros(6, "int32")),
        "`b` is int32 but the output is float32; cast it",
    ),
    "bias_list": (TypeError, (X, W, [0.0] * 6), "`b` must be an array, got list"),
    "kernel_too_large": (
        ValueError,
        (X[:, :, :2], W),
        "`w` covers (3, 3) positions with its dilation but the padded `x`",
    ),
    "empty_kernel": (ValueError, (X, W[:, :, :0]), "`w` is empty: (6, 8, 0, 3)"),
    "no_outputs": (ValueError, (X, W[:0]), "`w` is empty: (0, 8, 3, 3)"),
    "empty_side": (ValueError, (X[:, :, :0], W), "`x` has an empty side: (0, 7)"),
}


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
    (
        ValueError,
        dict(dilation=5),
        "`w` covers (11, 11) positions with its dilation but the padded `x` has only (9, 7)",
    ),
    (
        ValueError,
        dict(groups=3),
        "`groups`=3 must divide the 8 input channels of `x` (2, 8, 9, 7); choose 1, 2, 4 or 8",
    ),
    (
        ValueError,
        dict(groups=4),
        "`groups`=4 must divide the 6 output channels of `w` (6, 8, 3, 3); choose 1, 2, 3 or 6",
    ),
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
    (
        ValueError,
        dict(padding="full"),
        "`padding`='full' is not known; choose one of same, valid, same_lower, causal",
    ),
    (ValueError, dict(padding="causal"), "`padding`='causal' has a meaning in 1-D only"),
    (
        ValueError,
        dict(padding_mode="mirror"),
        "`padding_mode`='mirror' is not known; choose one of zeros, reflect",
    ),
    (TypeError, dict(padding_mode=None), "`padding_mode` must be a string, got None"),
    (ValueError, dict(layout="NHCW"), "`layout`='NHCW' is not known; choose 'NCHW' or 'NHWC'"),
    (ValueError, dict(layout=""), "`layout`='' is not known"),
    (ValueError, dict(layout="NDHWC"), "`layout`='NDHWC' is not known; choose 'NCHW' or 'NHWC'"),
    (TypeError, dict(layout=1), "`layout` must be a string, got 1"),
    (
        ValueError,
        dict(algorithm="im2cool"),
        "`algorithm`='im2cool' is not known; choose one of auto, ",
    ),
    (TypeError, dict(algorithm=None), "`algorithm` must be a name or a jconv.Algorithm, got None"),
    (TypeError, dict(algorithm=["xla"]), "`algorithm` must be a name or a jconv.Algorithm, got ('xla',)"),
    (
        ValueError,
        dict(precision="best"),
        "`precision`='best' is not known; choose 'default', 'high', 'highest'",
    ),
    (ValueError, dict(precision=("high",) * 3), "`precision`=('high', 'high', 'high') is not known"),
    (ValueError, dict(precision=2), "`precision`=2 is not known"),
    (ValueError, dict(precision=(None, "high")), "`precision`=(None, 'high') is not known"),
    (
        ValueError,
        dict(precision="F32_F32_F32"),
        "`precision`='F32_F32_F32' is for matrix products alone; choose 'default', 'high', 'highest'",
    ),
    (
        ValueError,
        dict(precision=jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X3),
        "`precision`=DotAlgorithmPreset.BF16_BF16_F32_X3 is for matrix products alone; choose 'default'",
    ),
    (TypeError, dict(stride=b"12"), f"`stride` {TWO}, got b'12'"),
    (TypeError, dict(padding=b"12"), f"{PADS}, got b'12'"),
    (ValueError, dict(stride=10**30), f"`stride`={10**30} must be at most 2147483647"),
    (ValueError, dict(dilation=(1, 10**30)), f"`dilation`={10**30} must be at most 2147483647"),
    (ValueError, dict(padding=10**30), f"`padding`={10**30} must be at most 2147483647"),
    (ValueError, dict(padding=((0, 2**31), 0)), "`padding`=2147483648 must be at most 2147483647"),
    (TypeError, dict(preferred_element_type="int8"), "`preferred_element_type`='int8' does not suit float32"),
    (TypeError, dict(preferred_element_type="foo"), "`preferred_element_type`='foo' does not suit float32"),
]


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
    "image": (
        (1, 6, 6, 4),
        (4, 4, 3, 3),
        {},
        "; or pass layout='NHWC': kernels are then (kh, kw, c_in, c_out)",
    ),
    "kernel": (
        (1, 32, 32, 3),
        (16, 3, 5, 5),
        dict(layout="NHWC"),
        "; with layout='NHWC' kernels are (kh, kw, c_in, c_out)",
    ),
    "kernel_first": (
        (1, 3, 9, 9),
        (5, 5, 3, 16),
        {},
        "; with layout='NCHW' kernels are (c_out, c_in, kh, kw)",
    ),
    "no_batch": ((32, 32, 3), (3, 3, 3, 16), {}, "; or pass layout='NHWC'"),
    "groups": ((1, 30, 30, 8), (3, 3, 1, 8), dict(groups=8), "10, 15 or 30; or pass layout='NHWC'"),
    "neither": ((1, 6, 6, 5), (4, 4, 3, 3), {}, "; `w` needs 6"),
}


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


@pytest.mark.parametrize("take", [jconv.accelerate, jconv.explain])
def test_a_result_is_no_function(take):
    message = "`fn` must be callable, got int; pass the function, not its result"
    with pytest.raises(TypeError, match=re.escape(message)):
        take(3)


def test_layouts_of_more_than_three_dimensions():
    x, w = np.zeros((1, 1, 5, 5, 5, 5), "float32"), np.zeros((1, 1, 2, 2, 2, 2), "float32")
    with pytest.raises(ValueError, match="`layout`='NCDHW' is not known; choose 'NCHW' or 'NHWC'"):
        jconv.choose(x, w, layout="NCDHW")
    assert jconv.choose(x, w, layout="NCHW").spec == jconv.choose(x, w).spec


SHORT = "must have two channel or batch axes and at least one spatial"
GRADIENTS = {
    "input_g": (
        ValueError,
        "grad_input",
        (X.shape, W, G[..., 1:]),
        "`g` has shape (2, 6, 7, 4), but the output",
    ),
    "input_g_rank": (
        ValueError,
        "grad_input",
        (X.shape, W, G[0]),
        "`g` has shape (6, 7, 5), but the output of this",
    ),
    "input_int": (TypeError, "grad_input", (9, W, G), "`input_shape` must be a sequence of ints, got 9"),
    "input_str": (
        TypeError,
        "grad_input",
        ("abcd", W, G),
        "`input_shape` must be a sequence of ints, got 'abcd'",
    ),
    "input_float": (TypeError, "grad_input", ((2, 8, 9.0, 7), W, G), "`input_shape` must be an int, got 9.0"),
    "input_negative": (
        ValueError,
        "grad_input",
        ((2, 8, -9, 7), W, G),
        "`input_shape`=-9 must be at least 0",
    ),
    "input_short": (ValueError, "grad_input", ((8, 9), W, G), f"`input_shape`=(8, 9) {SHORT}"),
    "input_channels": (
        ValueError,
        "grad_input",
        ((2, 7, 9, 7), W, G),
        "but `input_shape` (2, 7, 9, 7) has 7 channels",
    ),
    "input_kernel": (
        ValueError,
        "grad_input",
        (X.shape, W[0, 0], G),
        "`w` must have two channel and at least one",
    ),
    "input_dtype": (TypeError, "grad_input", (X.shape, W, G.astype(int)), "`g` is int32 but `w` is float32"),
    "kernel_g": (
        ValueError,
        "grad_kernel",
        (X, W.shape, G[:1]),
        "`g` has shape (1, 6, 7, 5), but the output of this",
    ),
    "kernel_none": (
        TypeError,
        "grad_kernel",
        (X, None, G),
        "`kernel_shape` must be a sequence of ints, got None",
    ),
    "kernel_channels": (
        ValueError,
        "grad_kernel",
        (X, (6, 5, 3, 3), G),
        "`kernel_shape` (6, 5, 3, 3) takes 5 input",
    ),
    "kernel_rank": (ValueError, "grad_kernel", (X, (6, 8, 3), G), "`x` must have 2 or 3 axes"),
    "kernel_list_x": (TypeError, "grad_kernel", ([1.0], W.shape, G), "`x` must be an array, got list"),
    "kernel_dtype": (
        TypeError,
        "grad_kernel",
        (X, W.shape, G.astype("float16")),
        "`g` is float16 but `x` is float32",
    ),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_wrong_gradients(name):
    kind, function, arguments, message = GRADIENTS[name]
    with pytest.raises(kind, match=re.escape(message)):
        getattr(jconv, function)(*arguments)


@pytest.mark.parametrize(
    "knobs", [dict(stride=0), dict(groups=3), dict(layout="no"), dict(algorithm="no")], ids=str
)
@pytest.mark.parametrize(
    "call", [(jconv.grad_input, X.shape, W, G), (jconv.grad_kernel, X, W.shape, G)], ids=["x", "w"]
)
def test_wrong_knobs_of_gradients(call, knobs):
    function, *arguments = call
    with pytest.raises(ValueError, match=f"`{next(iter(knobs))}`="):
        function(*arguments, **knobs)
