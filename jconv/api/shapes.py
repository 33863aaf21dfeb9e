"""The shapes of x and w as a layout reads them, and what was probably meant where their channels disagree.

The four ways to read two arrays are x and w each in one layout or the other.  An error says which of them
would fit, and a call that fits is warned about where it reads an improbable kernel and the other layout
a usual one.
"""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

from jconv.api import arguments
from jconv.spec import Ints
from jconv.spec import layout as layouts
from jconv.spec.checks import Pairs, divisors, integer
from jconv.spec.layout import Layout

IMPROBABLE = 8  # taps along one side of a kernel whose sides differ


class Way(NamedTuple):
    """A layout, its name and how kernels lie in it."""

    name: str
    layout: Layout
    form: str


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Those of x and w; a transposed convolution's x is the output of the one that it transposes."""

    layout: Layout
    x: Ints
    w: Ints
    x_name: str = "x"
    w_name: str = "w"
    transposed: bool = False

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return len(self.layout.x) - 2

    @property
    def batched(self) -> bool:
        """Whether x has a batch axis."""
        return len(self.x) == self.ndim + 2

    def image(self, layout: Layout) -> Ints:
        """(n, *spatial, channels) of x."""
        shape = self.x if self.batched else (1, *self.x)
        return tuple(shape[axis] for axis in layout.x)

    def kernel(self, layout: Layout) -> Ints:
        """(*kernel, c, out) of w."""
        return tuple(self.w[axis] for axis in layout.w)

    def check(self) -> None:
        """The numbers of axes are right, and no side is 0 that has to be there."""
        n = self.ndim
        arguments.rank(self.x_name, self.x, (n + 1, n + 2), f"(batch if any, channels, {n} spatial)")
        arguments.rank(self.w_name, self.w, (n + 2,), f"(in and out channels, {n} spatial)")
        _, *spatial, _ = self.image(self.layout)
        *kernel, c, out = self.kernel(self.layout)
        if 0 in spatial:
            raise ValueError(
                f"`{self.x_name}` has an empty side: {tuple(spatial)}; every side must be at least 1"
            )
        if 0 in (out, *kernel) or (self.transposed and c == 0):
            raise ValueError(
                f"`{self.w_name}` is empty: {self.w}; its output channels and kernel sizes must be at least 1"
            )

    def check_fit(self, spatial: Sequence[int], windows: Ints, pairs: Pairs) -> None:
        """The dilated kernel fits into the padded input, so that there is an output."""
        padded = tuple(size + lo + hi for size, (lo, hi) in zip(spatial, pairs, strict=True))
        if any(isinstance(p, int) and w > p for w, p in zip(windows, padded, strict=True)):
            raise ValueError(
                f"`{self.w_name}` covers {windows} positions with its dilation but the padded "
                f"`{self.x_name}` has only {padded}: the output would be empty; enlarge `padding` or take a "
                "smaller kernel or dilation"
            )

    def groups(self, value: Any) -> int:
        """As an int, if the channels agree; warns where they do by accident."""
        groups = integer("groups", value, 1, most=arguments.MOST)
        if wrong := self._disagreement(groups):
            raise ValueError(self._as_keras_stores_it(groups) or wrong + self._hint(groups))
        this, other = self._ways
        here, there = self.kernel(this.layout)[:-2], self.kernel(other.layout)[:-2]
        usual = len(set(there)) == 1 and math.prod(there) < math.prod(here)
        if len(set(here)) > 1 and max(here) >= IMPROBABLE and usual and self._agree(this, other, groups):
            # a kernel of 64×3 taps for 3→3 channels is one of 3×3 taps for 3→64 in the other layout
            warnings.warn(
                f"`w` {self.w} is read as {this.form} with {'×'.join(map(str, here))} taps; if it is "
                f"{other.form} with {'×'.join(map(str, there))}, transpose it to layout {this.name!r}",
                stacklevel=5,
            )
        return groups

    def _disagreement(self, groups: int) -> str | None:
        channels = self.image(self.layout)[-1]
        c, out = self.kernel(self.layout)[-2:]
        x, w = f"`{self.x_name}` {self.x}", f"`{self.w_name}` {self.w}"
        if self.transposed and out != channels:
            return (
                f"{w} takes {out} input channels, but {x} has {channels} channels; its first channel axis "
                f"(channels first) or last axis (channels last) needs {channels}"
            )
        for size, kind, array in ((channels, "input", x), (out, "output", w)):
            if size % groups:
                must = f"`groups`={groups} must divide the {size} {kind} channels of {array}"
                return f"{must}; choose {divisors(size)}"
        if self.transposed or c * groups == channels:
            return None
        each = f"{channels} channels" + (f" in {groups} groups" if groups > 1 else "")
        needs = f"`{self.w_name}` needs {channels // groups}"
        return f"{w} takes {c} input channels, but {x} has {each}; {needs}"

    @property
    def _ways(self) -> list[Way]:
        """This one and the other."""
        space = ", ".join(f"k{axis.lower()}" for axis in layouts.names(self.ndim)[0] if axis not in "NC")
        ends = ("c_in", "c_out") if self.transposed else ("c_out", "c_in")
        forms = f"({', '.join(ends)}, {space})", f"({space}, {', '.join(ends[::-1])})"
        ways = [
            Way(name, arguments.layout(name, self.ndim), form)
            for name, form in zip(layouts.names(self.ndim), forms, strict=True)
        ]
        return ways if self.layout.channels_first else ways[::-1]

    def _agree(self, x: Way, w: Way, groups: int) -> bool:
        """Whether the channels do, of x in the one layout and of w in the other."""
        c, out = self.kernel(w.layout)[-2:]
        return self.image(x.layout)[-1] == (out if self.transposed else c * groups) and out % groups == 0

    def _hint(self, groups: int) -> str:
        """What to write if x, w or both lie as in the other layout, or are made for other groups."""
        this, other = self._ways
        if self._agree(other, other, groups):
            return f"; or pass layout={other.name!r}"
        if self._agree(this, other, groups):
            return f"; with layout={this.name!r} kernels are {this.form}"
        if self._agree(other, this, groups):
            return f"; or pass layout={other.name!r}: kernels are then {other.form}"
        fitting = self.image(this.layout)[-1] // max(self.kernel(this.layout)[-2], 1) or 1
        fits = not self.transposed and self._agree(this, this, fitting)
        return f"; `w` {self.w} fits `groups`={fitting}" if fits else ""

    def _as_keras_stores_it(self, groups: int) -> str | None:
        """What to write if w is a depthwise kernel (*space, channels, multiplier)."""
        *kernel, channels, multiplier = self.w
        if self.transposed or not groups == channels == self.image(self.layout)[-1] > 1:
            return None
        last, n = (*kernel, 1, channels * multiplier), self.ndim
        transposed = f".transpose{(n + 1, n, *range(n))}" if self.layout.channels_first else ""
        return (
            f"`w` {self.w} looks like a depthwise kernel as Keras stores it, (…, channels, multiplier); here "
            f"every group has one input channel: write w.reshape{last}{transposed}"
        )
