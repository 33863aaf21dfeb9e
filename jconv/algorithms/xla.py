"""XLA's own convolution, whatever the platform's compiler makes of it.

The reference every other algorithm must agree with and the one to beat.  Wins for dense channels on
every platform whose library is good at it; on CPU it loses by one to three orders of magnitude for
depthwise, grouped and transposed convolutions and for dtypes outside float32.
"""

from __future__ import annotations

import jax
from jax import lax

from jconv.algorithm import Algorithm, Native, Step
from jconv.spec import ConvSpec, Role


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """One `lax.conv_general_dilated`, channels last."""
    x, spec = _cropped(x, spec)
    n = spec.ndim
    last = lax.ConvDimensionNumbers(
        (0, n + 1, *range(1, n + 1)), (n + 1, n, *range(n)), (0, n + 1, *range(1, n + 1))
    )
    return lax.conv_general_dilated(
        x, w, spec.strides, spec.padding, spec.lhs_dilation, spec.rhs_dilation, last,
        feature_group_count=spec.groups, precision=spec.precision,
        preferred_element_type=spec.y_dtype,
    )  # fmt: skip


def _cropped(x: jax.Array, spec: ConvSpec) -> tuple[jax.Array, ConvSpec]:
    """Cut off what a negative lo beside a positive hi takes away.

    XLA:CPU gets such a window wrong (jaxlib 0.10.2: kernel 2, padding (-1, 1), input 9; right in 0.12).
    Gradients meet it too: lo' = K − 1 − lo is negative where a user pads more than the kernel covers.
    """
    for axis, ((lo, hi), dilation) in enumerate(zip(spec.padding, spec.lhs_dilation, strict=True)):
        if lo < 0 < hi and dilation == 1 and -lo < x.shape[axis + 1]:
            x = lax.slice_in_dim(x, -lo, x.shape[axis + 1], axis=axis + 1)
            padding = (*spec.padding[:axis], (0, hi), *spec.padding[axis + 1 :])
            spec = spec.replace(spatial=x.shape[1:-1], padding=padding)
    return x, spec


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    return (Native(spec),)


XLA = Algorithm("xla", forward, steps=steps)
