"""Channels that do not agree, or agree by accident: what was probably meant.

The four ways to read two arrays are x and w each in one layout or the other.  An error says which of them
would fit, and a call that fits is warned about where it reads an improbable kernel and the other layout
a usual one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from jconv.spec import Ints
from jconv.spec import layout as layouts
from jconv.spec.layout import Layout

IMPROBABLE = 8  # taps along one side of a kernel whose sides differ


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Two shapes, x's with its batch axis, as a layout reads them."""

    layout: Layout
    groups: int
    x: Ints
    w: Ints
    transposed: bool = False

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return len(self.w) - 2

    @property
    def names(self) -> tuple[str, str]:
        """Of this layout and of the other."""
        first, last = layouts.names(self.ndim)
        return (first, last) if self.layout.channels_first else (last, first)

    def agree(self, x: Layout, w: Layout) -> bool:
        """Whether the channels do, of x in the one layout and of w in the other."""
        channels, c, out = self.x[x.x[-1]], self.w[w.w[-2]], self.w[w.w[-1]]
        taken = out if self.transposed else c * self.groups
        return channels == taken and out % self.groups == 0

    def kernel(self, w: Layout) -> Ints:
        """The sizes in space of w as a layout reads it."""
        return tuple(self.w[axis] for axis in w.w[:-2])

    @property
    def forms(self) -> tuple[str, str]:
        """How kernels lie in this layout and in the other."""
        space = ", ".join(f"k{axis.lower()}" for axis in layouts.names(self.ndim)[0] if axis not in "NC")
        ends = ("c_in", "c_out") if self.transposed else ("c_out", "c_in")
        first, last = f"({', '.join(ends)}, {space})", f"({space}, {', '.join(ends[::-1])})"
        return (first, last) if self.layout.channels_first else (last, first)


@contextlib.contextmanager
def about(layout: Layout, groups: Any, x: Ints, w: Ints, transposed: bool = False) -> Iterator[None]:
    """Adds to an error about channels what would make them agree; warns where they do by accident."""
    known = isinstance(groups, (int, np.integer)) and groups > 0
    shapes = Shapes(layout, int(groups) if known else 1, x, w, transposed)
    try:
        yield
    except ValueError as error:
        if known and (depthwise := _as_keras_stores_it(shapes)):
            raise ValueError(depthwise) from None
        raise ValueError(f"{error}{_hint(shapes) if known else ''}") from None
    _warn_if_improbable(shapes)


def _hint(shapes: Shapes) -> str:
    """What to write if x, w or both lie as in the other layout, or are made for other groups."""
    (this_name, other_name), (_, others_form) = shapes.names, shapes.forms
    this, other = shapes.layout, _named(other_name, shapes.ndim)
    if shapes.agree(other, other):
        return f"; or pass layout={other_name!r}"
    if shapes.agree(this, other):
        return f"; with layout={this_name!r} kernels are {shapes.forms[0]}"
    if shapes.agree(other, this):
        return f"; or pass layout={other_name!r}: kernels are then {others_form}"
    channels, c = shapes.x[this.x[-1]], shapes.w[this.w[-2]]
    fitting = dataclasses.replace(shapes, groups=channels // max(c, 1) or 1)
    if not shapes.transposed and fitting.agree(this, this):
        return f"; `w` {shapes.w} fits `groups`={fitting.groups}"
    return ""


def _as_keras_stores_it(shapes: Shapes) -> str | None:
    """What to write if w is a depthwise kernel (*space, channels, multiplier)."""
    *kernel, channels, multiplier = shapes.w
    given = shapes.x[shapes.layout.x[-1]]
    if shapes.transposed or not shapes.groups == channels == given > 1:
        return None
    last = (*kernel, 1, channels * multiplier)
    n = shapes.ndim
    transposed = f".transpose{(n + 1, n, *range(n))}" if shapes.layout.channels_first else ""
    return (
        f"`w` {shapes.w} looks like a depthwise kernel as Keras stores it, (…, channels, multiplier); here "
        f"every group has one input channel: write w.reshape{last}{transposed}"
    )


def _warn_if_improbable(shapes: Shapes) -> None:
    """A kernel of 64×3 taps for 3→3 channels is one of 3×3 taps for 3→64 in the other layout."""
    this_name, other_name = shapes.names
    this, other = shapes.layout, _named(other_name, shapes.ndim)
    here, there = shapes.kernel(this), shapes.kernel(other)
    usual = len(set(there)) == 1 and math.prod(there) < math.prod(here)
    if len(set(here)) > 1 and max(here) >= IMPROBABLE and usual and shapes.agree(this, other):
        warnings.warn(
            f"`w` {shapes.w} is read as {shapes.forms[0]} with {'×'.join(map(str, here))} taps; if it is "
            f"{shapes.forms[1]} with {'×'.join(map(str, there))}, transpose it to layout {this_name!r}",
            stacklevel=7,
        )


def _named(name: str, ndim: int) -> Layout:
    found = layouts.named(name, ndim)
    assert found is not None
    return found
