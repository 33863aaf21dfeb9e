"""What a caller may say by keyword, written once: each option's type, and what it is when left out.

The public functions take `**options: Unpack[…]` of one of the classes here, so a type checker and an
editor know every name and every word that is allowed.  `spelled_out` puts the same names into the
signature that `help`, notebooks and `inspect.signature` show.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict, TypeVar, get_type_hints

from jax.typing import ArrayLike, DTypeLike

from jconv.algorithms.record import Algorithm
from jconv.spec import Role
from jconv.spec.checks import shown
from jconv.spec.spelling import no_option

IntOrInts = int | Sequence[int]
PaddingName = Literal["valid", "same", "same_lower", "causal", "VALID", "SAME", "SAME_LOWER"]
Padding = int | PaddingName | Sequence[int] | Sequence[tuple[int, int]]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
LayoutName = Literal["NCHW", "NHWC", "NCW", "NWC", "NCDHW", "NDHWC"]
PolicyName = Literal["auto", "portable", "fastest"]
AlgorithmName = Literal[
    "auto", "portable", "fastest", "onednn", "xla", "pointwise", "patchify", "depthwise", "broadcast",
    "im2col", "shift", "overlap_add", "unrolled", "per_group", "phase", "winograd", "fft",
]  # fmt: skip


# The second half of each `Annotated` is what is meant when nothing is said.
class PatchOptions(TypedDict, total=False):
    """Of `unfold`, `fold`, `im2col` and `col2im`."""

    dilation: Annotated[IntOrInts, 1]
    padding: Annotated[Padding, 0]
    stride: Annotated[IntOrInts, 1]


class WindowOptions(TypedDict, total=False):
    """Where the windows lie."""

    stride: Annotated[IntOrInts, 1]
    padding: Annotated[Padding, 0]
    dilation: Annotated[IntOrInts, 1]
    groups: Annotated[int, 1]
    padding_mode: Annotated[PaddingMode, "zeros"]
    layout: Annotated[LayoutName | None, None]
    precision: Annotated[Any, None]


class GradientOptions(WindowOptions, total=False):
    """Of `grad_input` and `grad_kernel`."""

    algorithm: Annotated[AlgorithmName | Algorithm, "auto"]


class ConvOptions(GradientOptions, total=False):
    """Of `conv`, `conv1d`, `conv2d` and `conv3d`."""

    preferred_element_type: Annotated[DTypeLike | None, None]
    bias: Annotated[ArrayLike | None, None]


class TransposedOptions(ConvOptions, total=False):
    """Of `conv_transpose` and its siblings."""

    output_padding: Annotated[IntOrInts, 0]
    output_size: Annotated[IntOrInts | None, None]


class ProblemOptions(WindowOptions, total=False):
    """What beside two shapes makes a problem: of `choose` and `tune`."""

    preferred_element_type: Annotated[DTypeLike | None, None]
    dtype: Annotated[DTypeLike | None, None]


class ChooseOptions(ProblemOptions, total=False):
    """Of `choose`."""

    role: Annotated[Role, "forward"]
    platform: Annotated[str | None, None]
    algorithm: Annotated[PolicyName, "auto"]


# as PyTorch's transposed convolutions take them by position; its other functions in the order above
TRANSPOSED = ("stride", "padding", "output_padding", "groups", "dilation")

F = TypeVar("F", bound=Callable[..., Any])


@functools.cache
def usual(options: type) -> dict[str, Any]:
    """What every option of a class is when left out."""
    hints = get_type_hints(options, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


def spelled_out(options: type) -> Callable[[F], F]:
    """A decorator: in the signature that is shown, every option takes the place of `**options`."""
    named = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value)
        for name, value in usual(options).items()
    ]

    def signed(fn: F) -> F:
        signature = inspect.signature(fn)
        own = [
            parameter
            for parameter in signature.parameters.values()
            if parameter.annotation != "Never" and parameter.kind != parameter.VAR_KEYWORD
        ]
        fn.__signature__ = signature.replace(parameters=[*own, *named])  # type: ignore[attr-defined]
        return fn

    return signed


def complete(
    name: str, options: type, given: Mapping[str, Any], more: Sequence[Any] = (), beside: Sequence[str] = ()
) -> dict[str, Any]:
    """All options of a call of `name`, those that were given and the usual ones; `beside` are others it has.

    Raises:
      TypeError: `more` came by position, or a name is none of the options; it says what to write.
    """
    known = usual(options)
    if more:
        order = TRANSPOSED if "output_padding" in known else known
        written = ", ".join(f"{key}={shown(value)}" for key, value in zip(order, more, strict=False))
        raise TypeError(
            f"{name}() takes its arrays by position and the rest by name, as in {name}(…, {written})"
        )
    if given.keys() <= known.keys():
        return {**known, **given}
    wrong = next(key for key in given if key not in known)
    raise no_option(name, wrong, [*known, *beside])
