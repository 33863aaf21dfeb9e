"""Does an algorithm compute convolutions, on this machine?  One of jconv's, or one of your own.

Each algorithm, in each role, computes small geometries the way a user's program would: compiled, the
gradients by `jax.vjp` through the primitives.  `check` compares every result twice,

    with NumPy in float64, tap by tap from the definition     (`jconv.testing.cases.reference`)
    with `lax.conv_general_dilated` and the gradients JAX derives of it

within what `jconv.testing.tolerance` allows a sum of that length in that dtype.  `check_algorithm` also asks
for whole numbers to the bit where the record says `exact`, and for `vmap` over x, over w and over both.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from jax import lax

from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import Algorithm, forms_of, refuses
from jconv.calculus.primitives import convolve
from jconv.spec import ROLES, ConvSpec, Role
from jconv.spec.checks import shown
from jconv.spec.layout import channels_last
from jconv.spec.tolerance import tolerance
from jconv.testing import cases
from jconv.testing.cases import Case, error

MAPPED = {"x": ((0, None), "n"), "w": ((None, 0), "o"), "x and w": ((0, 0), "g")}  # the axes, and the fold
COPIES = 2

Arrays = dict[str, np.ndarray]
Results = dict[Role, np.ndarray]


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


def check(problems: Iterable[Case], algorithms: Iterable[Algorithm] | None = None) -> Iterator[Verdict]:
    """Compare every algorithm with NumPy and lax, in all roles, case by case.

    Args:
      problems: the geometries.
      algorithms: the records to check, in each of their forms; None means all of jconv's.

    Yields:
      A `Verdict` per case, algorithm, role and oracle, or one that says that the algorithm refuses the case.

    >>> from jconv.testing.cases import named
    >>> verdicts = list(check([named("same")]))
    >>> len(verdicts) >= 3 * 3 * 2, all(verdict.agrees for verdict in verdicts)
    (True, True)
    """
    asked = ALGORITHMS.values() if algorithms is None else algorithms
    forms = [form for algorithm in asked for form in forms_of(algorithm)]
    for case in problems:
        arrays = cases.normal(case.spec)
        oracles = {"NumPy": _by_numpy(case.spec, arrays), "lax": _by_lax(case.spec, arrays)}
        for algorithm in forms:
            if reason := refuses(algorithm, "forward", case.spec):
                yield Verdict(algorithm.name, case.name, "forward", "itself", refused=reason)
            else:
                yield from _compared(algorithm, case, arrays, oracles)


def _compared(
    algorithm: Algorithm, case: Case, arrays: Arrays, oracles: dict[str, Results]
) -> Iterator[Verdict]:
    results = _results(lambda x, w: convolve("forward", x, w, case.spec, algorithm), arrays)
    for role in results:
        length, stated = cases.reduction(role, case.spec), algorithm.amplification(case.spec)
        bound = tolerance(case.spec.result(role)[1], length, stated)
        for oracle, wanted in oracles.items():
            most = 0.0 if oracle == "whole numbers" else bound
            yield Verdict(algorithm.name, case.name, role, oracle, error(results[role], wanted[role]), most)


def _by_numpy(spec: ConvSpec, arrays: Arrays) -> Results:
    return {role: cases.reference(role, *cases.operands(role, arrays), spec) for role in ROLES}


def _by_lax(spec: ConvSpec, arrays: Arrays) -> Results:
    numbers, dilation = channels_last(spec.ndim), spec.rhs_dilation

    def conv(x: jax.Array, w: jax.Array) -> jax.Array:
        padding, gaps = spec.padding, spec.lhs_dilation
        if min(map(min, padding), default=0) < 0:  # XLA:CPU may read beside x where it crops
            config = [(lo, hi, gap - 1) for (lo, hi), gap in zip(padding, gaps, strict=True)]
            x = lax.optimization_barrier(lax.pad(x, x.dtype.type(0), [(0, 0, 0), *config, (0, 0, 0)]))
            padding, gaps = ((0, 0),) * spec.ndim, (1,) * spec.ndim
        return lax.conv_general_dilated(x, w, spec.strides, padding, gaps, dilation, numbers, spec.groups)

    return _results(conv, arrays)


def _results(forward: Callable[[jax.Array, jax.Array], jax.Array], arrays: Arrays) -> Results:
    """All roles by a forward and JAX's derivatives of it; of whole numbers, which have none, the forward."""
    if arrays["x"].dtype.kind in "iub":
        return {"forward": np.asarray(jax.jit(forward)(arrays["x"], arrays["w"]))}

    @jax.jit
    def run(x: jax.Array, w: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
        y, backward = jax.vjp(forward, x, w)
        return y, *backward(g)

    results = run(arrays["x"], arrays["w"], arrays["y"])
    return {role: np.asarray(result) for role, result in zip(ROLES, results, strict=True)}


def check_algorithm(algorithm: Algorithm, problems: Iterable[Case] | None = None) -> list[Verdict]:
    """Check an algorithm in all roles and modes.

    Args:
      algorithm: the record, which need not be one of jconv's.
      problems: geometries, of your own or of `jconv.testing.cases.CASES`; None means all of the latter.  What
        the algorithm rejects is not checked.

    Returns:
      What was compared: a `Verdict` per geometry, role and oracle.

    Raises:
      TypeError: an argument is something else.
      AssertionError: a result is wrong, and which; or every geometry was rejected.

    >>> from jconv.algorithms import SHIFT
    >>> verdicts = check_algorithm(SHIFT, [cases.named("same")])
    >>> len(verdicts), all(verdict.agrees for verdict in verdicts)
    (12, True)
    """
    if not isinstance(algorithm, Algorithm):
        raise TypeError(f"`algorithm` must be a jconv.Algorithm, got {shown(algorithm)}")
    given = [problems] if isinstance(problems, Case) else problems
    chosen = list(cases.CASES if given is None else given)
    if not chosen or not all(isinstance(case, Case) for case in chosen):
        raise TypeError(f"`problems` must be jconv.testing.cases.Case objects, got {shown(problems)}")
    accepted = [case for case in chosen if refuses(algorithm, "forward", case.spec) is None]
    if not accepted:
        reasons = {refuses(algorithm, "forward", case.spec) for case in chosen}
        raise AssertionError(f"{algorithm.name} rejects every one of {len(chosen)} geometries: {reasons}")
    verdicts = [*check(accepted, [algorithm]), *_vmapped(algorithm, accepted[0])]
    for case in accepted if algorithm.exact else []:
        arrays = cases.whole(case.spec)
        verdicts += _compared(algorithm, case, arrays, {"whole numbers": _by_numpy(case.spec, arrays)})
    wrong = [verdict for verdict in verdicts if not verdict.agrees]
    if wrong:
        raise AssertionError("\n".join([f"{len(wrong)} of {len(verdicts)} disagree", *map(str, wrong)]))
    return verdicts


def _vmapped(algorithm: Algorithm, case: Case) -> Iterator[Verdict]:
    """The forward, `COPIES` of x, of w or of both at once; the folded problem may be rejected."""
    copies = [cases.normal(case.spec, seed) for seed in range(COPIES)]
    both = [np.stack([arrays[name] for arrays in copies]) for name in "xw"]
    for mapped, (axes, fold) in MAPPED.items():
        folded, oracle = case.spec.folded(COPIES, fold), f"vmap over {mapped}"
        if reason := refuses(algorithm, "forward", folded):
            yield Verdict(algorithm.name, case.name, "forward", oracle, refused=reason)
            continue
        operands = [a if axis == 0 else a[0] for a, axis in zip(both, axes, strict=True)]
        one = functools.partial(convolve, "forward", spec=case.spec, algorithm=algorithm)
        got = jax.jit(jax.vmap(one, axes))(*operands)
        pairs = [[a[i] if axis == 0 else a[0] for a, axis in zip(both, axes, strict=True)]
                 for i in range(COPIES)]  # fmt: skip
        off = error(got, np.stack([cases.reference("forward", x, w, case.spec) for x, w in pairs]))
        length, stated = cases.reduction("forward", folded), algorithm.amplification(folded)
        bound = tolerance(case.spec.y_dtype, length, stated)
        yield Verdict(algorithm.name, case.name, "forward", oracle, off, bound)
