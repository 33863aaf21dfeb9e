"""The calls of oneDNN that XLA:CPU understands, as pure functions of arrays.

The wheel of jaxlib for Linux on x86-64 holds Intel's oneDNN, and XLA:CPU runs it where a program calls
`__onednn$convolution` or `__onednn$matmul` and says in JSON what is meant.  Dimension numbers state in which
order x, w and y lie, so that none of them is transposed:

    channels last    x (n, *h, g·c)    w (*r, c, g·o) or, swapped, (*r, g·o, c)    y (n, *p, g·o)
    channels first   x (n, g·c, *h)    w (g·o, c, *r) or, swapped, (c, g·o, *r)    y (n, g·o, *p)

Arrays come and go channels last, as everywhere below the door; where the user's lie channels first, the
transpositions here undo the door's, and the compiler removes both.

Nothing is checked here.  Outside of what `jconv.runtime.verified` lists oneDNN may end the process and raise
nothing.
"""

import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jconv.spec import ConvSpec, Ints

CONVOLUTION, MATMUL = "__onednn$convolution", "__onednn$matmul"


def convolution(
    x: jax.Array, w: jax.Array, spec: ConvSpec, *, swapped: bool = False, lies: Ints | None = None
) -> jax.Array:
    """y of an undilated x.

    Args:
      x, w, spec: the problem, channels last.
      swapped: the kernel is that of the convolution whose grad_input this is.
      lies: the axes of w in the order in which they lie in memory; None is that of the user's layout.
    """
    n = spec.ndim
    first = spec.channels_first
    lies = lies or ((n + 1, n, *range(n)) if first else tuple(range(n + 2)))
    x = jnp.moveaxis(x, -1, 1) if first else x
    config = _convolution(spec, swapped, lies)
    shape = (spec.batch, spec.out_channels, *spec.out_spatial) if first else spec.y_shape
    y = _call(CONVOLUTION, shape, spec.y_dtype, config, x, w.transpose(lies))
    return jnp.moveaxis(y, 1, -1) if first else y


def matmul(
    a: jax.Array, b: jax.Array, dtype: str, *, transpose_a: bool = False, transpose_b: bool = False
) -> jax.Array:
    """(…, m, k) times (…, k, n), either one as it lies or with its last two axes exchanged; an axis of the
    batch that has one entry serves all of the other's."""
    m = a.shape[-1] if transpose_a else a.shape[-2]
    n = b.shape[-2] if transpose_b else b.shape[-1]
    config = {"onednn_matmul_config": {"transpose_a": transpose_a, "transpose_b": transpose_b}}
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return _call(MATMUL, (*batch, m, n), dtype, json.dumps(config), a, b)


def _call(target: str, shape: Ints, dtype: str, config: str, *operands: jax.Array) -> jax.Array:
    result = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
    call = jax.ffi.ffi_call(target, result, custom_call_api_version=2, legacy_backend_config=config)
    return call(*operands)


@functools.lru_cache(maxsize=1024)
def _convolution(spec: ConvSpec, swapped: bool, lies: Ints) -> str:
    n, first, rank = spec.ndim, spec.channels_first, str(spec.ndim + 2)
    image = {
        "batch_dim": "0",
        "feature_dim": str(1 if first else n + 1),
        "spatial_dims": _strings(range(2, n + 2) if first else range(1, n + 1)),
    }
    w_shape = (*spec.w_shape[:-2], *spec.w_shape[-2:][:: -1 if swapped else 1])
    config: dict[str, Any] = {
        "dims": rank,
        "input": {"dims": rank, "data": image},
        "kernel": {"dims": rank, "filter": _kernel(w_shape, swapped, lies)},
        "output": {"dims": rank, "data": image},
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


def _kernel(shape: Ints, swapped: bool, lies: Ints) -> Mapping[str, Any]:
    """Which axes of w are what; `shape` is that of the array with its channels last."""
    ndim = len(shape) - 2
    into, out = (ndim + 1, ndim) if swapped else (ndim, ndim + 1)
    return {
        "input_feature_dim": str(lies.index(into)), "output_feature_dim": str(lies.index(out)),
        "spatial_dims": _strings(map(lies.index, range(ndim))),
        "shape": _strings(shape[axis] for axis in lies),
    }  # fmt: skip


def _strings(values: Iterable[int]) -> list[str]:
    """Protobuf's JSON writes 64-bit integers as strings."""
    return [str(int(value)) for value in values]
