"""XLA's own convolution with zeros around it that change how its compiler treats it.

    xla_eigen   on CPU: pads zero rows until the output is taller than the input, and cuts the output
    xla_framed  on CPU: pads one zero row where nothing is padded, and cuts the output
    xla_even    on CPU: makes an odd number of input channels even by a channel of zeros

XLA:CPU hands a 2-D convolution whose output is no larger than its input to YNNPACK, any other to
Eigen.  Eigen is the faster one for most dense stride-1 layers (2026-11, jax 0.10, AMD EPYC, 2 cores:
3×3 64→64 on 56² 0.82 against 1.05 ms; 32→32 on 282² 5 against 43 ms, where YNNPACK's buffer passes
32 MiB).  So padding the bottom until the output is one row higher than the input selects Eigen.  It
loses for strided stems of three channels, where YNNPACK is two to ten times faster.

YNNPACK writes all patches to memory if a convolution pads nothing, and none otherwise (3×3, 48→16 unpadded
and padded: 3.3 and 1.0 ms on 2×66², 38 and 5.7 on 11×66²; by Eigen 1.1 and 5.3; 2026-11, jax 0.10, Intel
Xeon, 2 cores).  So with a row of zeros below, and a row of the output cut off, it takes a third of the time.

YNNPACK is slow over an odd number of input channels where there are 32 or fewer output channels (3×3 on
2×40²: 3→20 takes 5 times as long as 4→20; 3→32 2.6, 7→32 2.0 and 33→32 1.6 times as long as with a channel
more; 5×5 3→32 on 8×32² takes 1.9 ms, with a channel more 0.5).  So a channel of zeros pays for its copy.

What lost: a 2-D convolution written as 3-D with a unit axis also misses YNNPACK, and takes
2 to 10 times as long in Eigen's general path.  A stride folded into the channels (space to depth: 7×7 of
stride 2 over 3 channels as 4×4 over 12) takes 2.1 ms instead of 1.8 on 224², 3×3 1.2 instead of 1.3, its
kernel gradient 1.1 instead of 0.6: moving values three at a time costs what it gains (Intel Xeon).
YNNPACK hands blocks of a row's columns and of output channels to the cores, and a small layer is one block:
3×3 64→64 on 8×56² runs on one core of two, 64→128 on both.  Strips of the image side by side make more
blocks and keep both cores busy, but with their copies are no faster than Eigen; bands of rows, written as
convolutions of their own, wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithm import Algorithm, Loop, Native, Step
from jconv.algorithms.xla import forward
from jconv.spec import ConvSpec, Role, itemsize

Rejects = Callable[[ConvSpec], str | None]

# -- with rows of zeros below ----------------------------------------------------------------------


def lengthened(spec: ConvSpec, rows: int) -> ConvSpec:
    """The same convolution with at least so many rows of output."""
    lo, hi = spec.padding[0]
    more = max(0, rows - spec.out_spatial[0]) * spec.strides[0]
    return spec.replace(padding=((lo, hi + more), *spec.padding[1:]))


def _for_eigen(spec: ConvSpec) -> ConvSpec:
    """The same convolution with more rows of output than of input."""
    return lengthened(spec, spec.spatial[0] + 1)


def is_framed(spec: ConvSpec) -> bool:
    """Whether any side is padded."""
    return any(side > 0 for sides in spec.padding for side in sides)


def _framed(spec: ConvSpec) -> ConvSpec:
    return lengthened(spec, spec.out_spatial[0] + 1)


def _rejects_rows(spec: ConvSpec) -> str | None:
    if spec.ndim != 2:
        return f"{spec.ndim} spatial dimensions: only 2-D convolutions go to YNNPACK by themselves"
    if any(s != 1 for s in (*spec.strides, *spec.lhs_dilation)):
        return "stride or input dilation: the extra rows would cost more than they gain"
    if spec.is_pointwise:
        return "one tap: a plain matrix product"
    if spec.taps > math.prod(spec.out_spatial):
        return "a kernel larger than the output, whose patches lie as the image does: zeros would move it"
    return None


def _rejects_eigen(spec: ConvSpec) -> str | None:
    if reason := _rejects_rows(spec):
        return reason
    if spec.out_spatial[0] > spec.spatial[0]:
        return "its output is already larger than its input"
    return None


def _rejects_framed(spec: ConvSpec) -> str | None:
    if reason := _rejects_rows(spec):
        return reason
    if is_framed(spec):
        return "it is padded already"
    return None


def _with_rows(name: str, longer: Callable[[ConvSpec], ConvSpec], rejects: Rejects) -> Algorithm:
    """XLA's convolution of the spec `longer` makes, with its extra rows of output cut off."""

    def run(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
        return lax.slice_in_dim(forward(x, w, longer(spec)), 0, spec.out_spatial[0], axis=1)

    def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
        # where the user's channels come first, y is cut and then transposed
        cut = Loop(0, 2 * math.prod(spec.y_shape) * itemsize(spec.y_dtype), 1)
        return (Native(longer(spec)), cut) if spec.channels_first else (Native(longer(spec)),)

    def workspace(spec: ConvSpec, role: Role) -> int:
        return math.prod(longer(spec).y_shape) * itemsize(spec.y_dtype)

    return Algorithm(name, run, rejects, steps, workspace)


# -- with a channel of zeros -----------------------------------------------------------------------

NARROW = 32  # output channels


def _even(spec: ConvSpec) -> ConvSpec:
    return spec.replace(in_channels=spec.c + 1)


def _forward_even(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    x = jnp.pad(x, [*[(0, 0)] * (spec.ndim + 1), (0, 1)])
    return forward(x, jnp.pad(w, [*[(0, 0)] * spec.ndim, (0, 1), (0, 0)]), _even(spec))


def _rejects_even(spec: ConvSpec) -> str | None:
    if spec.ndim != 2 or spec.groups > 1:
        return "only 2-D convolutions of one group go to YNNPACK by themselves"
    if spec.c % 2 == 0 or spec.c == 1:
        return f"{spec.c} input channels; it makes an odd number of three or more even"
    if spec.o > NARROW:
        return f"{spec.o} output channels; odd ones are slow only up to {NARROW}"
    return None


def _steps_even(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    return Loop(0, 2 * math.prod(_even(spec).x_shape) * itemsize(spec.x_dtype), spec.c), Native(_even(spec))


def _workspace_even(spec: ConvSpec, role: Role) -> int:
    return math.prod(_even(spec).x_shape) * itemsize(spec.x_dtype)


XLA_EIGEN = _with_rows("xla_eigen", _for_eigen, _rejects_eigen)
XLA_FRAMED = _with_rows("xla_framed", _framed, _rejects_framed)
XLA_EVEN = Algorithm("xla_even", _forward_even, _rejects_even, _steps_even, _workspace_even)
