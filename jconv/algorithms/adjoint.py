"""Transposed convolution by the gradients of the strided convolution that it is the transpose of.

A convolution whose input is dilated by L is the input gradient, from y to x, of a convolution with stride L
whose kernel w' is w flipped and with its channels swapped.  So

    y = grad_input(x, w')      ∂x = forward(g, w')      ∂w' = grad_kernel(g, x)      of the strided one

and whatever computes these for a strided convolution serves a transposed one.  Cost: that of the gradient
inside, and of flipping the kernel and swapping its channels.  Wins in the kernel gradient, where the patches
of g are written and multiplied once, while `transposed` takes Πᵢ Lᵢ products with patches of x for each
(64→32, 4×4×4 of stride 2 on 16³: 10 ms, by phase 61; 2×2 of stride 2, 128→64 on 64²: 2.0 and 5.5; 2026-11,
jax 0.10, Intel Xeon, 2 cores).

Source: Zeiler, Krishnan, Taylor & Fergus, "Deconvolutional networks", 2010; Dumoulin & Visin, "A guide to
convolution arithmetic for deep learning", 2016, chapter 4.
"""

from __future__ import annotations

import functools

import jax

from jconv.algorithm import Algorithm, Loop, Step, run
from jconv.roles import swapped_kernel
from jconv.spec import ConvSpec, Role
from jconv.work import steps_inside, turning
from jconv.work import workspace as workspace_of

EXCHANGED: dict[Role, Role] = {
    "forward": "grad_input", "grad_input": "forward", "grad_kernel": "grad_kernel"
}  # fmt: skip


def _with_kernel(inner: Algorithm, role: Role, a: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    return run(inner, EXCHANGED[role], a, swapped_kernel(w, spec), spec.as_grad_input())


def _grad_kernel(inner: Algorithm, x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    strided = spec.as_grad_input()
    return swapped_kernel(run(inner, "grad_kernel", g, x, strided), strided)


def _rejects(inner: Algorithm, spec: ConvSpec) -> str | None:
    if all(d == 1 for d in spec.lhs_dilation):
        return "the input is not dilated: it is no transposed convolution"
    return inner.rejects(spec.as_grad_input())


def _steps(inner: Algorithm, spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    inside = steps_inside(inner, EXCHANGED[role], spec.as_grad_input())
    turned = Loop(0, 4 * spec.kernel_bytes)  # ∂w is flipped as it is written, not before it is read
    return turned if role == "grad_kernel" else turning(spec), *inside


def _workspace(inner: Algorithm, spec: ConvSpec, role: Role) -> int:
    return workspace_of(inner, EXCHANGED[role], spec.as_grad_input())


def by_adjoint(inner: Algorithm) -> Algorithm:
    """The algorithm that computes a transposed convolution by the gradients of `inner`.

    >>> from jconv.algorithms import IM2COL
    >>> by_adjoint(IM2COL).name
    'adjoint_im2col'
    """
    return Algorithm(
        f"adjoint_{inner.name}",
        functools.partial(_with_kernel, inner, "forward"),
        functools.partial(_rejects, inner),
        functools.partial(_steps, inner),
        functools.partial(_workspace, inner),
        functools.partial(_with_kernel, inner, "grad_input"),
        functools.partial(_grad_kernel, inner),
        exact=inner.exact,
        amplification=lambda spec: inner.amplification(spec.as_grad_input()),
        reads_planes=lambda spec, role: inner.reads_planes(spec.as_grad_input(), EXCHANGED[role]),
        reads_kernel=True,
    )
