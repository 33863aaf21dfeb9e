"""What is to be computed: one normalised, hashable description of a convolution.

Every convolution jconv knows is this sum, in one canonical layout (channels last):

    y[n, p, g·o] = Σ_{r, c}  x̃[n, p·stride + r·rhs_dilation − lo, g·c] · w[r, c, g·o]

    x̃[t] = x[t / lhs_dilation] where that is an integer index into x, else 0

n batch, g group, c and o channels in and out *per group*, h w input, p q output, r s kernel taps, of

    x (n, *spatial, groups·c)      w (*kernel, c, groups·o)      y (n, *out_spatial, groups·o)

**The gradients are convolutions.**  With K = (k−1)·rhs_dilation + 1 the extent of the kernel and
P = (p−1)·stride + 1 that of the output, along one dimension,

    grad_input:   ∂x[t] = Σ_r g̃[(t·lhs_dilation − r·rhs_dilation + lo) / stride] · w[r]
                  a convolution of g with lhs_dilation ↔ stride, the flipped kernel, lo' = K−1−lo
    grad_kernel:  ∂w[r] = Σ_p x̃[r·rhs_dilation + p·stride − lo] · g[p]
                  a convolution of x with the kernel g: stride ↔ rhs_dilation, channels as batch

and in both hi' is whatever makes the result as long as it has to be.

Source: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning".
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
from jax.core import max_dim
from numpy.typing import DTypeLike

from jconv.spec import checks
from jconv.spec.checks import Ints, Pairs
from jconv.spec.spelling import corrected, no_option

Role = Literal["forward", "grad_input", "grad_kernel"]
ROLES: tuple[Role, ...] = ("forward", "grad_input", "grad_kernel")


def extent(size: int, dilation: int) -> int:
    """Length of `size` points spaced `dilation` apart; 0 for none."""
    return (size - 1) * dilation + 1 if not isinstance(size, int) or size > 0 else 0


def windows(length: int, window: int, stride: int) -> int:
    """How many windows fit into `length`; 0 when it is shorter than one window."""
    count = (length - window) // stride + 1
    return max(count, 0) if isinstance(count, int) else max_dim(count, 0)


@dataclasses.dataclass(frozen=True)
class ConvSpec:
    """A convolution problem as integers: y[n, p, o] = Σ x̃[n, p·stride + r·rhs_dilation − lo, c]·w[r, c, o].

    Args:
      batch: n.
      in_channels, out_channels: totals; each a multiple of `groups`.
      spatial, kernel: sizes per spatial dimension (any number of them, also none).
      strides, lhs_dilation, rhs_dilation: one positive int per dimension.
      padding: one (lo, hi) pair per dimension; negative crops.
      groups: feature groups.
      x_dtype, w_dtype, y_dtype: numpy dtype names.
      precision: a pair of `jax.lax.Precision`, or None for the platform's default.
      channels_first: whether the pixels of a row lie side by side in the user's x and y, as in NCHW.  A
        hint for the choice, which no result depends on: the arrays here are channels last all the same.
      kernel_swapped: whether the user's w lies with its channels swapped: as HWOI or, channels first, IOHW. A
        hint for the choice, too: what swaps them finds it as it lies.
      onednn: whether matrix products may be oneDNN's.  Set where a program is lowered that need not be
        portable; no result depends on it.

    >>> spec = ConvSpec.of(kernel=(3, 3), in_channels=256, out_channels=256, spatial=(28, 28))
    >>> spec.parameters
    589824
    >>> spec.out_spatial
    (26, 26)
    """

    batch: int
    in_channels: int
    out_channels: int
    spatial: Ints
    kernel: Ints
    strides: Ints
    padding: Pairs
    lhs_dilation: Ints
    rhs_dilation: Ints
    groups: int
    x_dtype: str = "float32"
    w_dtype: str = "float32"
    y_dtype: str = "float32"
    precision: Any = None
    channels_first: bool = False
    kernel_swapped: bool = False
    onednn: bool = False

    @staticmethod
    @corrected
    def of(
        *, spatial: Ints, kernel: Ints, in_channels: int = 1, out_channels: int = 1, batch: int = 1,
        strides: Ints | None = None, padding: Pairs | None = None, lhs_dilation: Ints | None = None,
        rhs_dilation: Ints | None = None, groups: int = 1, dtype: DTypeLike = "float32",
    ) -> ConvSpec:  # fmt: skip
        """A spec by keyword, all unsaid being the plain case; nonsense is a ValueError or a TypeError."""
        n, c, o, groups = checks.channels(batch, in_channels, out_channels, groups)
        space = checks.geometry(spatial, kernel, strides, padding, lhs_dilation, rhs_dilation)
        name = checks.dtype(dtype)
        return ConvSpec(n, c, o, *space, groups, name, name, name)

    def checked(self) -> ConvSpec:
        """The same, if its fields are possible together; if not, the error that `of` raises."""
        checks.channels(self.batch, self.in_channels, self.out_channels, self.groups)
        space = self.spatial, self.kernel, self.strides, self.padding, self.lhs_dilation, self.rhs_dilation
        checks.geometry(*space)
        for dtype in (self.x_dtype, self.w_dtype, self.y_dtype):
            if checks.dtype(dtype) != dtype:
                raise TypeError(f"a dtype of a ConvSpec must be a name, got {checks.shown(dtype)}")
        return self

    def replace(self, **changes: object) -> ConvSpec:
        """A copy with some fields changed."""
        fields = self.__dataclass_fields__
        if wrong := next((name for name in changes if name not in fields), None):
            raise no_option("ConvSpec.replace", wrong, fields)
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def with_dtype(self, dtype: DTypeLike) -> ConvSpec:
        """The same problem with x, w and y of another dtype."""
        name = checks.dtype(dtype)
        return self.replace(x_dtype=name, w_dtype=name, y_dtype=name)

    # -- sizes ---------------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return len(self.kernel)

    @property
    def c(self) -> int:
        """Input channels per group."""
        return self.in_channels // max(self.groups, 1)  # a vmap over nothing has no groups

    @property
    def o(self) -> int:
        """Output channels per group."""
        return self.out_channels // max(self.groups, 1)

    @property
    def window(self) -> Ints:
        """Extent of the dilated kernel per dimension."""
        return tuple(map(extent, self.kernel, self.rhs_dilation))

    @property
    def padded(self) -> Ints:
        """Extent of the dilated, padded input per dimension."""
        dilated = map(extent, self.spatial, self.lhs_dilation)
        return tuple(size + lo + hi for size, (lo, hi) in zip(dilated, self.padding, strict=True))

    @property
    def out_spatial(self) -> Ints:
        """p, q: output size per dimension."""
        return tuple(map(windows, self.padded, self.window, self.strides))

    @property
    def x_shape(self) -> Ints:
        """Input, canonical."""
        return (self.batch, *self.spatial, self.in_channels)

    @property
    def w_shape(self) -> Ints:
        """Kernel, canonical."""
        return (*self.kernel, self.c, self.out_channels)

    @property
    def y_shape(self) -> Ints:
        """Output, canonical."""
        return (self.batch, *self.out_spatial, self.out_channels)

    def result(self, role: Role) -> tuple[Ints, str]:
        """Shape and dtype of what `role` computes."""
        return {
            "forward": (self.y_shape, self.y_dtype),
            "grad_input": (self.x_shape, self.x_dtype),
            "grad_kernel": (self.w_shape, self.w_dtype),
        }[role]

    # -- what it costs -------------------------------------------------------------------------

    @property
    def taps(self) -> int:
        """Number of kernel positions."""
        return math.prod(self.kernel)

    @property
    def parameters(self) -> int:
        """Number of kernel values."""
        return math.prod(self.w_shape)

    @property
    def positions(self) -> int:
        """Number of output positions in the batch."""
        return self.batch * math.prod(self.out_spatial)

    @property
    def macs(self) -> int:
        """Multiply-adds of the direct sum, padding counted as if it were data."""
        return self.positions * self.parameters

    @property
    def flops(self) -> int:
        """Two per multiply-add, in all three roles."""
        return 2 * self.macs

    @property
    def x_bytes(self) -> int:
        """Bytes of x."""
        return math.prod(self.x_shape) * itemsize(self.x_dtype)

    @property
    def y_bytes(self) -> int:
        """Bytes of y."""
        return math.prod(self.y_shape) * itemsize(self.y_dtype)

    @property
    def kernel_bytes(self) -> int:
        """Bytes of w."""
        return self.parameters * itemsize(self.w_dtype)

    @property
    def image_bytes(self) -> int:
        """Bytes of x and y."""
        return self.x_bytes + self.y_bytes

    @property
    def bytes(self) -> int:
        """Bytes of x, w and y: the least that has to move."""
        return self.image_bytes + self.kernel_bytes

    @property
    def accumulator(self) -> str:
        """The dtype sums are kept in: halves and float8 in float32, integers (unsigned too) signed."""
        dtypes = (self.x_dtype, self.w_dtype, self.y_dtype)
        # by what they can hold: integers, reals and complex numbers, then by their bytes
        kinds = (0 if d == "bool" or "int" in d else 1 + d.startswith("complex") for d in dtypes)
        kind, size, name = max(zip(kinds, map(itemsize, dtypes), dtypes, strict=True))
        if kind == 0:
            return "int32" if size <= 4 else "int64"
        return name if size >= 4 else "float32"

    @property
    def wide(self) -> ConvSpec:
        """The same problem with x, w and y in the accumulator."""
        return self.with_dtype(self.accumulator)

    # -- what kind it is -----------------------------------------------------------------------

    @property
    def is_half(self) -> bool:
        """x is of bfloat16 or float16, which XLA:CPU moves and rounds as float32."""
        return self.x_dtype in ("bfloat16", "float16")

    @property
    def is_known(self) -> bool:
        """False where a size is one that only a run will tell (`jax.export`, symbolic shapes)."""
        sizes = self.batch, self.in_channels, self.out_channels, self.groups, *self.spatial, *self.kernel
        return all(isinstance(size, int) for size in (*sizes, *sum(self.padding, ())))

    @property
    def is_empty(self) -> bool:
        """True where every result is zeros: an array has no elements, or no window meets the input.

        No window does where padding or cropping parts the two: what a negative lo leaves of the input, or how
        far the last window reaches into it, is not positive.  A hi that leaves nothing does so through the
        outputs, and both gradients have the same two numbers, the other way round.
        """
        sizes = [self.batch, *self.out_spatial, *self.spatial, self.c, self.out_channels, *self.kernel]
        space = zip(
            self.padding, self.spatial, self.lhs_dilation, self.out_spatial, self.strides, self.window,
            strict=True,
        )  # fmt: skip
        for (lo, _), h, d, p, s, K in space:
            sizes += [extent(h, d) + lo, (p - 1) * s + K - lo]
        return any(isinstance(size, int) and size <= 0 for size in sizes)

    @property
    def is_padded(self) -> bool:
        """Any side is padded."""
        return any(side > 0 for sides in self.padding for side in sides)

    @property
    def is_strided(self) -> bool:
        """Any stride is not 1."""
        return any(s != 1 for s in self.strides)

    @property
    def has_gaps(self) -> bool:
        """The input is dilated: zeros lie between its values."""
        return any(d != 1 for d in self.lhs_dilation)

    @property
    def is_depthwise(self) -> bool:
        """One input channel per group, more than one group."""
        return self.groups > 1 and self.c == 1

    @property
    def is_pointwise(self) -> bool:
        """Every output position sees one input position."""
        return self.taps == 1

    # -- the specs of its gradients ------------------------------------------------------------

    def as_grad_input(self) -> ConvSpec:
        """The forward convolution (of g, with the flipped and swapped kernel) that is grad_input."""
        space = zip(
            self.window, self.padding, self.spatial, self.lhs_dilation, self.out_spatial, self.strides,
            strict=True,
        )  # fmt: skip
        return self.replace(
            spatial=self.out_spatial,
            in_channels=self.out_channels,
            out_channels=self.in_channels,
            strides=self.lhs_dilation,
            lhs_dilation=self.strides,
            padding=tuple(
                (K - 1 - lo, (h - 1) * d + 1 - extent(p, s) + lo) for K, (lo, _), h, d, p, s in space
            ),
            x_dtype=self.y_dtype,
            y_dtype=self.x_dtype,
        )

    def mirrored(self) -> ConvSpec:
        """The same convolution with every spatial axis of x, w and y backwards, if no input is left over."""
        return self.replace(padding=tuple((hi, lo) for lo, hi in self.padding))

    def as_grad_kernel(self) -> ConvSpec:
        """The forward convolution (of x with kernel g, channels as batch) that is grad_kernel."""
        space = zip(
            self.kernel, self.padding, self.spatial, self.lhs_dilation, self.out_spatial, self.strides,
            self.rhs_dilation, strict=True,
        )  # fmt: skip
        padding = (
            (lo, (k - 1) * r + extent(p, s) - extent(h, d) - lo) for k, (lo, _), h, d, p, s, r in space
        )
        return self.replace(
            batch=self.c,
            in_channels=self.groups * self.batch,
            kernel=self.out_spatial,
            strides=self.rhs_dilation,
            rhs_dilation=self.strides,
            padding=tuple(padding),
            w_dtype=self.y_dtype,
            y_dtype=self.w_dtype,
        )

    # -- the specs of its batched forms --------------------------------------------------------

    def folded(self, size: int, letter: str) -> ConvSpec:
        """The one convolution that `size` vmapped ones are, the copies gathered under one letter.

        x carries n g c, w carries g c o and y carries n g o.  Two batched arrays share exactly one
        letter that the third does not have: x, y share n; w, y share o; x, w share c.  Three share g.
        """
        if letter == "n":
            return self.replace(batch=self.batch * size)
        return self.replace(
            groups=self.groups * (size if letter == "g" else 1),
            in_channels=self.in_channels * (size if letter in "gc" else 1),
            out_channels=self.out_channels * (size if letter in "go" else 1),
        )

    def __str__(self) -> str:
        """The problem in a line: what is plain is left out."""
        sizes = "×".join(map(str, self.kernel)) or "0-d"
        images = f"{self.batch}×{'×'.join(map(str, self.spatial))}"
        parts = [f"{sizes} {self.in_channels}→{self.out_channels} on {images}"]
        steps = {"stride": self.strides, "input dilation": self.lhs_dilation, "dilation": self.rhs_dilation}
        parts += [f"{name} {value}" for name, value in steps.items() if any(v != 1 for v in value)]
        if any(lo or hi for lo, hi in self.padding):
            parts.append(f"padding {self.padding}")
        if self.groups > 1:
            parts.append("depthwise" if self.is_depthwise else f"{self.groups} groups")
        return ", ".join([*parts, self.x_dtype])


def itemsize(dtype: str) -> int:
    """Bytes per element of a dtype by name."""
    return np.dtype(dtype).itemsize
