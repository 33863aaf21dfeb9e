"""The border: a user's arguments in, plain tuples of ints out, or an error that says what to write.

Every message names the argument in backticks, says what came and what would work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast, get_args

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import Algorithm, refuses, watched
from jconv.api.options import Padding, PaddingMode
from jconv.choice.candidates import POLICIES
from jconv.spec import ConvSpec, Ints, Role, extent
from jconv.spec import layout as layouts
from jconv.spec.checks import Pairs, divisors, integer, is_sequence, shown

PADDING_MODES = get_args(PaddingMode)
PADDING_NAMES = ("same", "valid", "same_lower", "causal")
PRECISIONS = (
    "default", "high", "highest", "fastest", "bfloat16", "bfloat16_3x", "tensorfloat32", "float32",
)  # fmt: skip
MOST = 2**31 - 1  # the largest step or padding: beyond it compilers overflow

_lax_conv = jax.lax.conv_general_dilated  # taken at import: jconv's own may be put in its place later


def array(name: str, value: Any) -> jax.Array:
    """A jax or numpy array of numbers; anything else is refused."""
    if not isinstance(value, (jax.Array, np.ndarray, np.generic)):
        like = isinstance(value, (int, float, complex, list, tuple)) or hasattr(value, "__array__")
        works = "wrap it in jnp.asarray(…)" if like else "pass a jax or numpy array"
        raise TypeError(f"`{name}` must be an array, got {type(value).__name__}; {works}")
    if not _holds_numbers(value.dtype):
        raise TypeError(f"`{name}` must be an array of numbers, got one of {value.dtype}")
    return value if isinstance(value, jax.Array) else jnp.asarray(value)


def _holds_numbers(dtype: Any) -> bool:
    """True of bools too; not of strings, times, records or the keys of random numbers."""
    return any(jax.dtypes.issubdtype(dtype, of) for of in (np.number, np.bool_)) and dtype.kind != "m"


def _int(name: str, value: Any, least: int | None, forms: str = "an int") -> int:
    """An int that a compiler can take."""
    number = integer(name, value, least, forms)
    if number > MOST:
        raise ValueError(f"`{name}`={shown(value)} must be at most {MOST}")
    return number


def plain_int(value: Any) -> Any:
    """An int of Python's own, whoever made it; a size that only a run will tell stays as it is."""
    return value if jax.export.is_symbolic_dim(value) else int(value)


def integers(name: str, value: Any, ndim: int, least: int = 1) -> Ints:
    """One int for all dimensions, alone or in a sequence (PyTorch takes both), or one per dimension."""
    forms = f"an int or {ndim} ints, one per spatial dimension"
    if not is_sequence(value):
        return (_int(name, value, least, forms),) * ndim
    if len(value) == 1:
        return (_int(name, value[0], least, forms),) * ndim
    if len(value) != ndim:
        raise ValueError(f"`{name}`={shown(tuple(value))} must be {forms}")
    return tuple(_int(name, entry, least, forms) for entry in value)


def layout(value: str | None, ndim: int) -> layouts.Layout:
    """The layout by name; None is channels first."""
    first, last = layouts.names(ndim)
    if value is not None and not isinstance(value, str):
        raise TypeError(f"`layout` must be a string, got {shown(value)}; choose {first!r} or {last!r}")
    found = layouts.named(first if value is None else value, ndim)
    if found is None:
        raise ValueError(f"`layout`={shown(value)} is not known; choose {first!r} or {last!r}")
    return found


def named_algorithm(value: Any) -> str | Algorithm:
    """One of the words for the choice, the record of that name, or the record itself."""
    if isinstance(value, Algorithm) or (isinstance(value, str) and value in POLICIES):
        return value
    if not isinstance(value, str):
        raise TypeError(f"`algorithm` must be a name or a jconv.Algorithm, got {shown(value)}")
    if value not in ALGORITHMS:
        known = ", ".join([*POLICIES, *ALGORITHMS])
        raise ValueError(f"`algorithm`={shown(value)} is not known; choose one of {known}")
    return ALGORITHMS[value]


def algorithm(value: Any, role: Role, spec: ConvSpec) -> str | Algorithm:
    """One of the words for the choice, or the record of that name if it can do the job."""
    found = named_algorithm(value)
    if isinstance(found, str):
        return found
    reason = refuses(found, role, spec)
    if found is not ALGORITHMS.get(found.name):
        found = watched(found)
    if reason and not spec.is_empty:
        raise ValueError(f"`algorithm`={found.name!r} refuses {spec}: {reason}; choose 'auto'")
    return found


def padding_mode(value: Any) -> PaddingMode:
    """One of PyTorch's four modes."""
    choices = f"choose one of {', '.join(PADDING_MODES)}"
    if not isinstance(value, str):
        raise TypeError(f"`padding_mode` must be a string, got {shown(value)}; {choices}")
    if value not in PADDING_MODES:
        raise ValueError(f"`padding_mode`={shown(value)} is not known; {choices}")
    return cast(PaddingMode, value)


NEGATIVE = "jconv.conv_general_dilated takes negative padding"


def padding(
    value: Padding, spatial: Sequence[int], windows: Ints, strides: Ints, negative: str = NEGATIVE
) -> Pairs:
    """(lo, hi) per dimension of a convolution; an error says what takes a `negative` one."""
    if isinstance(value, str):
        return _named_padding(value, spatial, windows, strides)
    pairs = pairs_of_ints(value, len(windows))
    if any(side < 0 for side in sum(pairs, ())):
        raise ValueError(f"`padding`={min(sum(pairs, ()))} must be at least 0; {negative}")
    return pairs


def pairs_of_ints(value: Any, ndim: int) -> Pairs:
    """(lo, hi) per dimension from an int, an int per dimension or a pair per dimension."""
    entries: Any = value if is_sequence(value) else (value,) * ndim
    if len(entries) == 1 and not is_sequence(entries[0]):
        entries = (entries[0],) * ndim
    forms = f"an int, {ndim} ints or {ndim} (lo, hi) pairs"
    if len(entries) != ndim:
        names = ", ".join(PADDING_NAMES)
        raise ValueError(f"`padding`={shown(entries)} must be {forms}, or one of {names}")
    return tuple(_pair(entry, forms) for entry in entries)


def _pair(entry: Any, forms: str) -> tuple[int, int]:
    if not is_sequence(entry):
        entry = (entry, entry)
    if len(entry) != 2:
        raise ValueError(f"`padding` must be {forms}, got the entry {shown(entry)}")
    lo, hi = (_int("padding", side, None, forms) for side in entry)
    return lo, hi


def padding_name(value: str, names: Sequence[str]) -> str:
    """One of the names, in lower case."""
    if value.lower() not in names:
        raise ValueError(f"`padding`={shown(value)} is not known; choose one of {', '.join(names)}, or ints")
    return value.lower()


def _named_padding(value: str, spatial: Sequence[int], windows: Ints, strides: Ints) -> Pairs:
    """No output is lost to "same": ceil(h / stride), with what zeros the windows need for that."""
    name = padding_name(value, PADDING_NAMES)
    if name == "causal":
        if len(windows) != 1:
            raise ValueError(f"`padding`={shown(value)} has a meaning in 1-D only; write (lo, hi) pairs")
        return ((windows[0] - 1, 0),)
    pairs = jax.lax.padtype_to_pads(spatial, windows, strides, name.upper())
    return tuple((plain_int(lo), plain_int(hi)) for lo, hi in pairs)


def same_dtype(**arrays: jax.Array | jax.ShapeDtypeStruct) -> None:
    """All of one dtype."""
    (first, a), *rest = arrays.items()
    for name, b in rest:
        if a.dtype != b.dtype:
            raise TypeError(
                f"`{name}` is {b.dtype} but `{first}` is {a.dtype}; cast one: {name}.astype({first}.dtype)"
            )


def shape(name: str, value: Any) -> Ints:
    """A tuple of non-negative ints, or of sizes that only a run will tell."""
    if not is_sequence(value):
        raise TypeError(f"`{name}` must be a sequence of ints, got {shown(value)}")
    if len(value) < 3:
        raise ValueError(
            f"`{name}`={shown(tuple(value))} must have two channel or batch axes and at least one spatial"
        )
    sizes: Iterable[Any] = (s if jax.export.is_symbolic_dim(s) else _int(name, s, 0) for s in value)
    return tuple(sizes)


def rank(name: str, shape: Ints, ranks: Ints, meaning: str) -> None:
    """One of the allowed numbers of axes."""
    if len(shape) not in ranks:
        allowed = " or ".join(map(str, ranks))
        raise ValueError(f"`{name}` must have {allowed} axes {meaning}, got shape {shown(shape)}")


def channels(
    c: int, in_channels: int, groups: int, x_shape: Ints, w_shape: Ints, x: str = "x", w: str = "w"
) -> None:
    """The kernel takes as many channels as a group has; `x` and `w` are what the user calls the two."""
    if c * groups != in_channels:
        each = f"{in_channels} channels" + (f" in {groups} groups" if groups > 1 else "")
        raise ValueError(
            f"`{w}` {w_shape} takes {c} input channels, but `{x}` {x_shape} has {each}; "
            f"`{w}` needs {in_channels // groups}"
        )


def groups(
    value: Any, in_channels: int, out_channels: int, x_shape: Ints, w_shape: Ints, x: str = "x", w: str = "w"
) -> int:
    """A positive int that divides both channel counts."""
    count = integer("groups", value, 1)
    sides = (in_channels, "input", x, x_shape), (out_channels, "output", w, w_shape)
    for channels, kind, name, shape in sides:
        if channels % count:
            raise ValueError(
                f"`groups`={count} must divide the {channels} {kind} channels of `{name}` {shape}; "
                f"choose {divisors(channels)}"
            )
    return count


def bias(b: Any, second: Any, out_channels: int, dtype: Any) -> jax.Array | None:
    """None, or one value per output channel in the result's dtype; `second` came by the name `bias`."""
    if b is not None and second is not None:
        raise TypeError("`b` and `bias` are two names of one argument; pass one of them")
    b = second if b is None else b
    if b is None:
        return None
    b = array("b", b)
    if b.shape != (out_channels,):
        raise ValueError(
            f"`b` must have shape ({out_channels},), one value per output channel, got {b.shape}"
        )
    if b.dtype != dtype:
        raise TypeError(f"`b` is {b.dtype} but the output is {dtype}; cast it: b.astype('{dtype}')")
    return b


def not_empty(
    spatial: Sequence[int], sizes: Sequence[int], w_shape: Ints, x: str = "x", w: str = "w"
) -> None:
    """No side of x is 0 and none of those `sizes` of w that have to be there."""
    if 0 in spatial:
        raise ValueError(f"`{x}` has an empty side: {tuple(spatial)}; every side must be at least 1")
    if 0 in sizes:
        raise ValueError(
            f"`{w}` is empty: {w_shape}; its output channels and kernel sizes must be at least 1"
        )


def fits(
    spatial: Sequence[int], pairs: Pairs, kernel: Sequence[int], dilation: Ints, x: str = "x", w: str = "w"
) -> None:
    """The dilated kernel fits into the padded input, so that there is an output."""
    windows = tuple(map(extent, kernel, dilation))
    padded = tuple(size + lo + hi for size, (lo, hi) in zip(spatial, pairs, strict=True))
    if any(isinstance(p, int) and w > p for w, p in zip(windows, padded, strict=True)):
        raise ValueError(
            f"`{w}` covers {windows} positions with its dilation but the padded `{x}` has only {padded}: "
            "the output would be empty; enlarge `padding` or take a smaller kernel or dilation"
        )


def result_dtype(preferred: Any, dtype: Any) -> str:
    """The dtype of the result: the input's, or the preferred one where lax would allow it."""
    if preferred is None:
        return str(dtype)
    one = jax.ShapeDtypeStruct((1, 1), dtype)
    try:
        like = jax.eval_shape(
            lambda x, w: _lax_conv(x, w, (), (), preferred_element_type=preferred), one, one
        )
    except (TypeError, ValueError, NotImplementedError) as error:
        raise type(error)(
            f"`preferred_element_type`={shown(preferred)} does not suit {dtype}: {error}"
        ) from None
    return str(like.dtype)


def one_of(name: str, value: Any, known: tuple[str, ...]) -> str:
    """One of a few strings."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"`{name}`={shown(value)} is not known; choose one of {', '.join(known)}")
    return value


def precision(value: Any, presets: bool = False) -> tuple[jax.lax.Precision, jax.lax.Precision] | None:
    """A pair of `jax.lax.Precision` or None, from whatever lax takes, names in either case.

    A `jax.lax.DotAlgorithmPreset` is about matrix products: lax lets a convolution take one and runs it at
    precision DEFAULT.  With `presets` so does this.
    """
    if value is None:
        return None
    if presets and _is_preset(value):
        return jax.lax.Precision.DEFAULT, jax.lax.Precision.DEFAULT
    pair = value if isinstance(value, (list, tuple)) and len(value) == 2 else (value, value)
    found = [_one_precision(entry) for entry in pair]
    if None in found:
        what = "is for matrix products alone" if _is_preset(value) else "is not known"
        choices = f"{', '.join(map(repr, PRECISIONS))}, a jax.lax.Precision or a pair of them"
        raise ValueError(f"`precision`={shown(value)} {what}; choose {choices}")
    return found[0], found[1]


def default_precision() -> tuple[jax.lax.Precision, jax.lax.Precision] | None:
    """What `jax.default_matmul_precision` says at the moment: lax, too, reads it when it traces."""
    now = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return precision(now, presets=True)


def _one_precision(value: Any) -> Any:
    """The `jax.lax.Precision` of that name, itself, or None."""
    if isinstance(value, str) and value.lower() in PRECISIONS:
        return jax.lax.Precision(value.lower())
    return value if isinstance(value, jax.lax.Precision) else None


def _is_preset(value: Any) -> bool:
    kinds = jax.lax.DotAlgorithm, jax.lax.DotAlgorithmPreset
    return isinstance(value, kinds) or value in jax.lax.DotAlgorithmPreset.__members__
