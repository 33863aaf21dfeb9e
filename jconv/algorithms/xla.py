"""XLA's own convolution as `lax.conv_general_dilated` would be called: the reference and the one to beat.

XLA:CPU hands it to YNNPACK, to Eigen or to a naive loop (`choice.cost.route` has the rules): a 2-D one to
YNNPACK where its output is no larger than its input, though Eigen is faster for most dense layers of stride
1.  So `XLA_EIGEN` pads the bottom until the output is one row higher than the input, and cuts the row off
again.  It loses for strided stems of three channels, where YNNPACK is two to ten times faster.
"""

import math

import jax
from jax import lax

from jconv.algorithms.record import Algorithm, Loop, Native, Step
from jconv.algorithms.windows import pad
from jconv.runtime.private import lax_conv
from jconv.spec import ConvSpec, Role
from jconv.spec.layout import channels_last


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y by one `lax.conv_general_dilated`, channels last."""
    if any(not isinstance(side, int) for side in sum(spec.padding, ())):
        # lax refuses padding of a size that only a run will tell
        x, n = pad(x, spec), spec.ndim
        spec = spec.replace(spatial=x.shape[1:-1], padding=((0, 0),) * n, lhs_dilation=(1,) * n)
    x, spec = _cropped(x, spec)
    return lax_conv(
        x, w, spec.strides, spec.padding, spec.lhs_dilation, spec.rhs_dilation, channels_last(spec.ndim),
        feature_group_count=spec.groups, precision=spec.precision,
        preferred_element_type=spec.accumulator if x.dtype == spec.accumulator else spec.y_dtype,
    )  # fmt: skip


def _cropped(x: jax.Array, spec: ConvSpec) -> tuple[jax.Array, ConvSpec]:
    """x and its spec, with x already cropped where a negative lo stands beside a positive hi.

    Gradients meet such a padding too: lo' = K − 1 − lo is negative where a user pads more than the kernel
    covers.
    """
    # until jaxlib 0.12: XLA:CPU reads beside x where a negative lo meets a positive hi
    for axis, ((lo, hi), dilation) in enumerate(zip(spec.padding, spec.lhs_dilation, strict=True)):
        if lo < 0 < hi and dilation == 1 and -lo < x.shape[axis + 1]:
            x = lax.slice_in_dim(x, -lo, x.shape[axis + 1], axis=axis + 1)
            padding = (*spec.padding[:axis], (0, hi), *spec.padding[axis + 1 :])
            spec = spec.replace(spatial=x.shape[1:-1], padding=padding)
    return x, spec


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    return (Native(spec),)


# until jaxlib ?: XLA:CPU hands a 2-D convolution to YNNPACK by its sizes
def lengthened(spec: ConvSpec) -> ConvSpec:
    """The same convolution with more rows of output than of input."""
    lo, hi = spec.padding[0]
    more = max(0, spec.spatial[0] + 1 - spec.out_spatial[0])
    return spec.replace(padding=((lo, hi + more), *spec.padding[1:]))


def _by_eigen(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y: the longer convolution, its extra rows cut off."""
    return lax.slice_in_dim(forward(x, w, lengthened(spec)), 0, spec.out_spatial[0], axis=1)


def _rejects_eigen(spec: ConvSpec) -> str | None:
    if spec.ndim != 2:
        return f"{spec.ndim} spatial dimensions: only 2-D convolutions go to YNNPACK by themselves"
    if any(s != 1 for s in (*spec.strides, *spec.lhs_dilation)):
        return "stride or input dilation: the extra rows would cost more than they gain"
    if spec.is_pointwise:
        return "one tap: a plain matrix product"
    if spec.taps > math.prod(spec.out_spatial):
        return "a kernel larger than the output, whose patches lie as the image does: zeros would move it"
    if spec.out_spatial[0] > spec.spatial[0]:
        return "its output is already larger than its input"
    return None


def _eigen_steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    # where the user's channels come first, y is cut and then transposed
    cut = (Loop(0, 2 * spec.y_bytes, 1),) if spec.channels_first else ()
    return Native(lengthened(spec)), *cut


def _eigen_workspace(spec: ConvSpec, role: Role) -> int:
    return lengthened(spec).y_bytes


XLA = Algorithm("xla", forward, steps=steps)
XLA_EIGEN = Algorithm("xla_eigen", _by_eigen, _rejects_eigen, _eigen_steps, _eigen_workspace)
