"""What an algorithm has to do and to keep, in any role and layout: what the cost model adds up.

A record says it of its own functions alone.  Around them come the arrays turned from the user's order, and
a kernel or an image flipped where one role is computed by another.
"""

from __future__ import annotations

import math

from jconv.algorithm import Algorithm, Loop, Step, flips_image, own, rewritten
from jconv.spec import ConvSpec, Role, itemsize


def steps(algorithm: Algorithm, role: Role, spec: ConvSpec) -> tuple[Step, ...]:
    """The steps of `role`, and of turning the user's arrays for an algorithm that cannot read them as they
    lie: x and y made channels last or back again, and the kernel, a value at a time."""
    inside = steps_inside(algorithm, role, spec)
    if not spec.channels_first:
        return inside
    images = 0 if algorithm.reads_planes(spec, role) else _images_turned(algorithm, role, spec)
    kernel = 0 if algorithm.reads_kernel else _kernel_turned(spec)
    return (Loop(0, 2 * (images + kernel), 1), *inside) if images or kernel else inside


def _images_turned(algorithm: Algorithm, role: Role, spec: ConvSpec) -> int:
    """Bytes of x and y; but of a single image the planes are what a kernel gradient written as a forward
    wants."""
    as_batch = role == "grad_kernel" and not own(algorithm, role, spec) and spec.batch == 1
    return math.prod(spec.y_shape) * itemsize(spec.y_dtype) if as_batch else spec.image_bytes


def _kernel_turned(spec: ConvSpec) -> int:
    """Bytes of OIHW made HWIO: 0.6 ns a value, and several times that where none of its neighbours in a
    cache line is used with it (512×512×3×3 1.3 ms, 2048×4096 41; 2026-11, jax 0.10, Intel Xeon, 2 cores)."""
    return spec.kernel_bytes * (1 if spec.taps > 1 else 4)


def steps_inside(algorithm: Algorithm, role: Role, spec: ConvSpec) -> tuple[Step, ...]:
    """The steps of `role`, rewritten to a forward where the algorithm has none of its own; without what
    the algorithm around it does for all it calls."""
    if own(algorithm, role, spec):
        return algorithm.steps(spec, role)
    moved = (turning(spec),) if role == "grad_input" else ()
    return *moved, *algorithm.steps(rewritten(spec, role), "forward")


FLIPPED = 5  # what flipping a value costs, in copies of it
LARGE_KERNEL = 8e5  # bytes from which a kernel's values are far apart when its channels are swapped


def turning(spec: ConvSpec) -> Loop:
    """Swapping the channels of the kernel, and flipping it or the image; a large kernel value by value (3×3,
    512→512 2.8 ms, 160→320 0.4; 128→128 0.05; 2026-11, jax 0.10, Intel Xeon, 2 cores)."""
    w = spec.kernel_bytes
    smaller = spec.image_bytes if flips_image(spec) else w
    flipped = 2 * FLIPPED * smaller if spec.taps > 1 else 0
    return Loop(0, 4 * w + flipped // 2, 1) if w >= LARGE_KERNEL else Loop(0, 2 * w + flipped)


def workspace(algorithm: Algorithm, role: Role, spec: ConvSpec) -> int:
    """Bytes of temporaries of `role`, like `steps`."""
    if own(algorithm, role, spec):
        return algorithm.workspace(spec, role)
    return algorithm.workspace(rewritten(spec, role), "forward")
