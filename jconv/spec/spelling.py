"""Names of options: one that does not exist is answered by the one that was probably meant."""

import difflib
import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any, TypeVar

# What other libraries, and other functions of this one, call an option, where that is not spelled nearly the
# same: the first of these that exists.
ELSEWHERE = {
    "data_format": ("layout",), "dimension_numbers": ("layout",), "feature_group_count": ("groups",),
    "feature_groups": ("groups",), "kernel_dilation": ("dilation",), "rhs_dilation": ("dilation",),
    "dilation": ("rhs_dilation",), "dilation_rate": ("dilation", "rhs_dilation"),
    "window_strides": ("stride", "strides"), "pads": ("padding",), "auto_pad": ("padding",),
    "output_shape": ("output_size",), "method": ("algorithm",), "policy": ("algorithm",),
}  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])


def no_option(door: str, wrong: str, known: Collection[str]) -> TypeError:
    """The error for an option that `door` does not have: it names the one that was probably meant, or all."""
    suggestion = f"choose from {', '.join(known)}"
    if near := difflib.get_close_matches(wrong, known, 1):
        suggestion = f"did you mean `{near[0]}`?"
    if meant := next((name for name in ELSEWHERE.get(wrong, ()) if name in known), None):
        suggestion = f"here it is called `{meant}`"
    return TypeError(f"{door}() has no option `{wrong}`; {suggestion}")


def corrected(fn: F) -> F:
    """A decorator: called with an option that it does not have, the function says which it has."""
    parameters = inspect.signature(fn).parameters.values()
    known = [p.name for p in parameters if p.kind != p.POSITIONAL_ONLY and p.name != "self"]
    named = fn.__qualname__.removesuffix(".__init__")

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs and (wrong := next((name for name in kwargs if name not in known), None)):
            raise no_option(named, wrong, known)
        return fn(*args, **kwargs)

    return call  # type: ignore[return-value]
