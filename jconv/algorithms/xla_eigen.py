"""XLA's own convolution with rows of zeros below, so that its compiler hands it to Eigen, not to YNNPACK.

XLA:CPU hands a 2-D convolution whose output is no larger than its input to YNNPACK, any other to Eigen.
Eigen is the faster one for most dense stride-1 layers.  So the bottom is padded until the output is one row
higher than the input, and the row is cut off again.  It loses for strided stems of three channels, where
YNNPACK is two to ten times faster.
"""

import math

import jax
from jax import lax

from jconv.algorithms.record import Algorithm, Loop, Native, Step
from jconv.algorithms.xla import forward as by_xla
from jconv.spec import ConvSpec, Role


# until jaxlib ?: XLA:CPU hands a 2-D convolution to YNNPACK by its sizes
def lengthened(spec: ConvSpec) -> ConvSpec:
    """The same convolution with more rows of output than of input."""
    lo, hi = spec.padding[0]
    more = max(0, spec.spatial[0] + 1 - spec.out_spatial[0])
    return spec.replace(padding=((lo, hi + more), *spec.padding[1:]))


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y: XLA's convolution of the longer spec, its extra rows cut off."""
    return lax.slice_in_dim(by_xla(x, w, lengthened(spec)), 0, spec.out_spatial[0], axis=1)


def rejects(spec: ConvSpec) -> str | None:
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


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    # where the user's channels come first, y is cut and then transposed
    cut = Loop(0, 2 * spec.y_bytes, 1)
    return (Native(lengthened(spec)), cut) if spec.channels_first else (Native(lengthened(spec)),)


def workspace(spec: ConvSpec, role: Role) -> int:
    return lengthened(spec).y_bytes


XLA_EIGEN = Algorithm("xla_eigen", forward, rejects, steps, workspace)
