"""oneDNN's convolution, which lies in jaxlib's own wheel and which XLA:CPU runs without a flag.

    forward      one call; of a dilated input one for each output phase (`phase`)
    grad_input   the same, of g; the kernel's channels are swapped by dimension numbers and not in memory
                 (in groups, its groups are brought beside the channels that come out)
    grad_kernel  one call as well, of another convolution (below)

Cost: the direct sum, and copying the kernel into the order in which oneDNN multiplies.  It wins for dense and
grouped layers of nearly every size; it loses to `depthwise` where a group has one channel, and to XLA's own
for tiny problems.

**A kernel's gradient is a convolution whose channels are the pixels of a row.**  With s for the taps of the
last dimension and q for its outputs,

    x'[n, h, s·c, q] = x̃[n, h, q·stride + s·dilation, c]
    ∂w[r, s·c, o]    = Σ_{n, p, q}  x'[n, p·stride + r·dilation, s·c, q] · g[n, p, q, o]

is a convolution along the axes n, h and s·c: the channels are q → o, and the kernel is g, with n × p × 1
taps.  So x is written once for each tap of the *last* dimension, where im2col writes it once for each tap of
all, and the products run over s·c × o, which are many.  In three dimensions the images lie side by side in
the row, and the axes are d, h and s·c.  In one dimension, and with a 1×1 kernel, it is a product of columns
with g.  Depthwise, ∂w is simply the depthwise convolution of x with g.

**What it takes** was verified by running it (`jconv.runtime.verified`): 1 to 3 dimensions, any strides and
dilation, groups of one to one or several to several channels in two and three dimensions, where no padding is
larger than dilation·(taps − 1), no axis is shorter than the kernel's extent, and a dilated depthwise kernel
meets no padding.  Other paddings are made beforehand, by padding or cutting x.  In bfloat16 an odd number of
channels would be paired with a neighbour times zero, and 0·NaN is NaN: so a channel of zeros is added.
Depthwise bfloat16 goes through float32, in which it is summed anyway.  So does int8, of which oneDNN's own
kernels write past their heap where there is padding: float32 sums 1024 products exactly, int32 adds the sums.

Source: oneDNN, https://github.com/uxlfoundation/oneDNN.
"""

from __future__ import annotations

import functools
import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jconv.algorithms import onednn_calls, pieces
from jconv.algorithms.derived import flipped, swapped_kernel
from jconv.algorithms.phase import by_phase
from jconv.algorithms.pointwise import summed_by_image
from jconv.algorithms.record import Algorithm, Loop, OneDnn, Repeated, Step
from jconv.algorithms.windows import pad, planes, spaced
from jconv.runtime import verified
from jconv.spec import ConvSpec, Ints, Role, extent, itemsize
from jconv.spec.roles import flips_image

# -- one call --------------------------------------------------------------------------------------


def direct(
    x: jax.Array, w: jax.Array, spec: ConvSpec, *, swapped: bool = False, lies: Ints | None = None
) -> jax.Array:
    """y of an undilated x by one call; `swapped`: the kernel is (*r, g·o, c), `lies`: how in memory."""
    spec = _typed_as(x, w, spec)
    x, spec = inside(x, spec)
    how = {"bfloat16": _halves, "int8": _integers}.get(spec.x_dtype, onednn_calls.convolution)
    return how(x, w, spec, swapped=swapped, lies=lies)


def _typed_as(x: jax.Array, w: jax.Array, spec: ConvSpec) -> ConvSpec:
    """The spec with the dtypes of the arrays, which are wider where those of the spec differ."""
    result = {"float32": "float32", "int8": "int32"}.get(x.dtype.name, spec.y_dtype)
    return spec.replace(x_dtype=x.dtype.name, w_dtype=w.dtype.name, y_dtype=result)


def inside(x: jax.Array, spec: ConvSpec) -> tuple[jax.Array, ConvSpec]:
    """x and its spec, padded or cut where its padding or its length lies outside of what was verified."""
    moved = moved_padding(spec)
    if not any(map(any, moved)):
        return x, spec
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((lo, hi, 0) for lo, hi in moved), (0, 0, 0)])
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


def _halves(
    x: jax.Array, w: jax.Array, spec: ConvSpec, *, swapped: bool, lies: Ints | None = None
) -> jax.Array:
    """bfloat16: channels last and an even number of them in a group, or through float32 if there is one."""
    if spec.is_depthwise:
        return _widened(x, w, spec, swapped=swapped)
    spec = spec.replace(channels_first=False)
    if spec.c % 2:
        x, w, spec = _even(x, w, spec, swapped)
    return onednn_calls.convolution(x, w, spec, swapped=swapped, lies=lies)


def _widened(x: jax.Array, w: jax.Array, spec: ConvSpec, *, swapped: bool = False) -> jax.Array:
    wide = spec.replace(x_dtype="float32", w_dtype="float32", y_dtype="float32")
    y = onednn_calls.convolution(x.astype("float32"), w.astype("float32"), wide, swapped=swapped)
    return y.astype(spec.y_dtype)


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
    return functools.reduce(jnp.add, (
        _widened(x[..., at : at + most * spec.groups], w[..., at : at + most, :],
                 spec.replace(in_channels=min(most, spec.c - at) * spec.groups))
        for at in range(0, spec.c, most)
    ))  # fmt: skip


# -- the three roles -------------------------------------------------------------------------------


def forward(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y: one call, or one for each phase of a dilated input."""
    return (direct if _is_plain(spec) else PHASES.forward)(x, w, spec)


def _is_plain(spec: ConvSpec) -> bool:
    return all(d == 1 for d in spec.lhs_dilation)


def grad_input(g: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂x: a convolution of g.  Whatever is smaller is flipped, the kernel or g and ∂x."""
    back = spec.as_grad_input()
    if spec.groups == 1 and _is_plain(back) and flips_image(spec):
        return flipped(direct(flipped(g), w, back.mirrored(), swapped=True))
    w = lax.rev(w, tuple(range(spec.ndim))) if spec.taps > 1 else w
    w = _groups_out(w, spec)
    return direct(g, w, back, swapped=True) if _is_plain(back) else SWAPPED_PHASES.forward(g, w, back)


def _groups_out(w: jax.Array, spec: ConvSpec) -> jax.Array:
    """(*r, c, g·o) → (*r, g·c, o), which dimension numbers swap: o lies side by side before and after.

    XLA copies runs of o, where to swap c and o inside a group it would copy value by value.
    """
    if spec.groups == 1:
        return w
    apart = w.reshape(*spec.kernel, spec.c, spec.groups, spec.o)
    return jnp.swapaxes(apart, spec.ndim, spec.ndim + 1).reshape(*spec.kernel, spec.in_channels, spec.o)


def grad_kernel(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w: by the convolution along rows of the module's docstring, or depthwise along images.

    A dilated x is the gradient, and g the input, of a strided convolution; with a stride as well its zeros
    are written out.
    """
    if not _is_plain(spec) and all(s == 1 for s in spec.strides):
        strided = spec.as_grad_input()
        return swapped_kernel(grad_kernel(g, x, strided), strided)
    if not _is_plain(spec):
        gaps = [(0, 0, 0), *((0, 0, d - 1) for d in spec.lhs_dilation), (0, 0, 0)]
        x = lax.pad(x, jnp.zeros((), x.dtype), gaps)
        spec = spec.replace(spatial=x.shape[1:-1], lhs_dilation=(1,) * spec.ndim)
    if (flat := _as_product(spec)) is not None:
        if _by_planes(flat):
            return _of_planes(x, g, spec)
        return _of_columns(x.reshape(flat.x_shape), g.reshape(flat.y_shape), flat).reshape(spec.w_shape)
    if _by_image(spec):
        return _of_images(x, g, spec)
    part = _band(spec)
    return pieces.summed(functools.partial(_of_rows, spec=part), x, g, spec, part)


STREAMED = 96 << 20  # bytes read of x', once for every row of taps, from which it is cut to stay in cache
BAND = 3 << 20  # bytes of x' at a time then


def _band(spec: ConvSpec) -> ConvSpec:
    """The spec of as many rows of g as are multiplied at a time: all, or those whose x' stays in cache."""
    written = math.prod(as_rows(spec).x_shape) * itemsize(spec.x_dtype)
    streamed = written * math.prod(spec.kernel[:-1])
    return pieces.cut(spec, written, BAND) if streamed > STREAMED else spec


def _of_rows(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    kernel, lies = _as_kernel(g, spec), _kernel_lies(spec)
    return direct(_shifted(x, spec), kernel, as_rows(spec), lies=lies).reshape(spec.w_shape)


def _as_product(spec: ConvSpec) -> ConvSpec | None:
    """The convolution in one dimension whose kernel's gradient is a product, if this one's is.

    In one dimension, and with a 1×1 kernel in any, pixels are rows of a matrix as they lie, and nothing is
    transposed.
    """
    plain = spec.taps == 1 and not spec.is_padded and all(s == 1 for s in spec.strides)
    if spec.groups > 1 or not (plain or spec.ndim == 1):
        return None
    if spec.ndim == 1:
        return spec
    return spec.replace(
        spatial=(math.prod(spec.spatial),), kernel=(1,), strides=(1,), padding=((0, 0),),
        lhs_dilation=(1,), rhs_dilation=(1,),
    )  # fmt: skip


def _by_planes(flat: ConvSpec) -> bool:
    """Whether each image is multiplied as it lies, channels first, as the products are smaller than that."""
    plain = flat.taps == 1 and not flat.is_padded and flat.strides == (1,)
    return flat.channels_first and plain and summed_by_image(flat)


MOST_COLUMNS = 8 << 20  # bytes; where all taps' columns would be more, one tap at a time is multiplied


def _of_columns(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w in one dimension, columns times g: (s·c, n·q) times (n·q, o), summed in the accumulator."""
    padded, (stride,), (dilation,) = pad(x, spec), spec.strides, spec.rhs_dilation
    (k,), (q,) = spec.kernel, spec.out_spatial
    taps = [spaced(padded, s * dilation, q, stride, 1) for s in range(k)]  # n q c, each
    fit = _columns(spec) <= MOST_COLUMNS
    parts = [jnp.concatenate(taps, -1)] if fit else taps
    rows = g.reshape(-1, spec.o)
    flat = (part.reshape(-1, part.shape[-1]) for part in parts)
    found = [onednn_calls.matmul(part, rows, spec.accumulator, transpose_a=True) for part in flat]
    return jnp.concatenate(found).reshape(spec.w_shape)


def _of_planes(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w of a 1×1 kernel where channels come first: a product for every image, (o, p) times (c, p)."""
    each = onednn_calls.matmul(planes(g), planes(x), spec.accumulator, transpose_b=True)
    return each.sum(0).T.reshape(spec.w_shape)


def _columns(spec: ConvSpec) -> int:
    """Bytes of the columns of all taps."""
    return spec.positions * spec.taps * spec.c * itemsize(spec.x_dtype)


def _image_axis(spec: ConvSpec) -> Ints:
    """The images as an axis of space, where there is room for one."""
    return (spec.batch,) if spec.ndim < 3 and spec.batch > 1 else ()


def _by_image(spec: ConvSpec) -> bool:
    """Whether the kernel's gradient is computed depthwise, along images."""
    apart = all(s == 1 or d == 1 for s, d in zip(spec.strides, spec.rhs_dilation, strict=True))
    few = math.prod(spec.strides) <= MOST_CALLS
    return spec.is_depthwise and apart and (_is_folded(spec) or (few and (spec.ndim < 3 or spec.batch == 1)))


MOST_CALLS = 16
MOST_TAPS = 64  # of a row, for each of which x is written once; hundreds compile in seconds


def _of_images(x: jax.Array, g: jax.Array, spec: ConvSpec) -> jax.Array:
    """∂w of a depthwise convolution: that of x with g, n being an axis of space.

    Where channels come first, the channels of all images lie one after the other and are taken for channels.
    A stride dilates g, at which oneDNN is slow in three dimensions.  So that of several images is taken
    apart: the taps r ≡ a (mod stride) see every stride-th row from the a-th on.
    """
    if _is_folded(spec):
        apart = _of_images(_beside(x), _beside(g), _folded(spec))
        return apart.reshape(*spec.kernel, spec.batch, -1).sum(-2).reshape(spec.w_shape)
    kernel = g.reshape(*_image_axis(spec), *spec.out_spatial, 1, spec.out_channels)
    if spec.batch == 1:
        back = spec.as_grad_kernel().replace(y_dtype=spec.accumulator)
        return direct(x, kernel, back).reshape(spec.w_shape)
    padded, parts = pad(x, spec), []
    for start in itertools.product(
        *(range(min(s, k)) for s, k in zip(spec.strides, spec.kernel, strict=True))
    ):
        part = of_images(spec, start)
        stop = [a + (h - 1) * s + 1 for a, h, s in zip(start, part.spatial[1:], spec.strides, strict=True)]
        seen = lax.slice(padded, (0, *start, 0), (spec.batch, *stop, spec.in_channels), (1, *spec.strides, 1))
        parts.append(_put_between(direct(seen[None], kernel, part), start, spec))
    return functools.reduce(jnp.add, parts)


def _is_folded(spec: ConvSpec) -> bool:
    """Whether the images of a depthwise kernel's gradient are channels of one, not an axis of space."""
    return spec.channels_first and spec.batch > 1


def _folded(spec: ConvSpec) -> ConvSpec:
    """The spec of one image with the channels of all."""
    channels = spec.batch * spec.in_channels
    return spec.replace(batch=1, in_channels=channels, out_channels=channels, groups=channels)


def _beside(image: jax.Array) -> jax.Array:
    """(n, *h, c) → (1, *h, n·c), which moves nothing where channels come first."""
    n, *space, c = image.shape
    return jnp.moveaxis(jnp.moveaxis(image, -1, 1).reshape(1, n * c, *space), 1, -1)


def of_images(spec: ConvSpec, start: Ints) -> ConvSpec:
    """The convolution of one phase of x with g, whose result are the taps from `start` on."""
    image = _image_axis(spec)
    one = (1,) * (len(image) + spec.ndim)
    taps = [-(-(k - a) // s) for k, a, s in zip(spec.kernel, start, spec.strides, strict=True)]
    size = [p + (t - 1) * d for p, t, d in zip(spec.out_spatial, taps, spec.rhs_dilation, strict=True)]
    return spec.replace(
        batch=1, spatial=(*image, *size), kernel=(*image, *spec.out_spatial), padding=((0, 0),) * len(one),
        strides=(*one[: len(image)], *spec.rhs_dilation), lhs_dilation=one, rhs_dilation=one,
        w_dtype=spec.y_dtype, y_dtype=spec.accumulator,
    )  # fmt: skip


def _put_between(taps: jax.Array, start: Ints, spec: ConvSpec) -> jax.Array:
    """Every stride-th tap from `start` on, with zeros for the others: shaped as w."""
    found = taps.shape[-1 - spec.ndim : -1]
    sides = [
        (a, k - a - (t - 1) * s - 1, s - 1)
        for a, k, t, s in zip(start, spec.kernel, found, spec.strides, strict=True)
    ]
    taps = taps.reshape(*found, 1, spec.out_channels)
    return lax.pad(taps, jnp.zeros((), taps.dtype), [*sides, (0, 0, 0), (0, 0, 0)])


def as_rows(spec: ConvSpec) -> ConvSpec:
    """The convolution along n, h and (s, c), or d, h and (s, c), that is the kernel's gradient."""
    image = _image_axis(spec)
    row = spec.out_spatial[-1] * (1 if image else spec.batch)
    one, none = (1,) * len(image), ((0, 0),) * len(image)
    return spec.replace(
        batch=1,
        in_channels=spec.groups * row,
        spatial=(*image, *spec.spatial[:-1], spec.kernel[-1] * spec.c),
        kernel=(*image, *spec.out_spatial[:-1], 1),
        strides=(*one, *spec.rhs_dilation[:-1], 1),
        padding=(*none, *spec.as_grad_kernel().padding[:-1], (0, 0)),
        lhs_dilation=(1,) * (len(image) + spec.ndim),
        rhs_dilation=(*one, *spec.strides[:-1], 1),
        w_dtype=spec.y_dtype,
        y_dtype=spec.accumulator,
        channels_first=False,
    )


def _shifted(x: jax.Array, spec: ConvSpec) -> jax.Array:
    """(1, n, *h, s·c, g·q) or, in 3-D, (1, d, h, s·c, g·n·q): x as every tap of a row sees it.

    Padded and cut as it lies, so that it is transposed once, if at all.
    """
    (lo, _), stride, dilation = spec.padding[-1], spec.strides[-1], spec.rhs_dilation[-1]
    first, q = spec.channels_first, spec.out_spatial[-1]
    x = jnp.moveaxis(x, -1, 1) if first else x
    axis = x.ndim - 1 if first else x.ndim - 2
    needed = extent(q, stride) + extent(spec.kernel[-1], dilation) - 1
    around = [(lo, needed - lo - x.shape[axis], 0) if at == axis else (0, 0, 0) for at in range(x.ndim)]
    x = lax.pad(x, jnp.zeros((), x.dtype), around)
    taps = jnp.stack([spaced(x, s * dilation, q, stride, axis) for s in range(spec.kernel[-1])])
    at = 2 if first else taps.ndim - 1
    taps = taps.reshape(*taps.shape[:at], spec.groups, spec.c, *taps.shape[at + 1 :])
    tap, image, *rest = range(taps.ndim)  # s n g c *h q or s n *h q g c
    group, channel, *rows, pixels = rest if first else (*rest[-2:], *rest[:-2])
    before, beside = ((image,), ()) if _image_axis(spec) else ((), (image,))
    order = (*before, *rows, tap, channel, group, *beside, pixels)
    return taps.transpose(order).reshape(as_rows(spec).x_shape)


def _as_kernel(g: jax.Array, spec: ConvSpec) -> jax.Array:
    """(n, *p, 1, q, g·o) or, in three dimensions, (*p, 1, n·q, g·o)."""
    return (g if _image_axis(spec) else jnp.moveaxis(g, 0, -3)).reshape(as_rows(spec).w_shape)


def _kernel_lies(spec: ConvSpec) -> Ints | None:
    """How the axes of that kernel lie where g is (n, g·o, *p): o comes before the pixels."""
    if not spec.channels_first or (spec.ndim == 3 and spec.batch > 1):
        return None
    image = tuple(range(len(_image_axis(spec))))
    out = as_rows(spec).ndim + 1
    return *image, out, *range(len(image), out)


# -- the record ------------------------------------------------------------------------------------


def rejects(spec: ConvSpec) -> str | None:
    if reason := verified.refusal() or _rejects_dtypes(spec):
        return reason
    if reason := _rejects_sizes(spec):
        return reason
    if spec.x_dtype == "int8" and spec.taps * (spec.c if spec.groups > 1 else 1) > EXACT:
        return f"int8 sums of more than {EXACT} products that cannot be taken apart by channels"
    if reason := _rejects_groups(spec):
        return reason
    return None if _is_plain(spec) else PHASES.rejects(spec)


def _rejects_sizes(spec: ConvSpec) -> str | None:
    sizes = (*spec.x_shape, *spec.w_shape, *sum(spec.padding, ()))
    if not all(isinstance(size, int) for size in sizes):
        return "a size that only a run will tell; oneDNN's calls state every size"
    if not 1 <= spec.ndim <= 3:
        return f"{spec.ndim} spatial dimensions; oneDNN was verified with 1 to 3"
    return None


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
    dtypes = {spec.x_dtype, spec.w_dtype, spec.y_dtype}
    if spec.x_dtype != spec.w_dtype and dtypes <= {"float32", "bfloat16"}:
        return verified.refusal_of("float32", "float32")
    return verified.refusal_of(spec.x_dtype, spec.y_dtype)


def own(spec: ConvSpec, role: Role) -> bool:
    """Whether the gradient given here is used: for floats, and not where it had too many phases."""
    floats = {spec.x_dtype, spec.w_dtype, spec.y_dtype} <= {"float32", "bfloat16"}
    if not floats or _rejects_sizes(spec):
        return False
    back = spec.as_grad_input() if role == "grad_input" else spec
    if role == "grad_kernel":
        seen = spec if _is_plain(spec) or max(spec.strides) > 1 else spec.as_grad_input()
        few = seen.ndim < 1 or seen.kernel[-1] <= MOST_TAPS
        return _by_image(seen) or (few and _rejects_groups(as_rows(seen)) is None)
    return _is_plain(back) or PHASES.rejects(back) is None


def steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    if role == "grad_kernel":
        return _steps_of_grad_kernel(spec)
    if role == "grad_input":
        return _steps_of_grad_input(spec)
    return _direct_steps(spec, role) if _is_plain(spec) else PHASES.steps(spec, role)


def _steps_of_grad_kernel(spec: ConvSpec) -> tuple[Step, ...]:
    if not _is_plain(spec):
        return (OneDnn(spec), Loop(0, 4 * spec.bytes, 1))
    if (flat := _as_product(spec)) is not None:
        copied = (Loop(0, 2 * _columns(flat)),) if flat.taps > 1 or flat.is_padded else ()
        if flat.channels_first and not _by_planes(flat):
            copied = *copied, Loop(0, 2 * flat.image_bytes, 2)
        return *copied, _product_step(flat)
    if _by_image(spec):
        return _steps_of_images(spec)
    moved = (Loop(0, 2 * spec.kernel_bytes, 1),) if spec.channels_first else ()
    part = _band(spec)
    once = _copied(part), OneDnn(as_rows(part)), *moved
    return once if part == spec else (Repeated(once, math.prod(pieces.counts(spec, part))),)


def _product_step(flat: ConvSpec) -> OneDnn:
    """Columns times g, as the 1×1 convolution that it is; the larger of the two is the image."""
    sides = flat.taps * flat.c, flat.o
    return OneDnn(flat.replace(
        batch=1, spatial=(max(sides),), kernel=(1,), in_channels=flat.positions, out_channels=min(sides),
        strides=(1,), padding=((0, 0),), rhs_dilation=(1,), channels_first=False,
    ))  # fmt: skip


def _steps_of_images(spec: ConvSpec) -> tuple[Step, ...]:
    """As many calls as phases, each of a part of the taps; and padding x."""
    if _is_folded(spec):
        spec = _folded(spec)
        return (OneDnn(spec.as_grad_kernel()),)
    whole = OneDnn(of_images(spec.replace(strides=(1,) * spec.ndim), (0,) * spec.ndim))
    if spec.batch == 1:
        return (whole,)
    begun = (Loop(0, 0),) * (math.prod(spec.strides) - 1)
    return whole, *begun, Loop(0, 2 * math.prod(spec.x_shape) * itemsize(spec.x_dtype))


def _steps_of_grad_input(spec: ConvSpec) -> tuple[Step, ...]:
    back = spec.as_grad_input()
    smaller = 2 * spec.image_bytes if flips_image(spec) else 2 * spec.kernel_bytes
    flip = (Loop(0, smaller, 4),) if spec.taps > 1 or spec.groups > 1 else ()
    return *flip, *(_direct_steps(back, "forward") if _is_plain(back) else PHASES.steps(back, "forward"))


def _direct_steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    copied = 2 * math.prod(spec.x_shape) * itemsize(spec.x_dtype) * any(map(any, moved_padding(spec)))
    return OneDnn(spec), *((Loop(0, copied),) if copied else ())


def _copied(spec: ConvSpec) -> Step:
    """Writing x once for every tap of a row, transposed value by value."""
    return Loop(0, 2 * math.prod(as_rows(spec).x_shape) * itemsize(spec.x_dtype), 2)


def workspace(spec: ConvSpec, role: Role) -> int:
    """Bytes of the kernel as oneDNN multiplies it, and of the copies of x."""
    if role == "grad_kernel" and (flat := _as_product(spec)) is not None:
        return min(_columns(flat), MOST_COLUMNS) * (flat.taps > 1) + 4 * spec.parameters
    if role == "grad_kernel":
        part = spec if _by_image(spec) else _band(spec)
        several = spec.batch > 1 and math.prod(spec.strides) > 1 and not _is_folded(spec)
        twice = 2 * math.prod(spec.x_shape) * several
        copied = (twice if _by_image(spec) else math.prod(as_rows(part).x_shape)) * itemsize(spec.x_dtype)
        of_g = math.prod(part.y_shape) * itemsize(spec.y_dtype)
        return copied + of_g + 4 * spec.parameters + pieces.workspace(spec, part)
    if role == "grad_input":
        back = spec.as_grad_input()
        return spec.kernel_bytes + workspace(back, "forward") + spec.image_bytes * flips_image(spec)
    if not _is_plain(spec):
        return PHASES.workspace(spec, role)
    moved = any(map(any, moved_padding(spec)))
    return spec.kernel_bytes + math.prod(spec.padded) * spec.batch * spec.in_channels * 4 * moved


def reads_channels_first(spec: ConvSpec, role: Role) -> bool:
    """In bfloat16 images are transposed; a kernel gradient transposes x anyway."""
    return role == "grad_kernel" or spec.x_dtype != "bfloat16"


def _one(swapped: bool) -> Algorithm:
    """The undilated convolution that every phase is."""
    return Algorithm("onednn", functools.partial(direct, swapped=swapped), steps=_direct_steps,
                     workspace=lambda spec, role: spec.kernel_bytes,
                     reads_channels_first=reads_channels_first)  # fmt: skip


PHASES, SWAPPED_PHASES = by_phase(_one(swapped=False)), by_phase(_one(swapped=True))

ONEDNN = Algorithm(
    "onednn", forward, rejects, steps, workspace, grad_input, grad_kernel,
    reads_channels_first=reads_channels_first, reads_kernel=True, own=own, portable=False,
)  # fmt: skip
