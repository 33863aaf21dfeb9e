"""One call of oneDNN's convolution of whatever problem, brought inside of what was verified.

Of what `onednn.rejects` lets through, that was verified (`jconv.runtime.verified`) where no padding is larger
than dilation·(taps − 1), no axis is shorter than the kernel's extent, and a dilated depthwise kernel meets no
padding.  Other paddings are made beforehand, by padding or cutting x.  In bfloat16 an odd number of channels
would be paired with a neighbour times zero, and 0·NaN is NaN: so a channel of zeros is added.  int8 goes
through float32, since oneDNN's own kernels write past their heap where there is padding: float32 sums 1024
products exactly, int32 adds the sums.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms import onednn_calls
from jconv.algorithms.gemm import by_image
from jconv.algorithms.windows import from_planes, planes, resized
from jconv.spec import ConvSpec, Ints


def direct(
    x: jax.Array, w: jax.Array, spec: ConvSpec, *, swapped: bool = False, lies: Ints | None = None
) -> jax.Array:
    """y of an undilated x by one call; `swapped`: the kernel is (*r, g·o, c), `lies`: how in memory."""
    # the arrays are wider than the spec says where its dtypes differ
    result = {"float32": "float32", "int8": "int32"}.get(x.dtype.name, spec.y_dtype)
    spec = spec.replace(x_dtype=x.dtype.name, w_dtype=w.dtype.name, y_dtype=result)
    x, spec = _inside(x, spec)
    how = {"bfloat16": _halves, "int8": _integers}.get(spec.x_dtype, onednn_calls.convolution)
    return how(x, w, spec, swapped=swapped, lies=lies)


def _inside(x: jax.Array, spec: ConvSpec) -> tuple[jax.Array, ConvSpec]:
    """x and its spec, padded or cut where its padding or its length lies outside of what was verified."""
    moved = moved_padding(spec)
    x = resized(x, [(lo, hi, 0) for lo, hi in moved], in_order=not spec.channels_first)
    left = tuple((lo - a, hi - b) for (lo, hi), (a, b) in zip(spec.padding, moved, strict=True))
    return x, spec.replace(spatial=x.shape[1:-1], padding=left)


def moved_padding(spec: ConvSpec) -> list[tuple[int, int]]:
    """How much of every axis' padding is made beforehand: all of it where the axis is shorter than the
    window or a depthwise kernel is dilated, else what is negative and what the window does not reach."""
    moved, spread = [], spec.is_depthwise and max(spec.rhs_dilation) > 1
    for sides, window, size in zip(spec.padding, spec.window, spec.spatial, strict=True):
        short = size + sum(min(side, 0) for side in sides) < window
        lo, hi = sides if short or spread else (min(side, 0) + max(0, side - window + 1) for side in sides)
        moved.append((lo, hi))
    return moved


# until jaxlib ?: oneDNN's kernel for one channel, if tall, ends the process
MOST_ALONE = 1e9  # height³·width of the kernel and the image, a third of where it was seen to
# until jaxlib 0.12.0.1: oneDNN's kernel for one column loses channels beyond a multiple of 16
BLOCK = 16


def outside(spec: ConvSpec) -> str | None:
    """Why an undilated x cannot be brought inside of what was verified, or None."""
    alone = spec.in_channels == 1 and spec.ndim == 2 and max(spec.rhs_dilation) == 1
    if alone and spec.kernel[0] ** 3 * spec.padded[1] > MOST_ALONE:
        return f"a kernel as tall as {spec.kernel} on one channel, which oneDNN cannot compute"
    column = spec.kernel[-1] == spec.out_spatial[-1] == 1 < spec.taps
    whole = spec.c % BLOCK == 0 and spec.x_dtype == "float32"  # int8 is cut into any number of channels
    if column and spec.c > BLOCK and not whole:
        return f"one column of {spec.c} channels, some of which oneDNN loses"
    return None


def _halves(x: jax.Array, w: jax.Array, spec: ConvSpec, *, swapped: bool, lies: Ints | None) -> jax.Array:
    """bfloat16: channels last, and an even number of them in a group unless it is one."""
    if multiplies_planes(spec):
        return _planes_product(x, w, spec, swapped)
    spec = spec.replace(channels_first=False)
    if spec.c % 2 and not spec.is_depthwise:
        x, w, spec = _even(x, w, spec, swapped)
    return onednn_calls.convolution(x, w, spec, swapped=swapped, lies=lies)


def multiplies_planes(spec: ConvSpec) -> bool:
    """Whether a 1×1 kernel in bfloat16 multiplies every image as it lies, channels first."""
    return is_pixelwise(spec) and by_image(spec, math.prod(spec.out_spatial))


def is_pixelwise(spec: ConvSpec) -> bool:
    """Whether every output is a product of one pixel's channels with the kernel."""
    return spec.is_pointwise and spec.groups == 1 and not spec.is_padded and not spec.is_strided


def _planes_product(x: jax.Array, w: jax.Array, spec: ConvSpec, swapped: bool) -> jax.Array:
    """(o, c) times the planes (n, c, p).  The kernel is small, and is repeated for every image."""
    rows = jnp.swapaxes(w, -1, -2).reshape(w.shape[-1], w.shape[-2])
    each = jnp.broadcast_to(rows, (spec.batch, *rows.shape))
    y = onednn_calls.matmul(each, planes(x), spec.y_dtype, transpose_a=swapped)
    return from_planes(y, spec.out_spatial)


def _even(x: jax.Array, w: jax.Array, spec: ConvSpec, swapped: bool) -> tuple[jax.Array, jax.Array, ConvSpec]:
    """All three with a channel of zeros more in every group."""
    # until jaxlib ?: oneDNN pairs an odd channel of bfloat16 with its neighbour times zero
    into = spec.ndim + 1 if swapped else spec.ndim
    w = jnp.pad(w, [(0, int(axis == into)) for axis in range(w.ndim)])
    apart = x.reshape(*x.shape[:-1], spec.groups, spec.c)
    x = jnp.pad(apart, [*[(0, 0)] * x.ndim, (0, 1)]).reshape(*x.shape[:-1], -1)
    return x, w, spec.replace(in_channels=x.shape[-1])


EXACT = 2**24 // 128**2  # products of two int8 whose sum float32 holds exactly, whatever they are


def _integers(x: jax.Array, w: jax.Array, spec: ConvSpec, **never: object) -> jax.Array:
    """int8 to int32, forward: as many channels at a time as float32 sums exactly."""
    most = spec.c if spec.groups > 1 else EXACT // spec.taps
    wide = spec.with_dtype("float32")

    def part(at: int) -> jax.Array:
        a, b = x[..., at : at + most * spec.groups], w[..., at : at + most, :]
        some = wide.replace(in_channels=a.shape[-1])
        return onednn_calls.convolution(a.astype("float32"), b.astype("float32"), some).astype(spec.y_dtype)

    return functools.reduce(lax.add, map(part, range(0, spec.c, most)))
