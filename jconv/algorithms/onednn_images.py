"""∂w of a depthwise convolution by oneDNN: the depthwise convolution of x with g.

The images are an axis of space, where there is room for one.  Where channels come first, the channels of all
images lie one after the other and are taken for channels.  A stride dilates g, at which oneDNN is slow in
three dimensions, such as two and the images; so then one image is taken at a time.
"""

import functools

import jax
import jax.numpy as jnp

from jconv.algorithms import pieces
from jconv.algorithms.onednn_direct import direct
from jconv.algorithms.record import OneDnn, Step
from jconv.spec import ConvSpec, Ints

CODE = 52  # bytes of machine code that oneDNN writes for every tap and output, as it unrolls all loops
MOST_CODE = 24 << 20


def applies(spec: ConvSpec) -> bool:
    """Whether a kernel's gradient is computed so."""
    apart = all(s == 1 or d == 1 for s, d in zip(spec.strides, spec.rhs_dilation, strict=True))
    return spec.is_depthwise and apart and (_is_folded(spec) or spec.ndim < 3 or spec.batch == 1)


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w, the images being channels of one, an axis of space, or one alone."""
    if _is_folded(spec):
        apart = grad_kernel(_beside(x), _beside(g), _folded(spec))
        return apart.reshape(*spec.kernel, spec.batch, -1).sum(-2).reshape(spec.w_shape)
    part = _part(spec)
    return pieces.summed(functools.partial(_at_once, spec=part), x, g, spec, part)


def _part(spec: ConvSpec) -> ConvSpec:
    """The spec of as many images or rows of g as MOST_CODE allows; of one image where there is a stride."""
    spec = spec.replace(batch=1) if spec.is_strided else spec
    return pieces.cut(spec, CODE * spec.taps * spec.positions, MOST_CODE)


def _at_once(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    kernel = g.reshape(*image_axis(spec), *spec.out_spatial, 1, spec.out_channels)
    return direct(x[None] if image_axis(spec) else x, kernel, as_depthwise(spec)).reshape(spec.w_shape)


def as_depthwise(spec: ConvSpec) -> ConvSpec:
    """The convolution of x with g, along the images too, if there are several."""
    back = spec.replace(batch=1).as_grad_kernel().replace(y_dtype=spec.accumulator)
    image = image_axis(spec)
    one, none = (1,) * len(image), ((0, 0),) * len(image)
    return back.replace(
        spatial=(*image, *back.spatial), kernel=(*image, *back.kernel), strides=(*one, *back.strides),
        padding=(*none, *back.padding), lhs_dilation=(*one, *back.lhs_dilation),
        rhs_dilation=(*one, *back.rhs_dilation), channels_first=spec.channels_first and not image,
    )  # fmt: skip


def image_axis(spec: ConvSpec) -> Ints:
    """The images as an axis of space, where there is room for one."""
    return (spec.batch,) if spec.ndim < 3 and spec.batch > 1 else ()


def _is_folded(spec: ConvSpec) -> bool:
    """Whether the images are channels of one, not an axis of space."""
    return spec.channels_first and spec.batch > 1


def _folded(spec: ConvSpec) -> ConvSpec:
    """The spec of one image with the channels of all."""
    channels = spec.batch * spec.in_channels
    return spec.replace(batch=1, in_channels=channels, out_channels=channels, groups=channels)


def _beside(image: jax.Array) -> jax.Array:
    """(n, *h, c) → (1, *h, n·c), which moves nothing where channels come first."""
    n, *space, c = image.shape
    return jnp.moveaxis(jnp.moveaxis(image, -1, 1).reshape(1, n * c, *space), 1, -1)


def steps(spec: ConvSpec) -> tuple[Step, ...]:
    """The convolution of each piece."""
    if _is_folded(spec):
        return steps(_folded(spec))
    part = _part(spec)
    return pieces.repeated((OneDnn(as_depthwise(part)),), spec, part)


def workspace(spec: ConvSpec) -> int:
    """Bytes of g as oneDNN multiplies it."""
    if _is_folded(spec):
        return workspace(_folded(spec))
    part = _part(spec)
    return part.y_bytes + 4 * spec.parameters + pieces.workspace(spec, part)
