"""Patches and back: unfold, fold and their channels-last twins im2col and col2im.

Windows of the input side by side, and the sum of windows where they overlap.  Both are made of slices,
so every dtype works, bools and integers too, values pass through bit for bit, and JAX differentiates
them to any order; each is the other's transpose.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Never, Unpack

import jax
from jax.typing import ArrayLike

from jconv.algorithms import windows
from jconv.api import arguments
from jconv.api.options import IntOrInts, PatchOptions, complete, spelled_out
from jconv.api.problem import Problem, hashable
from jconv.api.shapes import Shapes
from jconv.spec import ConvSpec, Ints, extent
from jconv.spec.checks import is_sequence, shown
from jconv.spec.layout import Layout
from jconv.spec.spelling import corrected

NEGATIVE = "jconv.conv_general_dilated_patches takes negative padding"


@corrected
@spelled_out(PatchOptions)
def unfold(x: ArrayLike, kernel_size: IntOrInts, *more: Never, **options: Unpack[PatchOptions]) -> jax.Array:
    """Sliding windows as columns, channels first: `torch.nn.functional.unfold` in any dimension.

    Args:
      x: `(n, c, *spatial)` or `(c, *spatial)`, of any dtype.
      kernel_size: one int per spatial dimension: three sizes with four axes are a volume `(c, d, h, w)`
        without a batch.  A single int stands for as many as `x` has after its batch and channels; with three
        axes `x` is an image without a batch, as in PyTorch, so write `(k,)` for windows of `(n, c, w)`.
      dilation, padding, stride: as in `conv2d`; `padding` takes (lo, hi) pairs too, but no names.

    Returns:
      `(n, c·Πk, L)` with L windows in row-major order; row `c·Πk + r` is tap r of channel c.

    Raises:
      ValueError, TypeError: an argument is wrong; the message names it and says what would work.

    >>> import jax.numpy as jnp, jconv
    >>> jconv.unfold(jnp.arange(4).reshape(1, 1, 4), (2,))
    Array([[[0, 1, 2],
            [1, 2, 3]]], dtype=int32)
    >>> volume = jnp.ones((1, 3, 8, 8))  # one channel, of depth 3
    >>> jconv.unfold(volume, (3, 3, 3)).shape, jconv.unfold(volume, (3, 3)).shape
    ((27, 36), (1, 27, 36))
    """
    x = arguments.array("x", x)
    return _unfold(_understand("unfold", x.shape, more, options, kernel_size=kernel_size), x)


@corrected
@spelled_out(PatchOptions)
def fold(
    cols: ArrayLike, output_size: IntOrInts, kernel_size: IntOrInts, *more: Never,
    **options: Unpack[PatchOptions],
) -> jax.Array:  # fmt: skip
    """Columns added up where they overlap, channels first: `torch.nn.functional.fold`.

    The transpose of `unfold`; `fold(unfold(x))` is x times the number of windows that see each position.

    Args:
      cols: `(n, c·Πk, L)` or `(c·Πk, L)`, of any dtype; bools are or-ed.
      output_size: spatial size of the result; one int per dimension, or one int for a square.
      kernel_size, dilation, padding, stride: as in the `unfold` that it undoes.

    Returns:
      `(n, c, *output_size)` or `(c, *output_size)`; errors are as in `unfold`.

    >>> import jax.numpy as jnp, jconv
    >>> cols = jconv.unfold(jnp.ones((1, 1, 4)), (2,))
    >>> jconv.fold(cols, (4,), (2,))
    Array([[[1., 2., 2., 1.]]], dtype=float32)
    """
    return _folded("fold", cols, output_size, kernel_size, more, options)


@corrected
@spelled_out(PatchOptions)
def im2col(x: ArrayLike, kernel_size: IntOrInts, *more: Never, **options: Unpack[PatchOptions]) -> jax.Array:
    """Sliding windows as rows, channels last: the left factor of a convolution by matrix product.

    `x` is `(n, *spatial, c)` or `(*spatial, c)` and the result `(n, L, Πk·c)`; column `r·c + i` is
    channel i of tap r, the order of an HWIO kernel.  Everything else is as in `unfold`.

    >>> import jax.numpy as jnp, jconv
    >>> x, w = jnp.ones((1, 5, 5, 2)), jnp.ones((3, 3, 2, 7))
    >>> (jconv.im2col(x, 3) @ w.reshape(-1, 7)).reshape(1, 3, 3, 7)[0, 0, 0, 0]
    Array(18., dtype=float32)

    Source: Chellapilla, Puri & Simard, "High performance convolutional neural networks for document
    processing", 2006.
    """
    x = arguments.array("x", x)
    return _unfold(_understand("im2col", x.shape, more, options, kernel_size=kernel_size), x)


@corrected
@spelled_out(PatchOptions)
def col2im(
    cols: ArrayLike, output_size: IntOrInts, kernel_size: IntOrInts, *more: Never,
    **options: Unpack[PatchOptions],
) -> jax.Array:  # fmt: skip
    """Rows added up where they overlap, channels last: the transpose of `im2col`.

    `cols` is `(n, L, Πk·c)` or `(L, Πk·c)` and the result `(n, *output_size, c)`; everything else is
    as in `fold`.

    >>> import jax.numpy as jnp, jconv
    >>> jconv.col2im(jnp.ones((1, 3, 2)), (4,), (2,)).ravel()
    Array([1., 2., 2., 1.], dtype=float32)
    """
    return _folded("col2im", cols, output_size, kernel_size, more, options)


def _folded(door: str, cols: Any, output_size: Any, kernel_size: Any, more: Any, options: Any) -> jax.Array:
    cols = arguments.array("cols", cols)
    sizes = dict(kernel_size=kernel_size, output_size=output_size)
    problem = _understand(door, cols.shape, more, options, **sizes)
    if cols.shape != (due := _columns_shape(problem)):
        raise ValueError(
            f"`cols` has shape {cols.shape}, but `output_size`={problem.spec.spatial} has windows "
            f"{problem.spec.out_spatial} and needs {due}"
        )
    return _fold(problem, cols)


def _understand(door: str, shape: Ints, more: Any, options: Any, **sizes: Any) -> Problem:
    """From the shape of an image, or of columns, which come with an `output_size`."""
    call = complete(door, PatchOptions, options, more)
    return _checked("NHWC" if door in ("im2col", "col2im") else "NCHW", shape, hashable(sizes | call))


@functools.lru_cache(maxsize=4096)
def _checked(name: str, shape: Ints, knobs: Any) -> Problem:
    """A problem of which only the windows matter."""
    knob = dict(knobs)
    if isinstance(knob["padding"], str):
        raise TypeError(
            f"`padding`={shown(knob['padding'])} has no meaning here; write ints or (lo, hi) pairs"
        )
    from_image = "output_size" not in knob
    ndim = _ndim(shape if from_image else None, knob)
    layout = arguments.layout(name, ndim)
    kernel, strides, dilation = (
        arguments.integers(size, knob[size], ndim) for size in ("kernel_size", "stride", "dilation")
    )
    if from_image:
        arguments.rank("x", shape, (ndim + 1, ndim + 2), f"(batch if any, channels, {ndim} spatial)")
        n, *spatial, c = Shapes(layout, shape, ()).image(layout)
        if 0 in (c, *spatial):
            raise ValueError(f"`x` may be empty in its batch only, got shape {shape}")
        batched = len(shape) == ndim + 2
    else:
        spatial = list(arguments.integers("output_size", knob["output_size"], ndim))
        n, c, batched = _columns(shape, kernel, layout)
    window = tuple(map(extent, kernel, dilation))
    pairs = arguments.padding(knob["padding"], spatial, window, strides, NEGATIVE)
    spec = ConvSpec.of(
        batch=n, in_channels=c, spatial=tuple(spatial), kernel=kernel, strides=strides, padding=pairs,
        rhs_dilation=dilation,
    )  # fmt: skip
    if 0 in spec.out_spatial:
        raise ValueError(
            f"`kernel_size`={kernel} covers {spec.window} positions with its dilation but the padded image "
            f"has only {spec.padded}: there is no window; enlarge `padding` or take a smaller kernel"
        )
    arguments.possible(spec.x_shape, (n, c, *kernel, *spec.out_spatial))
    return Problem("forward", spec, layout, "auto", batched)


def _ndim(shape: Ints | None, knob: dict[str, Any]) -> int:
    """As many as there are sizes; of one int, as many as the image has axes for, and of columns two."""
    for name in ("output_size", "kernel_size"):
        if is_sequence(sizes := knob.get(name)):
            if not sizes:
                raise ValueError(f"`{name}`={shown(sizes)} must be an int or one int per spatial dimension")
            return len(sizes)
    if shape is None or len(shape) == 3:
        return 2
    if len(shape) < 3:
        size = knob["kernel_size"]
        arguments.integers("kernel_size", size, 1)
        raise ValueError(
            f"`x` must have at least 3 axes (batch if any, channels, spatial) when `kernel_size` is an int, "
            f"got shape {shape}; for `x` of (channels, 1 spatial) write `kernel_size`=({size},)"
        )
    return len(shape) - 2


def _columns(shape: Ints, kernel: Ints, layout: Layout) -> tuple[int, int, bool]:
    """Images and channels of columns, and whether there is an axis of images."""
    order = "channels·taps, windows" if layout.channels_first else "windows, taps·channels"
    arguments.rank("cols", shape, (2, 3), f"(batch if any, {order})")
    rows, taps = shape[-2 if layout.channels_first else -1], math.prod(kernel)
    if rows % taps or not rows:
        raise ValueError(
            f"`cols` {shape} has {rows} values per window, but `kernel_size`={kernel} has {taps} taps; "
            f"it must be a multiple of {taps}"
        )
    return (shape[0] if len(shape) == 3 else 1), rows // taps, len(shape) == 3


def _columns_shape(problem: Problem) -> Ints:
    """The shape of the columns as the user has them."""
    spec = problem.spec
    rows, length = spec.taps * spec.in_channels, math.prod(spec.out_spatial)
    shape = (rows, length) if problem.layout.channels_first else (length, rows)
    return (spec.batch, *shape) if problem.batched else shape


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _unfold(problem: Problem, x: jax.Array) -> jax.Array:
    d = problem.spec.ndim
    columns = windows.patches(problem.canonical("x", x), problem.spec)
    if problem.layout.channels_first:  # (n, *p, *r, c) → (n, c, *r, *p)
        columns = columns.transpose(0, 2 * d + 1, *range(d + 1, 2 * d + 1), *range(1, d + 1))
    return columns.reshape(_columns_shape(problem))


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _fold(problem: Problem, columns: jax.Array) -> jax.Array:
    spec, d = problem.spec, problem.spec.ndim
    if problem.layout.channels_first:  # (n, c, *r, *p) → (n, *p, *r, c)
        columns = columns.reshape(spec.batch, spec.in_channels, *spec.kernel, *spec.out_spatial)
        columns = columns.transpose(0, *range(d + 2, 2 * d + 2), *range(2, d + 2), 1)
    columns = columns.reshape(spec.batch, *spec.out_spatial, *spec.kernel, spec.in_channels)
    return problem.users("x", windows.overlap_add(columns, spec))
