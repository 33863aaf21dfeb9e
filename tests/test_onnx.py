"""ONNX's own node tests for Conv, ConvTranspose, ConvInteger and Col2Im, through a small jconv backend."""

import collections
import importlib
import itertools
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import jconv

pytest.importorskip("onnx", reason="ONNX is an optional oracle")
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case import node
from onnx.reference import ReferenceEvaluator


def attributes(operation, ndim):
    """The operation's attributes with ONNX's defaults."""
    given = {a.name: helper.get_attribute_value(a) for a in operation.attribute}
    ones, zeros = [1] * ndim, [0] * ndim
    defaults = dict(strides=ones, dilations=ones, pads=zeros * 2, group=1, auto_pad=b"NOTSET",
                    output_padding=zeros, output_shape=None)  # fmt: skip
    return SimpleNamespace(**defaults | given)


def pairs(pads):
    """ONNX lists all begins, then all ends."""
    half = len(pads) // 2
    return tuple(zip(pads[:half], pads[half:], strict=True))


def automatic(total, auto_pad):
    """`total` zeros on both sides of a dimension, the odd one where auto_pad puts it."""
    less, more = total // 2, total - total // 2
    return (less, more) if auto_pad == b"SAME_UPPER" else (more, less)


def conv(operation, x, w, b=None):
    a = attributes(operation, x.ndim - 2)
    padding = pairs(a.pads)
    if a.auto_pad in (b"SAME_UPPER", b"SAME_LOWER"):
        padding = {b"SAME_UPPER": "same", b"SAME_LOWER": "same_lower"}[a.auto_pad]
    run = getattr(jconv, f"conv{x.ndim - 2}d")
    return run(x, w, b, stride=a.strides, padding=padding, dilation=a.dilations, groups=a.group)


def conv_transpose(operation, x, w, b=None):
    a = attributes(operation, x.ndim - 2)
    sizes = list(zip(x.shape[2:], w.shape[2:], a.strides, a.dilations, a.output_padding, strict=True))
    full = [(h - 1) * s + d * (k - 1) + 1 + more for h, k, s, d, more in sizes]
    padding = pairs(a.pads)
    wanted = a.output_shape
    if a.auto_pad in (b"SAME_UPPER", b"SAME_LOWER"):
        wanted = wanted or [h * s for h, _, s, _, _ in sizes]
    if wanted is not None:
        padding = [automatic(f - size, a.auto_pad) for f, size in zip(full, wanted, strict=True)]
    run = getattr(jconv, f"conv_transpose{x.ndim - 2}d")
    return run(x, w, b, stride=a.strides, padding=padding, output_padding=a.output_padding, groups=a.group,
               dilation=a.dilations)  # fmt: skip


def conv_integer(operation, x, w, x_zero=None, w_zero=None):
    a = attributes(operation, x.ndim - 2)
    if x_zero is not None:
        x = x.astype(np.int32) - x_zero.astype(np.int32)
    if w_zero is not None:  # one, or one per output channel
        w = w.astype(np.int32) - w_zero.astype(np.int32).reshape(-1, *[1] * (w.ndim - 1))
    x, w = x.astype(np.int32), w.astype(np.int32)
    knobs = dict(stride=a.strides, padding=pairs(a.pads), dilation=a.dilations, groups=a.group)
    return getattr(jconv, f"conv{x.ndim - 2}d")(x, w, **knobs)


def col2im(operation, columns, size, kernel):
    a = attributes(operation, len(size))
    return jconv.fold(columns, tuple(size), tuple(kernel), stride=a.strides, padding=pairs(a.pads),
                      dilation=a.dilations)  # fmt: skip


BACKEND = {"Conv": conv, "ConvTranspose": conv_transpose, "ConvInteger": conv_integer, "Col2Im": col2im}


def node_cases():
    """Every test of the `onnx` package whose single node is one of ours."""
    for operator in BACKEND:  # each module adds its cases to a list when it is imported
        importlib.import_module(f"onnx.backend.test.case.node.{operator.lower()}")
    for case in node._NodeTestCases:
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in BACKEND:
            yield pytest.param(case, id=case.name)


CASES = list(node_cases())


def test_every_operator_is_covered():
    counts = collections.Counter(case.values[0].model.graph.node[0].op_type for case in CASES)
    assert set(counts) == set(BACKEND)
    assert counts["Conv"] >= 5
    assert counts["ConvTranspose"] >= 9
    assert counts["Col2Im"] >= 5


@pytest.mark.parametrize("case", CASES)
def test_node(case):
    (operation,) = case.model.graph.node
    names = [value.name for value in case.model.graph.input]
    for inputs, outputs in case.data_sets:
        given = dict(zip(names, map(as_array, inputs), strict=True))
        found = BACKEND[operation.op_type](operation, *(given.get(name) for name in operation.input))
        expected = as_array(outputs[0])
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=case.rtol, atol=case.atol)


def as_array(value):
    return np.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else numpy_helper.to_array(value)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(("k", "stride"), [(1, 2), (2, 3), (1, 4), (3, 2), (4, 2), (2, 5)])
def test_automatic_padding_where_the_kernel_is_shorter_than_the_stride(auto_pad, k, stride):
    """The formula's negative paddings extend the result; the gradients are those of the same sum."""
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((1, 2, 3, 4), (2, 3, k, 2)))
    knobs = dict(strides=[stride, 2], auto_pad=auto_pad, kernel_shape=[k, 2])
    operation = helper.make_node("ConvTranspose", ["x", "w"], ["y"], **knobs)
    found = conv_transpose(operation, x, w)
    assert found.shape[2:] == (3 * stride, 8)
    # the formula by hand: the full result, cut or extended
    full = np.asarray(jconv.conv_transpose2d(x, w, stride=(stride, 2)))
    lo, hi = automatic(full.shape[2] - 3 * stride, auto_pad.encode())
    extended = np.pad(full, ((0, 0), (0, 0), (max(-lo, 0), max(-hi, 0)), (0, 0)))
    expected = extended[:, :, max(lo, 0) : extended.shape[2] - max(hi, 0)]
    np.testing.assert_array_equal(found, expected)
    g = rng.integers(-4, 5, found.shape).astype(np.float32)
    _, pullback = jax.vjp(lambda x, w: conv_transpose(operation, x, w), x, w)
    for gradient, of in zip(pullback(g), (x, w), strict=True):  # bilinear: ⟨g, y(x, w)⟩ = ⟨∂x, x⟩ = ⟨∂w, w⟩
        assert np.vdot(gradient, of) == np.vdot(g, found)
    graph = helper.make_graph(
        [operation], "one", [typed("x", x.shape), typed("w", w.shape)], [typed("y", None)]
    )
    theirs = ReferenceEvaluator(helper.make_model(graph)).run(None, {"x": x, "w": w})[0]
    np.testing.assert_array_equal(found, theirs)


def typed(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def test_odd_zero_goes_where_onnx_says():
    assert list(itertools.starmap(automatic, [(3, b"SAME_UPPER"), (3, b"SAME_LOWER")])) == [(1, 2), (2, 1)]
