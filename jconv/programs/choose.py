"""The door to the choice: which algorithm would run, why, and why not each of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Unpack, overload

import jax
import numpy as np
from jax.typing import ArrayLike

from jconv.api import arguments
from jconv.api.options import ChooseOptions, ProblemOptions, complete, spelled_out, usual
from jconv.api.problem import hashable, understand
from jconv.choice import pick
from jconv.choice.candidates import POLICIES
from jconv.choice.pick import Choice
from jconv.programs.found import find, program
from jconv.spec import ROLES, ConvSpec, Role, checks
from jconv.spec.checks import is_sequence, shown
from jconv.spec.roles import canonical

ARRAYS = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)
PLATFORMS = ("cpu", "gpu", "cuda", "rocm", "tpu")  # as JAX names them

Operand = ArrayLike | jax.ShapeDtypeStruct | Sequence[int]
Problem = tuple[ConvSpec, Role]
Asked = Callable[..., Any] | ConvSpec | Operand | Iterable[ConvSpec | Problem]  # of `explain` and `tune`


@overload
def choose(x: Operand | ConvSpec, w: Operand | None = None, **options: Unpack[ChooseOptions]) -> Choice: ...
@overload
def choose(
    x: Callable[..., Any], w: Any = None, *args: Any, **options: Unpack[ChooseOptions]
) -> tuple[Choice, ...]: ...
@spelled_out(ChooseOptions)
def choose(x: Any, w: Any = None, *args: Any, **options: Unpack[ChooseOptions]) -> Any:
    """The algorithm that `algorithm="auto"` runs, the reason, and why not each other one.

    Args:
      x: input of the convolution: an array, a `jax.ShapeDtypeStruct`, or a shape; or a `ConvSpec`, and then
        nothing else but `role` and `platform` (of a dilated input the answer is for the strided convolution
        whose gradient it is, as in every program); or a function, and then its arguments and `platform`.
      w: kernel, likewise.
      role: "forward", "grad_input" or "grad_kernel".
      platform: "cpu", "gpu", "cuda", "rocm", "tpu" or, as None too, JAX's default backend.
      algorithm: what it chooses for: "auto", "portable" or "fastest".
      dtype: of shapes; None is the dtype of the other operand if that has one, or else float32.
      stride, padding, dilation, groups, padding_mode, layout, precision, preferred_element_type: as in
        `conv2d`, for any number of spatial dimensions.

    Returns:
      A `Choice`: print it, or take `.algorithm`, `.reason`, `.rejected`, `.seconds` (estimates) and
      `.as_dict()`.  For a function a tuple of them, one for each different convolution that jconv would run.

    Raises:
      ValueError, TypeError: an argument is wrong; the message names it and says what would work.

    >>> import jax.numpy as jnp, jconv
    >>> x, w = jnp.ones((1, 64, 56, 56)), jnp.ones((64, 1, 3, 3))
    >>> options = dict(groups=64, padding=1, platform="cpu", algorithm="portable")
    >>> [jconv.choose(*of, **options).algorithm.name for of in ((x, w), (x.shape, w.shape))]
    ['depthwise', 'depthwise']
    """
    call = complete("choose", ChooseOptions, options)
    role, platform, policy = (call.pop(name) for name in ("role", "platform", "algorithm"))
    arguments.one_of("role", role, ROLES)
    arguments.one_of("algorithm", policy, POLICIES)
    if platform is not None and not (isinstance(platform, str) and platform in PLATFORMS):  # a plug-in's?
        arguments.one_of("platform", platform, tuple(dict.fromkeys((*PLATFORMS, jax.default_backend()))))
    if callable(x):
        _check_nothing_else("a function", "`platform` and `algorithm`", call | {"role": role})
        called_with = () if w is None and not args else (w, *args)
        found = (place.problem for place in find(program(x, called_with, {})) if place.problem)
        problems = dict.fromkeys((problem.spec, problem.role) for problem in found)
        return tuple(pick.choose(spec, role, platform, policy) for spec, role in problems)
    if args:
        more = f"got {len(args)} more; only a function has more"
        raise TypeError(f"choose() takes `x` and `w` by position, {more}")
    if isinstance(x, ConvSpec):
        _check_nothing_else("a ConvSpec", "`role`, `platform` and `algorithm`", {"w": w, **call})
        return pick.choose(*canonical(x.checked(), role), platform, policy)
    return pick.choose(spec_of(x, w, call), role, platform, policy)


def spec_of(x: Any, w: Any, call: Mapping[str, Any]) -> ConvSpec:
    """The convolution of two operands, each an array, a shape with a dtype or a shape."""
    dtype, own = call["dtype"], [v.dtype for v in (x, w) if hasattr(v, "dtype") and not _is_shape(v)]
    if dtype is not None and own:
        raise ValueError(f"`dtype`={shown(dtype)} came with an array of {own[0]}; leave it out")
    of_shapes = own[0] if own else checks.dtype("float32" if dtype is None else dtype)
    x, w = _operand("x", x, of_shapes), _operand("w", w, of_shapes)
    arguments.same_dtype(x=x, w=w)
    given = hashable({name: value for name, value in call.items() if name != "dtype"} | {"algorithm": "auto"})
    return understand(len(w.shape) - 2, "forward", x.shape, w.shape, x.dtype, given).spec


def stated(
    door: str, what: Any, args: Sequence[Any], options: Mapping[str, Any], beside: Sequence[str] = ()
) -> list[Problem]:
    """What `tune` and `explain` are asked about without a program: an input and its kernel, specs, or pairs
    of a spec and a role; without a role all three.  `beside` are the door's own options."""
    if isinstance(what, ARRAYS) or _is_shape(what):
        given = complete(door, ProblemOptions, options, beside=beside)
        if len(args) > 1:
            raise TypeError(f"{door}() takes an input and its kernel by position, got {len(args) - 1} more")
        return _problems(spec_of(what, args[0] if args else None, given), door)
    no_options(door, options, "specs", beside)
    entries = what if isinstance(what, Iterable) else [what]
    problems = [problem for entry in entries for problem in _problems(entry, door)]
    if args:
        raise TypeError("`args`: arguments go with a function; specs take none")
    return problems


def no_options(door: str, options: Mapping[str, Any], what: str, beside: Sequence[str] = ()) -> None:
    """Beside specs and functions no convolution is told by options."""
    if options:
        complete(door, ProblemOptions, {k: v for k, v in options.items() if k != "role"}, beside=beside)
        raise TypeError(
            f"`{next(iter(options))}` goes with an input and a kernel, not with {what}; "
            "a role goes with a spec: [(spec, 'forward')]"
        )


def _problems(entry: Any, door: str) -> list[Problem]:
    if isinstance(entry, ConvSpec):
        return [problem for role in ROLES for problem in _problems((entry, role), door)]
    spec, role = entry if isinstance(entry, tuple) and len(entry) == 2 else (entry, None)
    if not isinstance(spec, ConvSpec) or role not in ROLES:
        raise TypeError(
            "`fn_or_specs` must be a function, ConvSpecs or (spec, role) pairs, or an input and its kernel "
            f"as `choose` takes them, got {shown(entry)}"
        )
    if spec.checked().is_empty:
        raise ValueError(f"`fn_or_specs`: {spec} is empty, nothing to {door}; take one that has outputs")
    return [canonical(spec, role)]


def _is_shape(value: Any) -> bool:
    if not is_sequence(value) or getattr(value, "ndim", 1) != 1 or len(value) == 0:
        return False
    return all(isinstance(size, (int, np.integer)) or jax.export.is_symbolic_dim(size) for size in value)


def _operand(name: str, value: Any, dtype: Any) -> jax.Array | jax.ShapeDtypeStruct:
    """An array, or no more than its shape and dtype."""
    if isinstance(value, jax.ShapeDtypeStruct):
        return value
    if _is_shape(value):
        return jax.ShapeDtypeStruct(arguments.shape(name, value, 2 if name == "x" else 3), dtype)
    if value is None:
        raise TypeError(f"`{name}` must be an array or a shape, got None; a kernel goes with every input")
    if isinstance(value, (tuple, list)) and not any(isinstance(entry, (tuple, list)) for entry in value):
        raise TypeError(f"`{name}`={shown(value)} must be an array or a shape, whose sizes are ints")
    return arguments.array(name, value)


def _check_nothing_else(what: str, allowed: str, given: Mapping[str, Any]) -> None:
    """Beside what says the rest itself, every argument is what it is when left out."""
    instead = ", or change the spec: ConvSpec.of(…) or spec.replace(…)" if what == "a ConvSpec" else ""
    for name, value in given.items():
        default = {"w": None, **usual(ChooseOptions)}[name]
        if value is not default and (default is None or type(value) is not type(default) or value != default):
            came = "" if name == "w" else f"={shown(value)}"
            raise ValueError(
                f"`{name}`{came} came with {what}, which says all but {allowed}; leave it out{instead}"
            )
