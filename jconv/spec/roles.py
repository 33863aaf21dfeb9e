"""The three roles of one problem: the forward pass and its two gradients, each a convolution again.

`convspec` has the formulas.  What is here speaks of sizes only; `algorithms.derived` does it with arrays.
"""

import math

from jconv.spec.convspec import ConvSpec, Role

OPERANDS: dict[Role, str] = {"forward": "xw", "grad_input": "yw", "grad_kernel": "xy"}
RESULT: dict[Role, str] = {"forward": "y", "grad_input": "x", "grad_kernel": "w"}
ROLE_OF: dict[str, Role] = {result: role for role, result in RESULT.items()}


def rewritten(spec: ConvSpec, role: Role) -> ConvSpec:
    """The forward spec that computes `role` of `spec`."""
    return spec if role == "forward" else getattr(spec, f"as_{role}")()


def flips_image(spec: ConvSpec) -> bool:
    """Whether grad_input flips g and its result instead of the kernel."""
    sizes = math.prod(spec.w_shape), math.prod(spec.x_shape) + math.prod(spec.y_shape)
    known = all(isinstance(size, int) for size in sizes)
    return known and spec.taps > 1 and sizes[1] < sizes[0] and not spec.has_gaps


def is_transposed(spec: ConvSpec) -> bool:
    """The input is dilated and the stride is one: the gradient of a strided convolution."""
    return spec.has_gaps and not spec.is_strided


def canonical(spec: ConvSpec, role: Role) -> tuple[ConvSpec, Role]:
    """The same problem as the primitives pose it.

    With B the strided convolution behind a transposed one F, the forward of F is the grad_input of B, the
    grad_input of F is the forward, and the gradients of the kernel are one.

    >>> F = ConvSpec.of(spatial=(5,), kernel=(3,), lhs_dilation=(2,), padding=((1, 1),))
    >>> B, role = canonical(F, "forward")
    >>> role, B.strides, B.lhs_dilation
    ('grad_input', (2,), (1,))
    """
    if not is_transposed(spec) or spec.is_empty:
        return spec, role
    behind = spec.as_grad_input().replace(kernel_swapped=not spec.kernel_swapped)
    played: dict[Role, Role] = {"forward": "grad_input", "grad_input": "forward"}
    return behind.mirrored() if flips_image(behind) else behind, played.get(role, role)
