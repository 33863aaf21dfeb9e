"""∂w by one of oneDNN's products, where pixels are the rows of a matrix as they lie.

In one dimension columns of x, (s·c, n·q), times g (n·q, o).  With a 1×1 kernel in any number of dimensions
x and g themselves; where channels come first and the products are small, image by image as they lie.
"""

import math

import jax
import jax.numpy as jnp

from jconv.algorithms import onednn_calls
from jconv.algorithms.onednn_direct import is_pixelwise
from jconv.algorithms.pieces import IN_CACHE
from jconv.algorithms.pointwise import summed_by_image
from jconv.algorithms.record import Loop, OneDnn, Step
from jconv.algorithms.windows import columns_bytes, pad, planes, positions, tap
from jconv.spec import ConvSpec


def applies(spec: ConvSpec) -> bool:
    """Whether the kernel's gradient is a product."""
    return is_pixelwise(spec) or (spec.groups == 1 and spec.ndim == 1)


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w, summed in the accumulator."""
    if _by_planes(spec):
        each = onednn_calls.matmul(planes(g), planes(x), spec.accumulator, transpose_b=True)
        return each.sum(0).T.reshape(spec.w_shape)
    flat = _flat(spec)
    return _of_columns(x.reshape(flat.x_shape), g.reshape(flat.y_shape), flat).reshape(spec.w_shape)


def _flat(spec: ConvSpec) -> ConvSpec:
    """The convolution in one dimension that has the same gradient."""
    if spec.ndim == 1:
        return spec
    return spec.replace(
        spatial=(math.prod(spec.spatial),), kernel=(1,), strides=(1,), padding=((0, 0),),
        lhs_dilation=(1,), rhs_dilation=(1,),
    )  # fmt: skip


def _by_planes(spec: ConvSpec) -> bool:
    """Whether each image is multiplied as it lies, channels first, as the products are smaller than that."""
    return spec.channels_first and is_pixelwise(spec) and summed_by_image(spec)


def _of_columns(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w by the columns of all taps at once or, where these are too many for the cache, tap by tap."""
    padded = pad(x, spec)
    taps = [tap(padded, at, spec) for at in positions(spec)]  # n q c, each
    fit = columns_bytes(spec) <= IN_CACHE
    parts = [jnp.concatenate(taps, -1)] if fit else taps
    rows = g.reshape(-1, spec.o)
    flat = (part.reshape(-1, part.shape[-1]) for part in parts)
    found = [onednn_calls.matmul(part, rows, spec.accumulator, transpose_a=True) for part in flat]
    return jnp.concatenate(found).reshape(spec.w_shape)


def steps(spec: ConvSpec) -> tuple[Step, ...]:
    """Writing the columns, or channels last, and the product."""
    flat = _flat(spec)
    copied = (Loop(0, 2 * columns_bytes(flat)),) if flat.taps > 1 or flat.is_padded else ()
    if flat.channels_first and not _by_planes(spec):
        copied = *copied, Loop(0, 2 * flat.image_bytes, 2)
    return *copied, _product(flat)


def _product(flat: ConvSpec) -> OneDnn:
    """Columns times g, as the 1×1 convolution that it is; the larger of the two is the image."""
    sides = flat.taps * flat.c, flat.o
    return OneDnn(flat.replace(
        batch=1, spatial=(max(sides),), kernel=(1,), in_channels=flat.positions, out_channels=min(sides),
        strides=(1,), padding=((0, 0),), rhs_dilation=(1,), channels_first=False,
    ))  # fmt: skip


def workspace(spec: ConvSpec) -> int:
    """Bytes of the columns, and of the product."""
    return min(columns_bytes(spec), IN_CACHE) * (spec.taps > 1) + 4 * spec.parameters
