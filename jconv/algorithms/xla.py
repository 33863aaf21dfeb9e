"""XLA's own convolution, written in the forms that its compiler treats differently.

    xla         as `lax.conv_general_dilated` would be called: the reference and the one to beat
    xla_eigen   on CPU, the same convolution with a few zero rows too many, cut off again

XLA:CPU hands a 2-D convolution whose output is no larger than its input to YNNPACK, any other to
Eigen.  Eigen is the faster one for most dense stride-1 layers (2026-11, jax 0.10, AMD EPYC, 2 cores:
3×3 64→64 on 56² 0.82 against 1.05 ms; 32→32 on 282² 5 against 43 ms, where YNNPACK's buffer passes
32 MiB).  So padding the bottom until the output is one row higher than the input selects Eigen.  It
loses for strided stems of three channels, where YNNPACK is two to ten times faster.

The losers in numbers: a 2-D convolution written as 3-D with a unit axis also misses YNNPACK, and takes
2 to 10 times as long in Eigen's general path.  A stride folded into the channels (space to depth: 7×7 of
stride 2 over 3 channels as 4×4 over 12) takes 2.1 ms instead of 1.8 on 224², 3×3 1.2 instead of 1.3, its
kernel gradient 1.1 instead of 0.6: moving values three at a time costs what it gains (Intel Xeon).
"""

from __future__ import annotations

import math

import jax
from jax import lax

from jconv.algorithm import Algorithm, Loop, Native, Step
from jconv.spec import ConvSpec, Role, itemsize

_lax_conv = lax.conv_general_dilated  # taken at import: jconv's own may be put in its place later


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """One `lax.conv_general_dilated`, channels last."""
    x, spec = _cropped(x, spec)
    n = spec.ndim
    last = lax.ConvDimensionNumbers(
        (0, n + 1, *range(1, n + 1)), (n + 1, n, *range(n)), (0, n + 1, *range(1, n + 1))
    )
    return _lax_conv(
        x, w, spec.strides, spec.padding, spec.lhs_dilation, spec.rhs_dilation, last,
        feature_group_count=spec.groups, precision=spec.precision,
        preferred_element_type=spec.accumulator if x.dtype == spec.accumulator else spec.y_dtype,
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


# -- xla_eigen -------------------------------------------------------------------------------------


def heightened(spec: ConvSpec) -> ConvSpec:
    """The same convolution, padded at the bottom until it has more output rows than input rows."""
    lo, hi = spec.padding[0]
    more = max(0, spec.spatial[0] + 1 - spec.out_spatial[0]) * spec.strides[0]
    return spec.replace(padding=((lo, hi + more), *spec.padding[1:]))


def _forward_eigen(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    y = forward(x, w, heightened(spec))
    return lax.slice_in_dim(y, 0, spec.out_spatial[0], axis=1)


def _rejects_eigen(spec: ConvSpec) -> str | None:
    if spec.ndim != 2:
        return f"{spec.ndim} spatial dimensions: only 2-D convolutions go to YNNPACK by themselves"
    if any(s != 1 for s in (*spec.strides, *spec.lhs_dilation)):
        return "stride or input dilation: the extra rows would cost more than they gain"
    if spec.is_pointwise:
        return "one tap: a plain matrix product"
    if spec.taps > math.prod(spec.out_spatial):
        return "the kernel is larger than the output: Eigen takes 10 to 100 times as long"
    if spec.out_spatial[0] > spec.spatial[0]:
        return "its output is already larger than its input"
    return None


def _steps_eigen(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    """Where the channels come first, y is cut once more than it is turned."""
    cut = Loop(0, 2 * math.prod(spec.y_shape) * itemsize(spec.y_dtype), 1)
    return (Native(heightened(spec)), cut) if spec.channels_first else (Native(heightened(spec)),)


def _workspace_eigen(spec: ConvSpec, role: Role) -> int:
    return math.prod(heightened(spec).y_shape) * itemsize(spec.y_dtype)


XLA = Algorithm("xla", forward, steps=steps)
XLA_EIGEN = Algorithm("xla_eigen", _forward_eigen, _rejects_eigen, _steps_eigen, _workspace_eigen)
