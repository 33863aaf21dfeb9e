"""Does every algorithm give the right numbers on this machine?

Each algorithm, in each role, computes a handful of small geometries the way a user's program would:
compiled, the gradients by `jax.vjp` through the primitives.  Every result is compared twice,

    with NumPy in float64, tap by tap from the definition     (`jconv.testing.cases.reference`)
    with `lax.conv_general_dilated` and the gradients JAX derives of it

and may differ by what `jconv.testing.tolerance` allows a sum of that length in that dtype, no more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jconv.algorithms import ALGORITHMS, FORMS
from jconv.algorithms.record import Algorithm, forms_of, refuses
from jconv.calculus.primitives import convolve
from jconv.spec import ROLES, ConvSpec, Role
from jconv.spec.tolerance import tolerance
from jconv.testing import cases
from jconv.testing.cases import Case

FEW = ("same", "winograd_size", "everything", "multiplier", "pointwise", "1d_causal", "3d_everything",
       "transposed_groups")  # fmt: skip
HALVES = ("same", "multiplier")

Forward = Callable[[jax.Array, jax.Array], jax.Array]
Results = dict[Role, np.ndarray]


def few_cases() -> tuple[Case, ...]:
    """What the command line checks: one geometry of each kind, two of them in bfloat16 as well, and for an
    algorithm that refuses all of those the first in the table that it takes."""
    chosen = [*map(cases.named, FEW), *(_in_halves(cases.named(name)) for name in HALVES)]
    for algorithm in FORMS:
        if not any(_takes(algorithm, case) for case in chosen):
            chosen += [case for case in cases.CASES if _takes(algorithm, case)][:1]
    return tuple(chosen)


def _takes(algorithm: Algorithm, case: Case) -> bool:
    return refuses(algorithm, "forward", case.spec) is None


def _in_halves(case: Case) -> Case:
    return Case(f"{case.name}_bfloat16", cases.with_dtype(case.spec, "bfloat16"), case.tags)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One result of one algorithm against one oracle.

    Args:
      algorithm, case, role, oracle: what was compared with what.
      error: max|result − oracle| / max|oracle|; infinite where the result is not finite.
      bound: the most that `jconv.testing.tolerance` allows.
      refused: why the algorithm does not compute this case, or None; then nothing was compared.

    >>> Verdict("im2col", "same", "forward", "lax", error=1e-7, bound=1e-6).agrees
    True
    """

    algorithm: str
    case: str
    role: Role
    oracle: str
    error: float = 0.0
    bound: float = 0.0
    refused: str | None = None

    @property
    def agrees(self) -> bool:
        """False only where something was computed and lies too far off."""
        return self.refused is not None or self.error <= self.bound

    def __str__(self) -> str:
        what = f"{self.algorithm} {self.role} of {self.case}"
        if self.refused is not None:
            return f"{what}: refused, {self.refused}"
        return f"{what}: {self.error:.1e} from {self.oracle}, {self.bound:.1e} allowed"


def check(
    problems: Iterable[Case] | None = None, algorithms: Iterable[Algorithm] | None = None
) -> Iterator[Verdict]:
    """Compare every algorithm with NumPy and lax, in all roles, case by case.

    Args:
      problems: the geometries; None means `few_cases()`.
      algorithms: the records to check, in each of their forms; None means all of
        `jconv.algorithms.ALGORITHMS`.

    Yields:
      A `Verdict` per case, algorithm, role and oracle, as soon as it is known; or one that says
      that the algorithm refuses the case.

    >>> from jconv.testing.cases import named
    >>> verdicts = list(check([named("same")]))
    >>> len(verdicts) >= 3 * 3 * 2, all(verdict.agrees for verdict in verdicts)
    (True, True)
    """
    asked = ALGORITHMS.values() if algorithms is None else algorithms
    forms = [form for algorithm in asked for form in forms_of(algorithm)]
    for case in few_cases() if problems is None else problems:
        arrays = cases.normal(case.spec)
        oracles = {"NumPy": numpy_results(case.spec, arrays), "lax": lax_results(case.spec, arrays)}
        for algorithm in forms:
            yield from _check_one(algorithm, case, arrays, oracles)


def _check_one(
    algorithm: Algorithm, case: Case, arrays: dict[str, np.ndarray], oracles: dict[str, Results]
) -> Iterator[Verdict]:
    reason = refuses(algorithm, "forward", case.spec)
    if reason is not None:
        yield Verdict(algorithm.name, case.name, "forward", "itself", refused=reason)
        return
    results = jconv_results(algorithm, case.spec, arrays)
    for role in ROLES:
        reduction, stated = cases.reduction(role, case.spec), algorithm.amplification(case.spec)
        bound = tolerance(case.spec.result(role)[1], reduction, stated)
        for oracle, expected in oracles.items():
            off = error(results[role], expected[role])
            yield Verdict(algorithm.name, case.name, role, oracle, off, bound)


def error(result: ArrayLike, expected: ArrayLike) -> float:
    """max|result − expected| / max|expected|, infinite for a wrong shape, a NaN or an Inf.

    >>> error(np.array([1.0, 2.0]), np.array([1.0, 4.0])), error(np.ones(2), np.ones(3))
    (0.5, inf)
    """
    result, expected = np.asarray(result, np.float64), np.asarray(expected, np.float64)
    if result.shape != expected.shape or not np.isfinite(result).all():
        return float("inf")
    largest = np.abs(expected).max(initial=0.0)
    return float(np.abs(result - expected).max(initial=0.0) / (largest or 1.0))


# -- the three sides -------------------------------------------------------------------------------


def numpy_results(spec: ConvSpec, arrays: dict[str, np.ndarray]) -> Results:
    """All roles in float64 by the definition."""
    return {role: cases.reference(role, *cases.operands(role, arrays), spec) for role in ROLES}


def lax_results(spec: ConvSpec, arrays: dict[str, np.ndarray]) -> Results:
    """All roles by lax and by JAX's own derivatives of it."""
    space = "DHW"[-spec.ndim :]
    channels_last = f"N{space}C", f"{space}IO", f"N{space}C"

    def forward(x: jax.Array, w: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x, w, spec.strides, spec.padding, spec.lhs_dilation, spec.rhs_dilation, channels_last, spec.groups
        )

    return _results(forward, arrays)


def jconv_results(algorithm: Algorithm, spec: ConvSpec, arrays: dict[str, np.ndarray]) -> Results:
    """All roles by one algorithm through the primitives."""
    return _results(lambda x, w: convolve("forward", x, w, spec, algorithm), arrays)


def _results(forward: Forward, arrays: dict[str, np.ndarray]) -> Results:
    @jax.jit
    def run(x: jax.Array, w: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
        y, backward = jax.vjp(forward, x, w)
        return y, *backward(g)

    results = run(arrays["x"], arrays["w"], arrays["y"])
    return {role: np.asarray(result) for role, result in zip(ROLES, results, strict=True)}
