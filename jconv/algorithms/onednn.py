"""oneDNN's convolution, which lies in jaxlib's own wheel and which XLA:CPU runs without a flag.

    forward      one call; of a dilated input one for each output phase (`phase`)
    grad_input   the same, of g; the kernel's channels are swapped by dimension numbers and not in memory
                 (in groups, its groups are brought beside the channels that come out)
    grad_kernel  another convolution (`onednn_lines`, in groups `onednn_rows`), in one dimension and with a
                 1×1 kernel a product (`onednn_products`), and of a depthwise one the depthwise convolution of
                 x with g (`onednn_images`)

float32 stands in for bfloat16 on processors where oneDNN's own kernels for it were not verified, and sums are
rounded once, as sums of halves are anyway (`is_widened`).

Cost: the direct sum, and copying the kernel into the order in which oneDNN multiplies.  It wins for layers of
nearly every kind and size; it loses to `depthwise` where a group has one channel and the channels come first
or there is a stride or a dilation, and to XLA's own for tiny problems.

Source: oneDNN, https://github.com/uxlfoundation/oneDNN.
"""

import functools
import math
from types import ModuleType

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms import onednn_images, onednn_lines, onednn_products, onednn_rows, pieces
from jconv.algorithms.derived import flipped, swapped_kernel
from jconv.algorithms.onednn_direct import EXACT, direct, moved_padding, multiplies_planes, outside
from jconv.algorithms.phase import by_phase
from jconv.algorithms.record import Algorithm, Loop, OneDnn, Step
from jconv.algorithms.windows import WRITTEN_OUT, resized
from jconv.runtime import verified
from jconv.spec import ConvSpec, Role
from jconv.spec.roles import flips_image, is_transposed


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y: one call, or one for each phase of a dilated input."""
    x, w, spec = _widened(x, w, spec)
    return PHASES.forward(x, w, spec) if spec.has_gaps else _direct(x, w, spec)


def _direct(x: jax.Array, w: jax.Array, spec: ConvSpec, *, swapped: bool = False) -> jax.Array:
    """y of an undilated x, at once or in pieces."""
    part = _part(spec)
    return pieces.mapped(functools.partial(direct, w=w, spec=part, swapped=swapped), x, spec, part)


def _part(spec: ConvSpec) -> ConvSpec:
    """The spec of a piece.  Images whose channels come first oneDNN copies, there and back, which takes long
    where it needs fresh memory for that."""
    copied = spec.channels_first and spec.taps > 1 and spec.image_bytes > pieces.REUSED
    return pieces.cut(spec, spec.image_bytes, pieces.IN_CACHE) if copied else spec


def grad_input(g: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂x: a convolution of g.  Whatever is smaller is flipped, the kernel or g and ∂x."""
    g, w, spec = _widened(g, w, spec)
    back = spec.as_grad_input()
    if spec.groups == 1 and not back.has_gaps and flips_image(spec):
        return flipped(_direct(flipped(g), w, back.mirrored(), swapped=True))
    w = lax.rev(w, tuple(range(spec.ndim))) if spec.taps > 1 else w
    w = _groups_out(w, spec)
    return SWAPPED_PHASES.forward(g, w, back) if back.has_gaps else _direct(g, w, back, swapped=True)


def _groups_out(w: jax.Array, spec: ConvSpec) -> jax.Array:
    """(*r, c, g·o) → (*r, g·c, o), which dimension numbers swap: o lies side by side before and after.

    XLA copies runs of o, where to swap c and o inside a group it would copy value by value.
    """
    if spec.groups == 1:
        return w
    apart = w.reshape(*spec.kernel, spec.c, spec.groups, spec.o)
    return jnp.swapaxes(apart, spec.ndim, spec.ndim + 1).reshape(*spec.kernel, spec.in_channels, spec.o)


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w.

    A dilated x is the gradient, and g the input, of a strided convolution; with a stride as well its zeros
    are written out.
    """
    x, g, spec = _widened(x, g, spec)
    if is_transposed(spec):
        strided = spec.as_grad_input()
        return swapped_kernel(_way(strided).grad_kernel(g, x, strided), strided)
    if spec.has_gaps:
        x = resized(x, [(0, 0, d - 1) for d in spec.lhs_dilation])
        spec = spec.replace(spatial=x.shape[1:-1], lhs_dilation=(1,) * spec.ndim)
    return _way(spec).grad_kernel(x, g, spec)


def _way(spec: ConvSpec) -> ModuleType:
    """The file that computes the kernel's gradient of an undilated x."""
    ways = onednn_products, onednn_images, onednn_lines
    return next((way for way in ways if way.applies(spec)), onednn_rows)


def is_widened(spec: ConvSpec) -> bool:
    """Whether float32 stands in for bfloat16, which was not verified on this processor.  A wider result than
    oneDNN's own is summed wider, and no stand-in is enough for it."""
    halves = spec.x_dtype == spec.w_dtype == "bfloat16"
    if not halves or spec.y_dtype not in verified.DTYPES["bfloat16"].results:
        return False
    unseen = verified.refusal_of("bfloat16", spec.y_dtype) is not None
    return unseen and verified.refusal_of("float32", "float32") is None


def _as_computed(spec: ConvSpec) -> ConvSpec:
    """The spec, or the one in float32 that stands in for it."""
    return spec.wide if is_widened(spec) else spec


def _widened(a: jax.Array, b: jax.Array, spec: ConvSpec) -> tuple[jax.Array, jax.Array, ConvSpec]:
    """Two arrays and their spec as they are computed."""
    if not is_widened(spec):
        return a, b, spec
    return a.astype("float32"), b.astype("float32"), spec.wide


def rejects(spec: ConvSpec) -> str | None:
    spec = _as_computed(spec)
    if reason := verified.refusal() or _rejects_dtypes(spec) or _rejects_sizes(spec):
        return reason
    if spec.x_dtype == "int8" and spec.taps * (spec.c if spec.groups > 1 else 1) > EXACT:
        return f"int8 sums of more than {EXACT} products that cannot be taken apart by channels"
    if reason := _rejects_groups(spec):
        return reason
    return PHASES.rejects(spec) if spec.has_gaps else None


def _rejects_sizes(spec: ConvSpec) -> str | None:
    sizes = (*spec.x_shape, *spec.w_shape, *sum(spec.padding, ()))
    if not all(isinstance(size, int) for size in sizes):
        return "a size that only a run will tell; oneDNN's calls state every size"
    if not 1 <= spec.ndim <= 3:
        return f"{spec.ndim} spatial dimensions; oneDNN was verified with 1 to 3"
    return None if spec.has_gaps else outside(spec)


def _rejects_groups(spec: ConvSpec) -> str | None:
    """oneDNN has kernels of its own for groups in two and three dimensions, one to one or several to several
    channels; what else there is goes through a product inside a parallel loop, which waits for itself."""
    if spec.groups == 1:
        return None
    if spec.ndim == 1:
        return "groups in one dimension, for which oneDNN has no kernel"
    if spec.c != spec.o and 1 in (spec.c, spec.o):
        return f"groups of {spec.c} to {spec.o} channels, for which oneDNN has no kernel"
    return None


def _rejects_dtypes(spec: ConvSpec) -> str | None:
    """Arrays of different floats are widened to float32 before they come here."""
    if spec.x_dtype == spec.w_dtype:
        return verified.refusal_of(spec.x_dtype, spec.y_dtype)
    if {spec.x_dtype, spec.w_dtype, spec.y_dtype} <= {"float32", "bfloat16"}:
        return verified.refusal_of("float32", "float32")
    return f"{spec.x_dtype} with {spec.w_dtype} was not verified with oneDNN"


def own(spec: ConvSpec, role: Role) -> bool:
    """Whether the gradient given here is used: for floats, and not where it had too many phases."""
    spec = _as_computed(spec)
    floats = {spec.x_dtype, spec.w_dtype, spec.y_dtype} <= {"float32", "bfloat16"}
    if not floats or _rejects_sizes(spec):
        return False
    if role == "grad_input":
        back = spec.as_grad_input()
        return (PHASES.rejects(back) if back.has_gaps else outside(back)) is None
    seen = spec.as_grad_input() if is_transposed(spec) else spec
    if onednn_images.applies(seen) or onednn_lines.applies(seen):
        return True
    rows = onednn_rows.of_a_piece(seen)
    return seen.kernel[-1] <= WRITTEN_OUT and (_rejects_groups(rows) or outside(rows)) is None


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    if is_widened(spec):  # halves are read and float32 is written, or back
        return *steps(spec.wide, role), Loop(0, spec.bytes + spec.wide.bytes)
    if role == "grad_kernel":
        return (OneDnn(spec), Loop(0, 4 * spec.bytes, 1)) if spec.has_gaps else _way(spec).steps(spec)
    if role == "grad_input":
        return _steps_of_grad_input(spec)
    return PHASES.steps(spec, role) if spec.has_gaps else _direct_steps(spec, role)


def _steps_of_grad_input(spec: ConvSpec) -> tuple[Step, ...]:
    back = spec.as_grad_input()
    smaller = 2 * spec.image_bytes if flips_image(spec) else 2 * spec.kernel_bytes
    flip = (Loop(0, smaller, 4),) if spec.taps > 1 or spec.groups > 1 else ()
    return *flip, *(PHASES.steps if back.has_gaps else _direct_steps)(back, "forward")


def _direct_steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    copied = 2 * spec.x_bytes * any(map(any, moved_padding(spec)))
    return OneDnn(spec), *((Loop(0, copied),) if copied else ())


def workspace(spec: ConvSpec, role: Role) -> int:
    """Bytes of the kernel as oneDNN multiplies it, and of the copies of x."""
    if is_widened(spec):
        return workspace(spec.wide, role) + spec.wide.bytes
    if role == "grad_kernel":
        return _way(spec).workspace(spec)
    if role == "grad_input":
        flip = spec.image_bytes * flips_image(spec)
        return spec.kernel_bytes + _forward_workspace(spec.as_grad_input()) + flip
    return _forward_workspace(spec)


def _forward_workspace(spec: ConvSpec) -> int:
    if spec.has_gaps:
        return PHASES.workspace(spec, "forward")
    part = _part(spec)
    moved = math.prod(part.padded) * part.batch * part.in_channels * 4 * any(map(any, moved_padding(part)))
    return spec.kernel_bytes + moved + pieces.workspace(spec, part)


def reads_channels_first(spec: ConvSpec, role: Role) -> bool:
    """In bfloat16 images are transposed unless they are multiplied; a kernel gradient transposes x anyway."""
    spec = _as_computed(spec)
    return role == "grad_kernel" or spec.x_dtype != "bfloat16" or multiplies_planes(spec)


def _one(swapped: bool) -> Algorithm:
    """The undilated convolution that every phase is."""
    return Algorithm("onednn", functools.partial(direct, swapped=swapped), outside, _direct_steps,
                     workspace=lambda spec, role: spec.kernel_bytes,
                     reads_channels_first=reads_channels_first)  # fmt: skip


PHASES, SWAPPED_PHASES = by_phase(_one(swapped=False)), by_phase(_one(swapped=True))


ONEDNN = Algorithm(
    "onednn", forward, rejects, steps, workspace, grad_input, grad_kernel,
    reads_channels_first=reads_channels_first, reads_kernel=True, own=own, portable=False,
)  # fmt: skip
