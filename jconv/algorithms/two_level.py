"""Multiply first, then shift and add, a block of taps at a time: the blocks of a long kernel as channels.

    v[q, a·o] = Σ_{b < T, c}  x̃[q + b, c] · w[s_a + b, c, o]      one convolution, to A·o channels
    y[p, o]   = Σ_a v[p + s_a, a·o]                               A shifted additions

where the taps of the first axis are cut into A blocks of T, block a from tap s_a on (in steps of the
kernel's dilation).  Libraries fill a vector register with output channels, so a kernel to one or two of them
runs at a fraction of the rate however long it is; to A·o channels it runs at all of it.  ∂w is in
`two_level_gradient`.  Cost: v, and the positions q that only some blocks use.  Wins for long and large
kernels to few channels, so above all in the input gradient of a filter bank; loses where a kernel is short
or its channels are many.

Source: block realisation of filters; Burrus, "Block realization of digital filters", 1972.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms import two_level_gradient
from jconv.algorithms.onednn import ONEDNN
from jconv.algorithms.record import Algorithm, Loop, Step, evaluate
from jconv.algorithms.two_level_gradient import FILLED
from jconv.algorithms.windows import resized, spaced
from jconv.algorithms.work import steps_inside
from jconv.algorithms.work import workspace as workspace_of
from jconv.algorithms.xla import XLA
from jconv.spec import ConvSpec, Role, extent

FEWEST = 64  # taps of a kernel that is worth cutting


def starts(spec: ConvSpec) -> list[int]:
    """s_a: the first tap of every block.  The last one starts early where T does not divide the taps."""
    T, k = block_length(spec), spec.kernel[0]
    return [min(at, k - T) for at in range(0, k, T)]


def block_length(spec: ConvSpec) -> int:
    """T: what leaves the fewest blocks that fill the channels."""
    return -(-spec.kernel[0] // -(-FILLED // spec.o))


def inside(spec: ConvSpec) -> ConvSpec:
    """The convolution to A·o channels."""
    T, dilation, lo = block_length(spec), spec.rhs_dilation[0], spec.padding[0][0]
    positions = spec.out_spatial[0] + (spec.kernel[0] - T) * dilation
    hi = positions - 1 + extent(T, dilation) - lo - spec.spatial[0]
    return spec.replace(
        kernel=(T, *spec.kernel[1:]),
        out_channels=len(starts(spec)) * spec.o,
        padding=((lo, hi), *spec.padding[1:]),
        y_dtype=spec.accumulator,
    )


def by(spec: ConvSpec) -> Algorithm:
    """What computes the convolution inside: oneDNN where it may and can, XLA's own elsewhere."""
    return ONEDNN if spec.onednn and ONEDNN.rejects(inside(spec)) is None else XLA


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y: the blocks' convolutions at once, shifted and added."""
    T, first, dilation = block_length(spec), starts(spec), spec.rhs_dilation[0]
    *blocks, last = (lax.slice_in_dim(w, at, at + T) for at in first)
    done = len(blocks) * T - first[-1]  # taps of the last block that are zero, and meet values of one window
    last = resized(last[done:], [(done, 0, 0)], 0)
    v = evaluate(by(spec), "forward", x, jnp.concatenate([*blocks, last], axis=-1), inside(spec))
    apart = zip(first, jnp.split(v, len(first), axis=-1), strict=True)
    shifted = (spaced(v, [s * dilation], spec.out_spatial[:1], [1]) for s, v in apart)
    return functools.reduce(lax.add, shifted)


def rejects(spec: ConvSpec) -> str | None:
    if not all(isinstance(size, int) for size in spec.kernel):
        return "a kernel of a size that only a run will tell"
    if not spec.ndim or spec.strides[0] != 1 or spec.lhs_dilation[0] != 1:
        return "the blocks' results are shifted along a first axis without stride or input dilation"
    if spec.groups != 1 or spec.o >= FILLED:
        return f"{spec.groups} groups of {spec.o} output channels; it takes one group of fewer than {FILLED}"
    if spec.taps < FEWEST or len(starts(spec)) < 2:
        return f"a {spec.kernel} kernel is too short to be worth cutting"
    return by(spec).rejects(inside(spec))


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    """Those of the convolution inside, and the additions, each of which reads one value of a line."""
    if role == "grad_kernel":
        return two_level_gradient.steps(spec)
    added = len(starts(spec)) * math.prod(spec.y_shape)
    return *steps_inside(by(spec), "forward", inside(spec)), Loop(added, added * 4, spec.o)


def workspace(spec: ConvSpec, role: Role) -> int:
    """Bytes of v, and of the temporaries of what computes it."""
    if role == "grad_kernel":
        return two_level_gradient.workspace(spec)
    return inside(spec).y_bytes + workspace_of(by(spec), "forward", inside(spec))


TWO_LEVEL = Algorithm(
    "overlap_add", forward, rejects, steps, workspace,
    grad_kernel=two_level_gradient.grad_kernel, own=two_level_gradient.own, variant="blocks of taps",
)  # fmt: skip
