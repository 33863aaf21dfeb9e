"""XLA's own convolution as `lax.conv_general_dilated` would be called: the reference and the one to beat.

XLA:CPU hands it to YNNPACK, to Eigen or to a naive loop (`choice.cost.route` has the rules).
"""

import jax
from jax import lax

from jconv.algorithms.record import Algorithm, Native, Step
from jconv.algorithms.windows import pad
from jconv.runtime.private import lax_conv
from jconv.spec import ConvSpec, Role
from jconv.spec.layout import channels_last


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y by one `lax.conv_general_dilated`, channels last."""
    if any(not isinstance(side, int) for side in sum(spec.padding, ())):
        x, spec = _padded(x, spec)
    x, spec = _cropped(x, spec)
    return lax_conv(
        x, w, spec.strides, spec.padding, spec.lhs_dilation, spec.rhs_dilation, channels_last(spec.ndim),
        feature_group_count=spec.groups, precision=spec.precision,
        preferred_element_type=spec.accumulator if x.dtype == spec.accumulator else spec.y_dtype,
    )  # fmt: skip


def _padded(x: jax.Array, spec: ConvSpec) -> tuple[jax.Array, ConvSpec]:
    """x with its padding around it, and its spec: lax refuses padding of a size that only a run will tell."""
    padded, n = pad(x, spec), spec.ndim
    spec = spec.replace(spatial=padded.shape[1:-1], padding=((0, 0),) * n, lhs_dilation=(1,) * n)
    return padded, spec


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


XLA = Algorithm("xla", forward, steps=steps)
