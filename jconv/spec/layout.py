"""Dimension numbers to and from the one canonical layout, channels last.

    x (n, *spatial, channels)      w (*kernel, in, out)      y (n, *out_spatial, channels)

A `Layout` is three permutations; algorithms never see one.
"""

import dataclasses
from collections.abc import Sequence

from jax import lax

Perm = tuple[int, ...]
SPATIAL = "DHW"


@dataclasses.dataclass(frozen=True)
class Layout:
    """Permutations from a user's axes to the canonical ones, and for y back again."""

    x: Perm
    w: Perm
    y: Perm

    @property
    def channels_first(self) -> bool:
        """Whether the input's last axis is one of space."""
        return len(self.x) > 2 and self.x[-2] == len(self.x) - 1

    @property
    def swapped(self) -> bool:
        """Whether the batch axis comes after the channels."""
        return self.x[0] > self.x[-1]

    def into(self, name: str) -> Perm:
        """From a user's axes of x, w or y to the canonical ones."""
        return {"x": self.x, "w": self.w, "y": inverse(self.y)}[name]

    def back(self, name: str) -> Perm:
        """From the canonical axes of x, w or y to a user's."""
        return self.y if name == "y" else inverse(self.into(name))


def inverse(perm: Perm) -> Perm:
    """The permutation that undoes `perm`."""
    return tuple(sorted(range(len(perm)), key=perm.__getitem__))


def from_specs(lhs: Sequence[int], rhs: Sequence[int], out: Sequence[int]) -> Layout:
    """The layout of lax's `ConvDimensionNumbers`: (N, C, *space), (O, I, *space), (N, C, *space)."""
    return Layout(
        (lhs[0], *lhs[2:], lhs[1]),
        (*rhs[2:], rhs[1], rhs[0]),
        inverse((out[0], *out[2:], out[1])),
    )


def channels_last(ndim: int) -> lax.ConvDimensionNumbers:
    """The canonical layout as lax writes it."""
    x = (0, ndim + 1, *range(1, ndim + 1))
    return lax.ConvDimensionNumbers(x, (ndim + 1, ndim, *range(ndim)), x)


def names(ndim: int) -> tuple[str, str]:
    """What the two layouts are called: channels first, then channels last.

    Past three dimensions there are no more letters, and the names in 2-D, which `named` takes in any
    dimension, are the only ones.

    >>> names(1), names(2), names(4)
    (('NCW', 'NWC'), ('NCHW', 'NHWC'), ('NCHW', 'NHWC'))
    """
    space = SPATIAL[-ndim:] if ndim <= len(SPATIAL) else "HW"
    return f"NC{space}", f"N{space}C"


def named(layout: str, ndim: int) -> Layout | None:
    """NCHW (with OIHW kernels) or NHWC (with HWIO kernels), in the letters of any dimension."""
    channels_first = (tuple(range(ndim + 2)),) * 3
    for two_d, exact, specs in zip(names(2), names(ndim), (channels_first, channels_last(ndim)), strict=True):
        if layout.upper() in (two_d, exact):
            return from_specs(*specs)
    return None
