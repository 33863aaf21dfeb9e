"""Transposed convolution in PyTorch's names: conv_transpose1d, 2d and 3d, and any dimension.

A transposed convolution *is* grad_input of an ordinary one, of the *matching* convolution that takes
an input as large as the result and gives an output as large as x.  With K = dilation·(k − 1) + 1,

    h = (p − 1)·stride − lo − hi + K + output_padding       rows of the result, p rows of x

the matching convolution has h rows in and, its `hi` being smaller by output_padding, exactly p out:

    (h + lo + (hi − output_padding) − K) / stride + 1 = p

So output_padding only says which of the inputs that give p rows is meant.  The gradients of a
transposed convolution are the matching convolution and its grad_kernel.

Source: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016, chapter 4.
"""

from __future__ import annotations

import functools
from typing import Any, Never, Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jconv.api import arguments, hints
from jconv.api.options import TransposedOptions, complete, spelled_out
from jconv.api.problem import Knobs, Problem, enlarged, hashable, no_padding, sizes, split
from jconv.calculus.primitives import convolve
from jconv.spec import ConvSpec, Ints, extent
from jconv.spec.checks import Pairs, is_sequence, shown
from jconv.spec.layout import Layout


@spelled_out(TransposedOptions)
def conv_transpose2d(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, *more: Never, **options: Unpack[TransposedOptions]
) -> jax.Array:
    """2-D transposed convolution: every input position adds a scaled copy of the kernel to the output.

    Args:
      x: input `(n, c_in, h, w)` or, for layout "NHWC", `(n, h, w, c_in)`; the batch axis may be left
        out and is then missing from the result too.
      w: kernel `(c_in, c_out/groups, kh, kw)`; for layout "NHWC" `(kh, kw, c_out/groups, c_in)`, the
        HWIO kernel of the convolution that this one transposes.  Same dtype as x.
      b: bias `(c_out,)`, or None; `bias=` is a second name for it.
      stride: distance between the kernel's copies, in output positions.
      padding: how much is cut off the output: an int, an int per dimension or a (lo, hi) pair each, of
        which a negative one extends it.  With K = dilation·(kh − 1) + 1 the names mean, as in Keras, Flax
        and lax (and, for K ≥ stride, in ONNX),
        "same": h·stride rows, K − stride of the full ones cut off, the odd one at the end
        "same_lower": the same, the odd one at the start
        "valid": nothing cut off, and at least h·stride rows
        where K < stride the rows that no copy reaches are at the end.
      output_padding: extra positions at the end of the output, fewer than stride or dilation.
      output_size: the spatial size of the output instead, or the whole shape, as PyTorch's layers take it:
        from the size without output_padding to stride − 1 more.  With "same" any size of which an
        ordinary "same" convolution makes h.
      groups: the channels are cut into this many groups that do not see each other.
      dilation: distance between kernel taps, in output positions.
      padding_mode: "zeros" cuts `padding` off.  With another mode this is the transpose of `conv2d` with
        that mode: what is cut off is added to the positions that the padding shows.  Flax's "CIRCULAR" is
        "circular" with "same_lower".
      layout, algorithm, precision, preferred_element_type: as in `conv2d`.

    Returns:
      `(n, c_out, p, q)` or `(n, p, q, c_out)` with
      `p = (h − 1)·stride − lo − hi + dilation·(kh − 1) + output_padding + 1`.

    Raises:
      ValueError, TypeError: an argument is wrong; the message names it and says what would work.

    >>> import jax.numpy as jnp, jconv
    >>> x = jnp.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> jconv.conv_transpose2d(x, jnp.ones((1, 1, 2, 2)), stride=2)
    Array([[[[1., 1., 2., 2.],
             [1., 1., 2., 2.],
             [3., 3., 4., 4.],
             [3., 3., 4., 4.]]]], dtype=float32)

    Source: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016, chapter 4.
    """
    return _conv_transpose("conv_transpose2d", 2, x, w, b, more, options)


@spelled_out(TransposedOptions)
def conv_transpose1d(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, *more: Never, **options: Unpack[TransposedOptions]
) -> jax.Array:
    """1-D transposed convolution: `conv_transpose2d` with one spatial dimension.

    `x` is `(n, c_in, w)` and `w` `(c_in, c_out/groups, k)`, or for layout "NWC" `(n, w, c_in)` and
    `(k, c_out/groups, c_in)`; everything else is as in `conv_transpose2d`.

    >>> import jax.numpy as jnp, jconv
    >>> jconv.conv_transpose1d(jnp.array([[[1.0, 10.0]]]), jnp.array([[[1.0, 2.0, 3.0]]]), stride=2)
    Array([[[ 1.,  2., 13., 20., 30.]]], dtype=float32)
    """
    return _conv_transpose("conv_transpose1d", 1, x, w, b, more, options)


@spelled_out(TransposedOptions)
def conv_transpose3d(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, *more: Never, **options: Unpack[TransposedOptions]
) -> jax.Array:
    """3-D transposed convolution: `conv_transpose2d` with three spatial dimensions.

    `x` is `(n, c_in, d, h, w)` and `w` `(c_in, c_out/groups, kd, kh, kw)`, or for layout "NDHWC"
    `(n, d, h, w, c_in)` and `(kd, kh, kw, c_out/groups, c_in)`; everything else is as in
    `conv_transpose2d`.

    >>> import jax.numpy as jnp, jconv
    >>> x, w = jnp.ones((1, 4, 3, 3, 3)), jnp.ones((4, 2, 4, 4, 4))
    >>> jconv.conv_transpose3d(x, w, stride=2, padding=1).shape
    (1, 2, 6, 6, 6)
    """
    return _conv_transpose("conv_transpose3d", 3, x, w, b, more, options)


@spelled_out(TransposedOptions)
def conv_transpose(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, *more: Never, **options: Unpack[TransposedOptions]
) -> jax.Array:
    """Transposed convolution in as many spatial dimensions as the kernel has.

    `x` is `(n, c_in, *spatial)` and `w` `(c_in, c_out/groups, *kernel)`, or for layout "NHWC", in any number
    of dimensions, `(n, *spatial, c_in)` and `(*kernel, c_out/groups, c_in)`; everything else is as in
    `conv_transpose2d`.

    >>> import jax.numpy as jnp, jconv
    >>> x, w = jnp.ones((1, 4, 3, 3, 3, 3)), jnp.ones((4, 2, 4, 4, 4, 4))
    >>> jconv.conv_transpose(x, w, stride=2, padding="same").shape
    (1, 2, 6, 6, 6, 6)
    """
    return _conv_transpose("conv_transpose", None, x, w, b, more, options)


def _conv_transpose(
    name: str, ndim: int | None, x: Any, w: Any, b: Any, more: tuple[Any, ...], options: Any
) -> jax.Array:
    """`ndim` is None where the kernel says it."""
    call = complete(name, TransposedOptions, options, more)
    bias = call.pop("bias")
    x, w = arguments.array("x", x), arguments.array("w", w)
    arguments.same_dtype(x=x, w=w)
    ndim = w.ndim - 2 if ndim is None else ndim
    problem = understand_transposed(ndim, x.shape, w.shape, x.dtype, hashable(call))
    b = arguments.bias(b, bias, problem.spec.in_channels, problem.spec.x_dtype)
    return _apply(problem, x, w, b)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _apply(problem: Problem, x: jax.Array, w: jax.Array, b: jax.Array | None) -> jax.Array:
    g, w = problem.canonical_y(x), w.transpose(problem.layout.w)
    y = problem.without_padding(convolve("grad_input", g, w, problem.spec, problem.algorithm))
    return problem.users_x(y if b is None else y + jnp.expand_dims(b, range(y.ndim - 1)))


@functools.lru_cache(maxsize=4096)
def understand_transposed(ndim: int, x_shape: Ints, w_shape: Ints, dtype: Any, knobs: Knobs) -> Problem:
    """The matching convolution, whose output is the user's x."""
    given = dict(knobs)
    if ndim < 1:
        raise ValueError(f"`w` must have two channel and at least one spatial axis, got shape {w_shape}")
    layout = arguments.layout(given["layout"], ndim)
    batched, n, spatial, channels, kernel, c, out = sizes(layout, ndim, x_shape, w_shape)
    with hints.about(
        layout, given["groups"], x_shape if batched else (1, *x_shape), w_shape, transposed=True
    ):
        groups = _groups(given["groups"], channels, out, x_shape, w_shape)
    strides = arguments.integers("stride", given["stride"], ndim)
    dilation = arguments.integers("dilation", given["dilation"], ndim)
    arguments.not_empty(spatial, w_shape, w_shape)
    pairs, more = _cut_and_added(
        given, layout, spatial, tuple(map(extent, kernel, dilation)), strides, dilation
    )
    result = _result(spatial, tuple(map(extent, kernel, dilation)), strides, pairs, more)
    mode = arguments.padding_mode(given["padding_mode"])
    inside, around = split(pairs, mode)
    spec = ConvSpec(
        n, c * groups, channels, enlarged(result, around), kernel, strides,
        tuple((lo, hi - m) for (lo, hi), m in zip(inside, more, strict=True)), (1,) * ndim, dilation, groups,
        arguments.result_dtype(given["preferred_element_type"], dtype), str(dtype), str(dtype),
        arguments.precision(given["precision"]), layout.channels_first,
    )  # fmt: skip
    algorithm = arguments.algorithm(given["algorithm"], "grad_input", spec)
    return Problem(spec, layout, algorithm, batched, mode, around)


def _groups(value: Any, channels: int, takes: int, x_shape: Ints, w_shape: Ints) -> int:
    if takes != channels:
        raise ValueError(
            f"`w` {w_shape} takes {takes} input channels, but `x` {x_shape} has {channels} channels; "
            f"its first channel axis (channels first) or last axis (channels last) needs {channels}"
        )
    return arguments.groups(value, channels, channels, x_shape, w_shape)


# -- how large the result is ------------------------------------------------------------------------


def _cut_and_added(
    given: dict[str, Any], layout: Layout, spatial: Ints, windows: Ints, strides: Ints, dilation: Ints
) -> tuple[Pairs, Ints]:
    """What is cut off, (lo, hi) per dimension, and the output_padding."""
    padding, wanted = given["padding"], given["output_size"]
    more = _output_padding(given["output_padding"], strides, dilation)
    none = (0,) * len(strides)
    if wanted is None:
        if isinstance(padding, str):
            return _named(padding, spatial, windows, strides, _times(spatial, strides)), more
        return _pairs(padding, len(strides)), more
    if any(more):
        raise ValueError("`output_padding` and `output_size` say the same thing twice; leave one of them out")
    size = _output_size(wanted, layout)
    if isinstance(padding, str) and arguments.padding_name(padding, NAMES) != "valid":
        _check_size(size, _times(spatial, strides, -1), strides, first=1)
        return _named(padding, spatial, windows, strides, size), none
    pairs = no_padding(len(size)) if isinstance(padding, str) else _pairs(padding, len(size))
    least = _full(spatial, windows, strides, pairs)
    _check_size(size, least, strides, first=0)
    return pairs, tuple(wanted - full for wanted, full in zip(size, least, strict=True))


NAMES = ("same", "same_lower", "valid")


def _named(value: str, spatial: Ints, windows: Ints, strides: Ints, size: Ints) -> Pairs:
    """Of the full result, as much is cut off as leaves `size`; "valid" only adds what is missing."""
    name = arguments.padding_name(value, NAMES)
    pairs = []
    for full, wanted in zip(_full(spatial, windows, strides, no_padding(len(size))), size, strict=True):
        lo, total = 0, full - wanted
        if name == "valid" or (isinstance(total, int) and total < 0):
            total = min(total, 0)
        else:
            lo = total // 2 if name == "same" else total - total // 2
        pairs.append((lo, total - lo))
    return tuple(pairs)


def _pairs(value: Any, ndim: int) -> Pairs:
    """Negative ones extend the result; as a single int, which PyTorch has too, they are a mistake."""
    pairs = arguments.pairs_of_ints(value, ndim)
    flat = not is_sequence(value) or not any(map(is_sequence, value))
    if flat and any(side < 0 for side in sum(pairs, ())):
        raise ValueError(
            f"`padding`={shown(value)} must be at least 0; to extend the result write (lo, hi) pairs, {pairs}"
        )
    return pairs


def _output_padding(value: Any, strides: Ints, dilation: Ints) -> Ints:
    more = arguments.integers("output_padding", value, len(strides), least=0)
    for m, s, d in zip(more, strides, dilation, strict=True):
        if m >= max(s, d):
            raise ValueError(
                f"`output_padding`={shown(value)} must be smaller than `stride`={s} or `dilation`={d}; "
                f"at most {max(s, d) - 1} fits"
            )
    return more


def _output_size(value: Any, layout: Layout) -> Ints:
    """The sizes in space, alone or with the batch and the channels around them."""
    ndim = len(layout.x) - 2
    if is_sequence(value) and len(value) == ndim + 2:
        value = [value[axis] for axis in layout.x[1:-1]]
    elif is_sequence(value) and len(value) == ndim + 1 and ndim > 0:
        value = value[1:] if layout.channels_first else value[:-1]
    return arguments.integers("output_size", value, ndim)


def _check_size(size: Ints, least: Ints, strides: Ints, first: int) -> None:
    """Every size is among the `stride` many from `least + first` on."""
    for wanted, start, s in zip(size, least, strides, strict=True):
        if isinstance(start, int) and not start + first <= wanted < start + first + s:
            raise ValueError(
                f"`output_size`={size} must lie between {tuple(a + first for a in least)} and "
                f"{tuple(a + first + s - 1 for a, s in zip(least, strides, strict=True))}"
            )


def _times(spatial: Ints, strides: Ints, more: int = 0) -> Ints:
    return tuple((h + more) * s for h, s in zip(spatial, strides, strict=True))


def _full(spatial: Ints, windows: Ints, strides: Ints, pairs: Pairs) -> Ints:
    """The size without output_padding: all that the copies of the kernel cover, but for what is cut off."""
    sizes = zip(_times(spatial, strides, -1), windows, pairs, strict=True)
    return tuple(start + K - lo - hi for start, K, (lo, hi) in sizes)


def _result(spatial: Ints, windows: Ints, strides: Ints, pairs: Pairs, more: Ints) -> Ints:
    result = tuple(map(sum, zip(_full(spatial, windows, strides, pairs), more, strict=True)))
    if any(isinstance(size, int) and size < 1 for size in result):
        raise ValueError(f"`padding`={pairs} cuts off everything: the result would be {result}; take less")
    return result
