"""∂w of a depthwise convolution by oneDNN: the depthwise convolution of x with g.

The images are an axis of space, where there is room for one.  Where channels come first, the channels of all
images lie one after the other and are taken for channels.  A stride dilates g, at which oneDNN is slow in
three dimensions, such as two and the images; so then one image is taken at a time.
"""

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
    image = image_axis(part)

    def compute(x: jax.Array, g: jax.Array) -> jax.Array:
        kernel = g.reshape(*image, *part.out_spatial, 1, part.out_channels)
        return direct(x[None] if image else x, kernel, as_depthwise(part)).reshape(spec.w_shape)

    return pieces.summed(compute, x, g, spec, part)


def _part(spec: ConvSpec) -> ConvSpec:
    """The spec of as many images or rows of g as MOST_CODE allows; of one image where there is a stride."""
    spec = spec.replace(batch=1) if spec.is_strided else spec
    return pieces.cut(spec, CODE * spec.taps * spec.positions, MOST_CODE)


def as_depthwise(spec: ConvSpec) -> ConvSpec:
    """The convolution of x with g, along the images too, if there are several."""
    back, image = spec.replace(batch=1).as_grad_kernel(), image_axis(spec)
    first = spec.channels_first and not image
    return along(image, back.replace(y_dtype=spec.accumulator, channels_first=first))


def image_axis(spec: ConvSpec) -> Ints:
    """The images as an axis of space, where there is room for one."""
    return (spec.batch,) if spec.ndim < 3 and spec.batch > 1 else ()


def along(image: Ints, spec: ConvSpec) -> ConvSpec:
    """The convolution that goes along the axis of images, if there is one, before its own."""
    one, none = (1,) * len(image), ((0, 0),) * len(image)
    return spec.replace(
        spatial=(*image, *spec.spatial), kernel=(*image, *spec.kernel), strides=(*one, *spec.strides),
        padding=(*none, *spec.padding), lhs_dilation=(*one, *spec.lhs_dilation),
        rhs_dilation=(*one, *spec.rhs_dilation),
    )  # fmt: skip


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
