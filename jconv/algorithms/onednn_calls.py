"""The calls of oneDNN that XLA:CPU understands, as pure functions of arrays.

The wheel of jaxlib for Linux on x86-64 holds Intel's oneDNN, and XLA:CPU runs it where a program calls
`__onednn$convolution` or `__onednn$matmul` and says in JSON what is meant.  Dimension numbers state in which
order x, w and y lie, so that none of them is transposed:

    channels last    x (n, *h, c)    w (*r, c, o) or, swapped, (*r, o, c)    y (n, *p, o)
    channels first   x (n, c, *h)    w (o, c, *r) or, swapped, (c, o, *r)    y (n, o, *p)

Arrays come and go channels last, as everywhere below the door; where the user's lie channels first, the
transpositions here undo the door's, and the compiler removes both.

Nothing is checked here.  Outside of what `jconv.runtime.verified` lists oneDNN may end the process and raise
nothing.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jconv.spec import ConvSpec, Ints

CONVOLUTION, MATMUL = "__onednn$convolution", "__onednn$matmul"


def convolution(x: jax.Array, w: jax.Array, spec: ConvSpec, *, swapped: bool = False) -> jax.Array:
    """y of an undilated x; `swapped`: the kernel lies as that of the convolution whose grad_input this is."""
    if spec.channels_first:
        x, w = jnp.moveaxis(x, -1, 1), w.transpose(spec.ndim + 1, spec.ndim, *range(spec.ndim))
    shape = _order(spec.y_shape, spec.channels_first)
    y = _call(CONVOLUTION, shape, spec.y_dtype, _convolution(spec, swapped), x, w)
    return jnp.moveaxis(y, 1, -1) if spec.channels_first else y


def matmul(
    a: jax.Array, b: jax.Array, dtype: str, *, transpose_a: bool = False, transpose_b: bool = False
) -> jax.Array:
    """(…, m, k) times (…, k, n), either one as it lies or with its last two axes exchanged."""
    m = a.shape[-1] if transpose_a else a.shape[-2]
    n = b.shape[-2] if transpose_b else b.shape[-1]
    config = {"onednn_matmul_config": {"transpose_a": transpose_a, "transpose_b": transpose_b}}
    return _call(MATMUL, (*a.shape[:-2], m, n), dtype, json.dumps(config), a, b)


def _call(target: str, shape: Ints, dtype: str, config: str, *operands: jax.Array) -> jax.Array:
    result = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
    call = jax.ffi.ffi_call(target, result, custom_call_api_version=2, legacy_backend_config=config)
    return call(*operands)


def _order(shape: Ints, channels_first: bool) -> Ints:
    n, *space, c = shape
    return (n, c, *space) if channels_first else (n, *space, c)


# -- the convolution's JSON ------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def _convolution(spec: ConvSpec, swapped: bool) -> str:
    first, rank = spec.channels_first, str(spec.ndim + 2)
    w_shape = (*spec.w_shape[:-2], *spec.w_shape[-2:][:: -1 if swapped else 1])
    config: dict[str, Any] = {
        "dims": rank,
        "input": {"dims": rank, "data": _image(spec.ndim, first)},
        "kernel": {"dims": rank, "filter": _kernel(w_shape, first, swapped)},
        "output": {"dims": rank, "data": _image(spec.ndim, first)},
        "window": {
            "size": _strings(spec.kernel),
            "pad_left": _strings(lo for lo, _ in spec.padding),
            "pad_right": _strings(hi for _, hi in spec.padding),
            "strides": _strings(spec.strides),
            "window_dilations": _strings(spec.rhs_dilation),
        },
        "feature_groups": str(spec.groups),
    }
    return json.dumps({"onednn_conv_config": config})


def _image(ndim: int, first: bool) -> Mapping[str, Any]:
    """Which axes of x or y are what."""
    space = range(2, ndim + 2) if first else range(1, ndim + 1)
    feature = 1 if first else ndim + 1
    return {"batch_dim": "0", "feature_dim": str(feature), "spatial_dims": _strings(space)}


def _kernel(shape: Ints, first: bool, swapped: bool) -> Mapping[str, Any]:
    """Which axes of w are what; `shape` is that of the array with its channels last."""
    ndim = len(shape) - 2
    into, out = (1, 0) if first else (ndim, ndim + 1)
    if swapped:
        into, out = out, into
    space = range(2, ndim + 2) if first else range(ndim)
    lies = (shape[-1], shape[-2], *shape[:-2]) if first else shape
    return {
        "input_feature_dim": str(into), "output_feature_dim": str(out),
        "spatial_dims": _strings(space), "shape": _strings(lies),
    }  # fmt: skip


def _strings(values: Iterable[int]) -> list[str]:
    """Protobuf's JSON writes 64-bit integers as strings."""
    return [str(int(value)) for value in values]
