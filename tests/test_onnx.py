"""ONNX's own node tests for Conv, ConvTranspose, ConvInteger and Col2Im, through a small jconv backend."""

import collections
import importlib
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

import jconv

pytest.importorskip("onnx", reason="ONNX is an optional oracle")
from onnx import helper, numpy_helper
from onnx.backend.test.case import node


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
        outs = [-(-h // s) for h, s in zip(x.shape[2:], a.strides, strict=True)]
        padding = [
            automatic(max(0, (p - 1) * s + d * (k - 1) + 1 - h), a.auto_pad)
            for p, s, d, k, h in zip(outs, a.strides, a.dilations, w.shape[2:], x.shape[2:], strict=True)
        ]
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
    more = list(a.output_padding)
    if wanted is not None:
        padding = [automatic(max(0, f - size), a.auto_pad) for f, size in zip(full, wanted, strict=True)]
        more = [m + max(0, size - f) for m, f, size in zip(more, full, wanted, strict=True)]
    run = getattr(jconv, f"conv_transpose{x.ndim - 2}d")
    return run(x, w, b, stride=a.strides, padding=padding, output_padding=more, groups=a.group,
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


def test_odd_zero_goes_where_onnx_says():
    assert list(itertools.starmap(automatic, [(3, b"SAME_UPPER"), (3, b"SAME_LOWER")])) == [(1, 2), (2, 1)]
