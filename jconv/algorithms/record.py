"""The record: what an algorithm is, and how any algorithm serves all three roles.

An algorithm is a handful of plain functions, of which only `forward` is needed (`derived` makes the rest).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jconv.algorithms.derived import Compute, by_rewriting, by_transposing
from jconv.runtime.mark import lax_itself
from jconv.spec import ROLES, ConvSpec, Role
from jconv.spec.checks import in_one_line, shown
from jconv.spec.roles import OPERANDS, ROLE_OF, rewritten
from jconv.spec.spelling import corrected


@dataclasses.dataclass(frozen=True)
class Gemm:
    """`count` matrix products of (m, k) with (k, n)."""

    count: int
    m: int
    n: int
    k: int


@dataclasses.dataclass(frozen=True)
class Loop:
    """`count` fused elementwise loops, each of `flops` operations over `bytes` of memory traffic.

    `run` is how many elements lie side by side in memory: the inner, vectorised length.
    """

    flops: float
    bytes: float
    run: int = 64
    count: int = 1


@dataclasses.dataclass(frozen=True)
class Fft:
    """`count` real transforms over `length` points each (the product of all transformed axes)."""

    count: int
    length: int


@dataclasses.dataclass(frozen=True)
class Native:
    """One `lax.conv_general_dilated` of the given spec, as the platform's compiler runs it."""

    spec: ConvSpec


@dataclasses.dataclass(frozen=True)
class OneDnn:
    """One convolution of the given spec, whose input is not dilated, by oneDNN.

    `streamed` says that its kernel is an image, which no cache holds.
    """

    spec: ConvSpec
    streamed: bool = False


@dataclasses.dataclass(frozen=True)
class Repeated:
    """`count` times the same steps, one after the other: those of every piece or group."""

    steps: tuple[Step, ...]
    count: int


Step = Gemm | Loop | Fft | Native | OneDnn | Repeated


def each(steps: Iterable[Step]) -> Iterator[Step]:
    """Every step once, however often it is repeated."""
    for step in steps:
        if isinstance(step, Repeated):
            yield from each(step.steps)
        else:
            yield step


# What is taken of an algorithm that does not say: functions with names, as records are pickled.


def direct_steps(spec: ConvSpec, role: Role) -> tuple[Step, ...]:
    return (Loop(spec.flops, spec.bytes),)


def no_workspace(spec: ConvSpec, role: Role) -> int:
    return 0


def nothing(spec: ConvSpec) -> None:
    return None


def as_direct(spec: ConvSpec) -> float:
    return 1.0


def never(spec: ConvSpec, role: Role) -> bool:
    return False


def always(spec: ConvSpec, role: Role) -> bool:
    return True


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """One way to compute a convolution.

    Args:
      name: what a user types.
      forward: `(x, w, spec) -> y` in the canonical layout of `ConvSpec`.  Pure, traceable.
      rejects: `spec -> None`, or why `forward` does not take it: it would be wrong, or a waste.
      steps: `(spec, role) -> steps`: what the cost model adds up.
      workspace: `(spec, role) -> bytes` of temporaries.
      grad_input, grad_kernel: `(g, w, spec) -> x-shaped` and `(x, g, spec) -> w-shaped`, where the algorithm
        has something better than the rewritten forward.
      exact: True where integer-valued floats give bit-equal results and NaNs stay in their receptive field;
        False where values are mixed by a transform.
      amplification: `spec -> ` rounding error relative to the direct sum's, measured.
      reads_channels_first: `(spec, role) -> ` whether arrays that lie channels first are taken so, or `steps`
        says what they cost; any other algorithm pays for transposing them.
      reads_kernel: whether a kernel whose channels come first is taken as it lies, likewise.
      reads_swapped: `(spec, role) -> ` whether the input's gradient takes a kernel that lies swapped as it
        lies; where not, it is swapped in memory first.
      own: `(spec, role) -> ` whether the gradient given here serves this spec; where not, the rewritten
        forward does.
      portable: False where a program that holds it cannot be exported or kept.
      variant: which of several forms of one idea this is, for the reason that a choice gives.
      forms: several ways to write one idea, all of this name (`of_forms`).  The choice takes the cheapest,
        and who asks for none the first that accepts the problem.

    >>> from jconv.algorithms import SHIFT
    >>> SHIFT.name, SHIFT.exact
    ('shift', True)
    """

    name: str
    forward: Compute
    rejects: Callable[[ConvSpec], str | None] = nothing
    steps: Callable[[ConvSpec, Role], tuple[Step, ...]] = direct_steps
    workspace: Callable[[ConvSpec, Role], int] = no_workspace
    grad_input: Compute | None = None
    grad_kernel: Compute | None = None
    exact: bool = True
    amplification: Callable[[ConvSpec], float] = as_direct
    reads_channels_first: Callable[[ConvSpec, Role], bool] = never
    reads_kernel: bool = False
    reads_swapped: Callable[[ConvSpec, Role], bool] = never
    own: Callable[[ConvSpec, Role], bool] = always
    portable: bool = True
    variant: str = ""
    forms: tuple[Algorithm, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"`name` of an Algorithm must be a string, got {shown(self.name)}")
        for name in ("forward", "rejects", "steps", "workspace", "grad_input", "grad_kernel", "amplification",
                     "reads_channels_first", "reads_swapped", "own", "exact", "reads_kernel",
                     "portable"):  # fmt: skip
            value, optional = getattr(self, name), name in ("grad_input", "grad_kernel")
            is_flag = name in ("exact", "reads_kernel", "portable")
            if not (isinstance(value, bool) if is_flag else callable(value) or (optional and value is None)):
                due = "bool" if is_flag else "function"
                raise TypeError(f"`{name}` of Algorithm {self.name!r} must be a {due}, got {shown(value)}")


setattr(Algorithm, "__init__", corrected(Algorithm.__init__))  # noqa: B010  (mypy lets nobody assign it)


def of_forms(*forms: Algorithm) -> Algorithm:
    """One idea under one name, written in several ways."""

    def first(spec: ConvSpec) -> Algorithm:
        return form(whole, "forward", spec)

    whole = Algorithm(
        forms[0].name,
        forward=lambda x, w, spec: first(spec).forward(x, w, spec),
        rejects=lambda spec: first(spec).rejects(spec),
        exact=all(one.exact for one in forms),
        amplification=lambda spec: first(spec).amplification(spec),
        forms=forms,
    )
    return whole


def forms_of(algorithm: Algorithm) -> tuple[Algorithm, ...]:
    """All its forms; itself where it has none."""
    return algorithm.forms or (algorithm,)


def form(algorithm: Algorithm, role: Role, spec: ConvSpec) -> Algorithm:
    """The first of its forms that accepts this, the first of all if none does; itself where it has none."""
    accepting = (one for one in algorithm.forms if not refuses(one, role, spec))
    return next(accepting, forms_of(algorithm)[0])


@functools.lru_cache(maxsize=256)
def watched(algorithm: Algorithm) -> Algorithm:
    """The same, of a user's own making: what its functions return is held to the spec they are given."""

    def held(role: Role, function: Compute, a: jax.Array, b: jax.Array, spec: ConvSpec) -> jax.Array:
        result = function(a, b, spec)
        shape, dtype = spec.result(role)
        of = f"`algorithm`={algorithm.name!r}: its {role} of {spec}"
        if not isinstance(result, (jax.Array, np.ndarray)):
            raise TypeError(f"{of} must return an array, got {type(result).__name__}")
        if result.shape != shape:
            raise ValueError(f"{of} returned the shape {result.shape}; {shape} was due")
        if result.dtype.name not in (dtype, spec.accumulator, a.dtype.name):
            due = dtype if dtype == spec.accumulator else f"{dtype} or {spec.accumulator}"
            raise TypeError(f"{of} returned {result.dtype}; {due} was due")
        return result

    given = [(role, function) for role in ROLES if (function := getattr(algorithm, role))]
    changes: dict[str, Any] = {role: functools.partial(held, role, function) for role, function in given}
    return dataclasses.replace(algorithm, **changes)


def evaluate(algorithm: Algorithm, role: Role, a: jax.Array, b: jax.Array, spec: ConvSpec) -> jax.Array:
    """Compute `role` of `spec` with `algorithm`: (x, w) → y, (g, w) → ∂x or (x, g) → ∂w.

    Raises:
      ValueError: the algorithm accepts the spec in no role.
    """
    shape, dtype = spec.result(role)
    if spec.is_empty:
        return jnp.zeros(shape, dtype)
    a, b = _widened(a, b, spec)
    if a.dtype.kind == "c":
        return _by_three_real_ones(algorithm, role, a, b, spec)
    how = _program(algorithm, role, spec)
    # a user's stricter rules for their own code are not rules for this one, nor is what lax means there
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"), lax_itself():
        return how(a, b, spec).reshape(shape).astype(dtype)


def _program(algorithm: Algorithm, role: Role, spec: ConvSpec) -> Compute:
    """What the algorithm has for `role`, or its forward of the rewritten spec; where it refuses that, one of
    the roles it accepts, run backwards."""
    if not (reason := refuses(algorithm, role, spec)):
        algorithm = form(algorithm, role, spec)
        return own(algorithm, role, spec) or by_rewriting(algorithm.forward, role)
    accepted = (other for other in ROLES if not refuses(algorithm, other, spec))
    if (other := next(accepted, None)) is None:
        raise ValueError(f"{algorithm.name!r} refuses {spec} in every role; {role}: {reason}")
    return by_transposing(_program(algorithm, other, spec.replace(onednn=False)), other, role)


def serves(algorithm: Algorithm, spec: ConvSpec) -> bool:
    """Whether `evaluate` can compute `spec`, in one role and so in all of them."""
    return spec.is_empty or any(not refuses(algorithm, role, spec) for role in ROLES)


def _widened(a: jax.Array, b: jax.Array, spec: ConvSpec) -> tuple[jax.Array, jax.Array]:
    """Both in the accumulator's dtype, unless matrix products take them as they are and sum wider."""
    taken = {"float16": "float32", "bfloat16": "float32", "int8": "int32"}
    if a.dtype == b.dtype and taken.get(a.dtype.name) == spec.accumulator:
        return a, b
    return a.astype(spec.accumulator), b.astype(spec.accumulator)


def _by_three_real_ones(
    algorithm: Algorithm, role: Role, a: jax.Array, b: jax.Array, spec: ConvSpec
) -> jax.Array:
    """Every role is bilinear, so a complex one is three real ones (Gauss), as in lax:

    (a + ib)(c + id) = k₁ − k₃ + i(k₁ + k₂)   k₁ = (a + b)c   k₂ = a(d − c)   k₃ = b(c + d)
    """
    real = real_valued(spec)
    k1 = evaluate(algorithm, role, a.real + a.imag, b.real, real)
    k2 = evaluate(algorithm, role, a.real, b.imag - b.real, real)
    k3 = evaluate(algorithm, role, a.imag, b.real + b.imag, real)
    return lax.complex(k1 - k3, k1 + k2).astype(spec.result(role)[1])


def real_valued(spec: ConvSpec) -> ConvSpec:
    """The spec of each of the three real convolutions that a complex one is; a real one itself."""
    dtype = {"complex64": "float32", "complex128": "float64"}.get(spec.accumulator)
    return spec.with_dtype(dtype) if dtype else spec


def own(algorithm: Algorithm, role: Role, spec: ConvSpec) -> Compute | None:
    """The algorithm's own way to compute `role` of `spec`; None where the rewritten forward does it."""
    if role == "forward":
        return algorithm.forward
    return getattr(algorithm, role) if algorithm.own(spec, role) else None


def refuses(algorithm: Algorithm, role: Role, spec: ConvSpec) -> str | None:
    """Why "auto" may not use `algorithm` for `role`, or None.  A derived role needs the rewritten spec to be
    acceptable.  A size that only a run will tell is acceptable to whoever asks nothing of it."""
    spec = real_valued(spec)
    algorithm = form(algorithm, role, spec)
    return _stated(algorithm, role, spec) if spec.is_known else _asked_too_much(algorithm, role, spec)


def _stated(algorithm: Algorithm, role: Role, spec: ConvSpec) -> str | None:
    return algorithm.rejects(spec if own(algorithm, role, spec) else rewritten(spec, role))


@functools.lru_cache(maxsize=1024)
def _asked_too_much(algorithm: Algorithm, role: Role, spec: ConvSpec) -> str | None:
    """Why it refuses, or what tracing it finds: for as many blocks as an image has, Python needs a number."""
    a, b = (jax.ShapeDtypeStruct(*spec.result(ROLE_OF[name])) for name in OPERANDS[role])
    try:
        if reason := _stated(algorithm, role, spec):
            return reason
        how = own(algorithm, role, spec) or by_rewriting(algorithm.forward, role)
        jax.eval_shape(lambda a, b: how(*_widened(a, b, spec), spec).reshape(spec.result(role)[0]), a, b)
    except Exception as error:  # comparisons raise one, conversions others, and looking for a method a third
        return f"it needs a size that only a run will tell ({in_one_line(error)})"
    return None


MAX_AMPLIFICATION = 10.0


def allowed(algorithm: Algorithm, spec: ConvSpec, fastest: bool) -> bool:
    """Whether the choice may take an algorithm: always an exact one.  One that mixes values only where the
    caller asked for the fastest, below precision HIGHEST and where its error stays under ten times the
    direct sum's."""
    if algorithm.exact:
        return True
    highest = spec.precision is not None and jax.lax.Precision.HIGHEST in spec.precision
    return fastest and not highest and algorithm.amplification(spec) < MAX_AMPLIFICATION
