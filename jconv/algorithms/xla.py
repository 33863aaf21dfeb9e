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
    n = spec.ndim
    last = lax.ConvDimensionNumbers(
        (0, n + 1, *range(1, n + 1)), (n + 1, n, *range(n)), (0, n + 1, *range(1, n + 1))
    )
    return lax.conv_general_dilated(
        x, w, spec.strides, spec.padding, spec.lhs_dilation, spec.rhs_dilation, last,
        feature_group_count=spec.groups, precision=spec.precision,
        preferred_element_type=spec.y_dtype,
    )  # fmt: skip


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    return (Native(spec),)


XLA = Algorithm("xla", forward, steps=steps)
