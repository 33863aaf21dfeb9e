"""Unrolled: an N-d convolution as one of N−1 dimensions, the taps of the first axis made channels.

    u[n·d, h, r·c] = x̃[n, d·stride + r, h, c]
    y[n·d, p, o]   = Σ_s Σ_{r·c} u[n·d, p + s, r·c] · w[s, r·c, o]

The planes of a volume become the batch, and each carries the planes that its kernel reaches beside it.
Cost: a convolution that compilers are good at, and im2col along one axis only, which writes every value k
times and not k³ times.  Wins in 3-D, where the platform's own convolution is slow, and in 2-D for kernels of
many taps over few channels (AlexNet's first layer: half of XLA's time); loses on small images of many
channels, where moving the kernel is the work, and in groups, which `per_group` takes apart first.
"""

import functools
import math

import jax
import jax.numpy as jnp

from jconv.algorithms import pieces
from jconv.algorithms.record import Algorithm, Loop, Repeated, Step, evaluate
from jconv.algorithms.windows import MAX_SLICES, pad, padded_bytes, put_together, tap_along
from jconv.algorithms.work import steps_inside
from jconv.algorithms.work import workspace as workspace_of
from jconv.spec import ConvSpec, Role


def inside(spec: ConvSpec) -> ConvSpec:
    """The convolution of one dimension less."""
    return spec.replace(
        batch=spec.batch * spec.out_spatial[0],
        in_channels=spec.kernel[0] * spec.in_channels,
        spatial=spec.spatial[1:],
        kernel=spec.kernel[1:],
        strides=spec.strides[1:],
        padding=spec.padding[1:],
        lhs_dilation=spec.lhs_dilation[1:],
        rhs_dilation=spec.rhs_dilation[1:],
    )


def _first_axis_only(spec: ConvSpec) -> ConvSpec:
    """The spec whose padding and dilation touch nothing but the first axis."""
    one = (1,) * (spec.ndim - 1)
    return spec.replace(
        kernel=(spec.kernel[0], *one),
        strides=(spec.strides[0], *one),
        padding=(spec.padding[0], *[(0, 0)] * len(one)),
        lhs_dilation=(spec.lhs_dilation[0], *one),
        rhs_dilation=(spec.rhs_dilation[0], *one),
    )


def unroll(x: jax.Array, spec: ConvSpec) -> jax.Array:
    """(n, h, …, c) → (n·d, …, r·c): beside every plane those that its taps see."""
    x = pad(x, _first_axis_only(spec))
    taps = [tap_along(x, 0, r, spec) for r in range(spec.kernel[0])]
    return jnp.concatenate(taps, axis=-1).reshape(inside(spec).x_shape)


def _kernel_inside(w: jax.Array, spec: ConvSpec) -> jax.Array:
    """(r, *s, c, o) → (*s, r·c, o)."""
    return jnp.moveaxis(w, 0, spec.ndim - 1).reshape(inside(spec).w_shape)


def _bytes(spec: ConvSpec) -> int:
    """Bytes of all planes with those beside them."""
    return inside(spec).x_bytes


def _own(spec: ConvSpec, role: Role) -> bool:
    """The kernel's gradient, but not of halves, which XLA:CPU rounds after every slice; the input's where a
    stride would leave planes of zeros to convolve."""
    if role == "grad_kernel":
        return not spec.is_half
    return spec.ndim > 0 and spec.strides[0] > 1


def _forward(inner: Algorithm, x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    w, part = _kernel_inside(w, spec), pieces.cut(spec, _bytes(spec))

    def compute(x: jax.Array) -> jax.Array:
        return evaluate(inner, "forward", unroll(x, part), w, inside(part)).reshape(part.y_shape)

    return pieces.mapped(compute, x, spec, part)


def _grad_input(inner: Algorithm, g: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂x: that of all planes at once, each put back where its taps saw it."""
    sub = inside(spec).replace(x_dtype=spec.accumulator)  # planes are added up before they are rounded
    u = evaluate(inner, "grad_input", g.reshape(sub.y_shape), _kernel_inside(w, spec), sub)
    u = u.reshape(spec.batch, spec.out_spatial[0], *spec.spatial[1:], spec.kernel[0], spec.c)
    return put_together((u[..., r, :] for r in range(spec.kernel[0])), _first_axis_only(spec))


def _grad_kernel(inner: Algorithm, x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    part = pieces.cut(spec, _bytes(spec))
    sub = inside(part).replace(w_dtype=spec.accumulator)  # pieces are added up before they are rounded

    def compute(x: jax.Array, g: jax.Array) -> jax.Array:
        w = evaluate(inner, "grad_kernel", unroll(x, part), g.reshape(sub.y_shape), sub)
        w = w.reshape(*spec.kernel[1:], spec.kernel[0], spec.c, spec.o)
        return jnp.moveaxis(w, spec.ndim - 1, 0)

    return pieces.summed(compute, x, g, spec, part)


def _rejects(inner: Algorithm, spec: ConvSpec) -> str | None:
    if spec.ndim < 2:
        return f"{spec.ndim} spatial dimensions: there is none to spare"
    if not 1 < spec.kernel[0] <= MAX_SLICES:
        return f"{spec.kernel[0]} taps along the first axis; it unrolls 2 to {MAX_SLICES}"
    if spec.lhs_dilation[0] != 1:
        return "input dilation along the first axis: most of what it would copy is zeros"
    if spec.groups != 1:
        return f"{spec.groups} groups; they are faster taken apart first, as 'per_group' does"
    return inner.rejects(inside(spec))


def _steps(inner: Algorithm, spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    part = spec if role == "grad_input" else pieces.cut(spec, _bytes(spec))
    count = math.prod(pieces.counts(spec, part))
    copy = Loop(0, pieces.passes(spec, part, 4) * _bytes(part), spec.c)
    transposed = Loop(0, 2 * spec.kernel_bytes, spec.o)
    return transposed, Repeated((copy, *steps_inside(inner, role, inside(part))), count)


def _workspace(inner: Algorithm, spec: ConvSpec, role: Role) -> int:
    if role == "grad_input":
        return 2 * _bytes(spec) + workspace_of(inner, role, inside(spec))
    part = pieces.cut(spec, _bytes(spec))
    around = padded_bytes(_first_axis_only(part)) + pieces.workspace(spec, part)
    return _bytes(part) + around + workspace_of(inner, role, inside(part))


def by_plane(inner: Algorithm) -> Algorithm:
    """The algorithm that hands `inner` a convolution of one dimension less.

    >>> from jconv.algorithms import XLA
    >>> from jconv.spec import ConvSpec
    >>> spec = ConvSpec.of(kernel=(3, 3, 3), spatial=(8, 28, 28), in_channels=16, out_channels=32)
    >>> by_plane(XLA).name, str(inside(spec))
    ('unrolled', '3×3 48→32 on 6×28×28, float32')
    """
    bound = functools.partial
    return Algorithm(
        "unrolled",
        bound(_forward, inner),
        bound(_rejects, inner),
        bound(_steps, inner),
        bound(_workspace, inner),
        bound(_grad_input, inner),
        bound(_grad_kernel, inner),
        inner.exact,
        lambda spec: inner.amplification(inside(spec)),
        own=_own,
        variant=f"{inner.name} inside",
    )
