"""The border: a user's arguments in, plain tuples of ints out, or an error that says what to write.

Every message names the argument in backticks, says what came and what would work.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import Algorithm, refuses, watched
from jconv.api.options import Padding
from jconv.choice.candidates import POLICIES
from jconv.runtime.private import lax_conv
from jconv.spec import ConvSpec, Ints, Role
from jconv.spec import layout as layouts
from jconv.spec.checks import Pairs, integer, is_sequence, shown, size

PADDING_NAMES = ("same", "valid", "same_lower", "causal")
PRECISIONS = (
    "default", "high", "highest", "fastest", "bfloat16", "bfloat16_3x", "tensorfloat32", "float32",
)  # fmt: skip
MOST = 2**31 - 1  # the largest step or padding: beyond it compilers overflow
MOST_ELEMENTS = 2**50  # of an array: no memory holds as many, and XLA cannot count many more
MOST_OF_A_REASON = 300  # characters of an error of lax that one of jconv's quotes
NEGATIVE = "jconv.conv_general_dilated takes negative padding"


def array(name: str, value: Any) -> jax.Array:
    """A jax or numpy array of numbers, bools too; not of strings, times, records or random keys."""
    if not isinstance(value, (jax.Array, np.ndarray, np.generic)):
        like = isinstance(value, (int, float, complex, list, tuple)) or hasattr(value, "__array__")
        works = "wrap it in jnp.asarray(…)" if like else "pass a jax or numpy array"
        raise TypeError(f"`{name}` must be an array, got {type(value).__name__}; {works}")
    kind = value.dtype
    if not any(jax.dtypes.issubdtype(kind, of) for of in (np.number, np.bool_)) or kind.kind == "m":
        raise TypeError(f"`{name}` must be an array of numbers, got one of {kind}")
    if isinstance(value, jax.Array):
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"`{name}` must be an array, got a masked one; fill it: {name}.filled(0)")
    try:
        return jnp.asarray(value)
    except TypeError:  # long doubles, and numbers whose bytes lie backwards
        wrong = f"`{name}` is {kind.name} in an order of bytes or a size that JAX does not have"
        raise TypeError(f"{wrong}; cast it: {name}.astype('float32')") from None


def same_dtype(**arrays: jax.Array | jax.ShapeDtypeStruct) -> None:
    """All of one dtype."""
    (first, a), *rest = arrays.items()
    for name, b in rest:
        if a.dtype != b.dtype:
            raise TypeError(
                f"`{name}` is {b.dtype} but `{first}` is {a.dtype}; cast one: {name}.astype({first}.dtype)"
            )


def bias(b: Any, second: Any, spec: ConvSpec, role: Role) -> jax.Array | None:
    """None, or one value per output channel in the result's dtype; `second` came by the name `bias`."""
    if b is not None and second is not None:
        raise TypeError("`b` and `bias` are two names of one argument; pass one of them")
    b = second if b is None else b
    if b is None:
        return None
    b = array("b", b)
    transposed = role == "grad_input"
    channels, dtype = (spec.in_channels, spec.x_dtype) if transposed else (spec.out_channels, spec.y_dtype)
    if b.shape != (channels,):
        raise ValueError(f"`b` must have shape ({channels},), one value per output channel, got {b.shape}")
    if b.dtype != dtype:
        raise TypeError(f"`b` is {b.dtype} but the output is {dtype}; cast it: b.astype('{dtype}')")
    return b


def result_dtype(preferred: Any, dtype: Any) -> str:
    """The dtype of the result: the input's, or the preferred one where lax would allow it."""
    if preferred is None:
        return str(dtype)
    one = jax.ShapeDtypeStruct((1, 1), dtype)
    try:
        like = jax.eval_shape(lambda x, w: lax_conv(x, w, (), (), preferred_element_type=preferred), one, one)
    except (TypeError, ValueError, NotImplementedError) as error:
        why = str(error) if len(str(error)) < MOST_OF_A_REASON else type(error).__name__
        wrong = f"`preferred_element_type`={shown(preferred)} does not suit {dtype}: {why}"
        raise (TypeError if isinstance(error, TypeError) else ValueError)(wrong) from None
    return str(like.dtype)


def plain_int(value: Any) -> Any:
    """An int of Python's own, whoever made it; a size that only a run will tell stays as it is."""
    return value if jax.export.is_symbolic_dim(value) else int(value)


def integers(name: str, value: Any, ndim: int, least: int = 1) -> Ints:
    """One int for all dimensions, alone or in a sequence (PyTorch takes both), or one per dimension."""
    forms = f"an int or {ndim} ints, one per spatial dimension"
    entries = value if is_sequence(value) else (value,)
    if len(entries) not in (1, ndim):
        raise ValueError(f"`{name}`={shown(tuple(value))} must be {forms}")
    found = tuple(integer(name, entry, least, forms, MOST) for entry in entries)
    return found * ndim if len(found) == 1 else found


def shape(name: str, value: Any, least: int = 3) -> Ints:
    """A tuple of non-negative ints, or of sizes that only a run will tell, `least` of them at least."""
    if not is_sequence(value):
        raise TypeError(f"`{name}` must be a sequence of ints, got {shown(value)}")
    if len(value) < least:
        raise ValueError(
            f"`{name}`={shown(tuple(value))} must have two channel or batch axes and at least one spatial"
        )
    return tuple(size(name, one, 0, most=MOST) for one in value)


def possible(*shapes: Sequence[int]) -> None:
    """No array that the options make is one that XLA cannot count."""
    for shape in shapes:
        count = math.prod(shape)
        if isinstance(count, int) and count > MOST_ELEMENTS:
            raise ValueError(
                f"`padding`, `stride`, `dilation` and sizes make an array of shape {shown(tuple(shape))}, "
                "which no memory holds; take smaller ones"
            )


def rank(name: str, shape: Ints, ranks: Ints, meaning: str) -> None:
    """One of the allowed numbers of axes."""
    if len(shape) not in ranks:
        allowed = " or ".join(map(str, ranks))
        raise ValueError(f"`{name}` must have {allowed} axes {meaning}, got shape {shown(shape)}")


def padding(
    value: Padding, spatial: Sequence[int], windows: Ints, strides: Ints, negative: str = NEGATIVE
) -> Pairs:
    """(lo, hi) per dimension of a convolution; an error says what takes a `negative` one.

    No output is lost to "same": ceil(h / stride), with what zeros the windows need for that.
    """
    if not isinstance(value, str):
        ints = pairs_of_ints(value, len(windows))
        if (least := min(map(min, ints))) < 0:
            raise ValueError(f"`padding`={least} must be at least 0; {negative}")
        return ints
    name = padding_name(value, PADDING_NAMES)
    if name != "causal":
        pairs = jax.lax.padtype_to_pads(spatial, windows, strides, name.upper())
        return tuple((plain_int(lo), plain_int(hi)) for lo, hi in pairs)
    if len(windows) != 1:
        raise ValueError(f"`padding`={shown(value)} has a meaning in 1-D only; write (lo, hi) pairs")
    return ((windows[0] - 1, 0),)


def padding_name(value: str, names: Sequence[str]) -> str:
    """One of the names, in lower case."""
    if value.lower() not in names:
        raise ValueError(f"`padding`={shown(value)} is not known; choose one of {', '.join(names)}, or ints")
    return value.lower()


def pairs_of_ints(value: Any, ndim: int) -> Pairs:
    """(lo, hi) per dimension from an int, an int per dimension or a pair per dimension."""
    entries: Any = value if is_sequence(value) else (value,) * ndim
    if len(entries) == 1 and not is_sequence(entries[0]):
        entries = (entries[0],) * ndim
    forms = f"an int, {ndim} ints or {ndim} (lo, hi) pairs"
    if len(entries) != ndim:
        names = ", ".join(PADDING_NAMES)
        raise ValueError(f"`padding`={shown(entries)} must be {forms}, or one of {names}")
    pairs: list[tuple[int, int]] = []
    for entry in entries:
        pair = entry if is_sequence(entry) else (entry, entry)
        if len(pair) != 2:
            raise ValueError(f"`padding` must be {forms}, got the entry {shown(entry)}")
        lo, hi = (integer("padding", side, None, forms, MOST) for side in pair)
        pairs.append((lo, hi))
    return tuple(pairs)


def layout(value: str | None, ndim: int) -> layouts.Layout:
    """The layout by name; None is channels first."""
    first, last = layouts.names(ndim)
    if value is not None and not isinstance(value, str):
        raise TypeError(f"`layout` must be a string, got {shown(value)}; choose {first!r} or {last!r}")
    found = layouts.named(first if value is None else value, ndim)
    if found is None:
        raise ValueError(f"`layout`={shown(value)} is not known; choose {first!r} or {last!r}")
    return found


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    """One of a few strings."""
    choices = f"choose one of {', '.join(known)}"
    if not isinstance(value, str):
        raise TypeError(f"`{name}` must be a string, got {shown(value)}; {choices}")
    if value not in known:
        raise ValueError(f"`{name}`={shown(value)} is not known; {choices}")
    return value


def named_algorithm(value: Any) -> str | Algorithm:
    """One of the words for the choice, the record of that name, or the record itself."""
    if isinstance(value, Algorithm) or (isinstance(value, str) and value in POLICIES):
        return value
    if not isinstance(value, str):
        raise TypeError(f"`algorithm` must be a name or a jconv.Algorithm, got {shown(value)}")
    return ALGORITHMS[one_of("algorithm", value, [*POLICIES, *ALGORITHMS])]


def algorithm(value: Any, role: Role, spec: ConvSpec) -> str | Algorithm:
    """One of the words for the choice, or the record of that name if it can do the job."""
    found = named_algorithm(value)
    if isinstance(found, str):
        return found
    reason = refuses(found, role, spec)
    if reason and not spec.is_empty:
        raise ValueError(f"`algorithm`={found.name!r} refuses {spec}: {reason}; choose 'auto'")
    return found if found is ALGORITHMS.get(found.name) else watched(found)


def precision(value: Any, presets: bool = False) -> tuple[jax.lax.Precision, jax.lax.Precision] | None:
    """A pair of `jax.lax.Precision` or None, from whatever lax takes, names in either case.

    A `jax.lax.DotAlgorithmPreset` is about matrix products: lax lets a convolution take one and runs it at
    precision DEFAULT.  With `presets` so does this.
    """
    if value is None:
        return None
    kinds = jax.lax.DotAlgorithm, jax.lax.DotAlgorithmPreset
    preset = isinstance(value, kinds) or value in jax.lax.DotAlgorithmPreset.__members__
    if presets and preset:
        return jax.lax.Precision.DEFAULT, jax.lax.Precision.DEFAULT
    pair = value if isinstance(value, (list, tuple)) and len(value) == 2 else (value, value)
    found = [
        jax.lax.Precision(one.lower()) if isinstance(one, str) and one.lower() in PRECISIONS else one
        for one in pair
    ]
    if not all(isinstance(one, jax.lax.Precision) for one in found):
        what = "is for matrix products alone" if preset else "is not known"
        choices = f"{', '.join(map(repr, PRECISIONS))}, a jax.lax.Precision or a pair of them"
        raise ValueError(f"`precision`={shown(value)} {what}; choose {choices}")
    return found[0], found[1]
