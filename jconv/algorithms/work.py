"""The steps and temporaries of an algorithm in any role and layout, which the cost model adds up.

An algorithm's record states them for its own functions alone.  Added here are transposing the user's arrays,
and flipping a kernel or an image where one role is computed by another.
"""

from jconv.algorithms.record import Algorithm, Loop, Step, form, own
from jconv.spec import ConvSpec, Role
from jconv.spec.roles import flips_image, rewritten


def steps(algorithm: Algorithm, role: Role, spec: ConvSpec) -> tuple[Step, ...]:
    """The steps of `role`, and of transposing the user's arrays, value by value, for an algorithm that cannot
    read them channels first: x and y to channels last or back again, and the kernel."""
    algorithm = form(algorithm, role, spec)
    inside = steps_inside(algorithm, role, spec)
    moved = 0
    if spec.channels_first and not algorithm.reads_channels_first(spec, role):
        # A kernel gradient computed as a forward takes the channels of x as its batch: in a single image they
        # come first already.
        as_batch = role == "grad_kernel" and not own(algorithm, role, spec) and spec.batch == 1
        moved = spec.y_bytes if as_batch else spec.image_bytes
    if spec.channels_first and not algorithm.reads_kernel:
        # of a single tap, each cache line is read for one value
        moved += spec.kernel_bytes * (1 if spec.taps > 1 else 4)
    return (Loop(0, 2 * moved, 1), *inside) if moved else inside


def steps_inside(algorithm: Algorithm, role: Role, spec: ConvSpec) -> tuple[Step, ...]:
    """The steps of `role`, or of the forward it is rewritten to where the algorithm has no `role` of its own;
    without transposing arrays, which an algorithm that calls this one does itself."""
    algorithm = form(algorithm, role, spec)
    is_own = own(algorithm, role, spec) is not None
    # a kernel that was swapped before is swapped back by one that swaps it, which moves nothing (channels
    # first, as OIHW, all of it is moved in any case)
    undone = spec.kernel_swapped and not spec.channels_first
    swapped = (is_own == undone) if role == "grad_input" else undone and role == "grad_kernel"
    moved = (swapping(spec),) if swapped and not (is_own and algorithm.reads_swapped(spec, role)) else ()
    inside = algorithm.steps(spec, role) if is_own else algorithm.steps(rewritten(spec, role), "forward")
    return *moved, *inside


FLIPPED = 5  # flipping a value costs as much as copying it so many times
LARGE_KERNEL = 8e5  # bytes of a kernel from which its values lie too far apart to swap its channels fast


def swapping(spec: ConvSpec) -> Loop:
    """The step of swapping the kernel's channels and flipping it or the image.  A large kernel is moved value
    by value."""
    w = spec.kernel_bytes
    smaller = spec.image_bytes if flips_image(spec) else w
    flipped = 2 * FLIPPED * smaller if spec.taps > 1 else 0
    return Loop(0, 4 * w + flipped // 2, 1) if w >= LARGE_KERNEL else Loop(0, 2 * w + flipped)


def splitting(spec: ConvSpec) -> tuple[Step, ...]:
    """The step of making a matrix of each group's part of the kernel, which moves runs of its outputs far
    apart."""
    return (Loop(0, 7 * spec.kernel_bytes, spec.o),) if spec.groups > 1 else ()


def workspace(algorithm: Algorithm, role: Role, spec: ConvSpec) -> int:
    """Bytes of temporaries of `role`, or of the forward it is rewritten to, without the transposed arrays."""
    algorithm = form(algorithm, role, spec)
    if own(algorithm, role, spec):
        return algorithm.workspace(spec, role)
    return algorithm.workspace(rewritten(spec, role), "forward")
