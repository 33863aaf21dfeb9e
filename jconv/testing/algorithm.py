"""Does an algorithm of your own compute convolutions?  The checks that jconv's own ones pass.

    values       forward and both gradients on small geometries of every kind, each against NumPy in
                 float64 and against lax, to the bound that dtype, sum and stated amplification allow
    exactness    where the record says `exact`: whole numbers come out to the bit
    vmap         mapped over x, over w and over both, against the loop

What the algorithm rejects is not checked; but it has to accept something.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from jconv.algorithms.record import Algorithm, refuses
from jconv.calculus.primitives import convolve
from jconv.spec import ROLES, ConvSpec
from jconv.spec.tolerance import tolerance
from jconv.testing import cases
from jconv.testing.cases import Case
from jconv.testing.check import Verdict, check

AXES = {"x": (0, None), "w": (None, 0), "x and w": (0, 0)}
COPIES = 2


def check_algorithm(algorithm: Algorithm, problems: Iterable[Case] | None = None) -> list[Verdict]:
    """Check an algorithm in all roles and modes.

    Args:
      algorithm: the record, which need not be one of jconv's.
      problems: geometries, some of `jconv.testing.cases.CASES` or `Case`s of your own; None means all of
        `jconv.testing.cases.CASES`.

    Returns:
      What was compared: a `Verdict` per geometry, role and oracle.

    Raises:
      AssertionError: a result is wrong, and which; or every geometry was rejected.

    >>> from jconv.algorithms import SHIFT
    >>> verdicts = check_algorithm(SHIFT, [cases.named("same")])
    >>> len(verdicts), all(verdict.agrees for verdict in verdicts)
    (12, True)
    """
    chosen = list(cases.CASES if problems is None else problems)
    accepted = [case for case in chosen if refuses(algorithm, "forward", case.spec) is None]
    if not accepted:
        reasons = {refuses(algorithm, "forward", case.spec) for case in chosen}
        raise AssertionError(f"{algorithm.name} rejects every one of {len(chosen)} geometries: {reasons}")
    verdicts = list(check(accepted, [algorithm]))
    for case in accepted[:1]:
        verdicts += _vmapped(algorithm, case)
    for case in accepted if algorithm.exact else []:
        verdicts += _on_whole_numbers(algorithm, case)
    wrong = [verdict for verdict in verdicts if not verdict.agrees]
    if wrong:
        raise AssertionError("\n".join([f"{len(wrong)} of {len(verdicts)} disagree", *map(str, wrong)]))
    return verdicts


def _on_whole_numbers(algorithm: Algorithm, case: Case) -> Iterator[Verdict]:
    arrays = cases.whole(case.spec)
    for role in ROLES:
        operands = cases.operands(role, arrays)
        got = jax.jit(functools.partial(convolve, role, spec=case.spec, algorithm=algorithm))(*operands)
        error = cases.error(got, cases.reference(role, *operands, case.spec))
        yield Verdict(algorithm.name, case.name, role, "whole numbers", _finite(error), 0.0)


def _vmapped(algorithm: Algorithm, case: Case) -> Iterator[Verdict]:
    """The forward, `COPIES` of x, of w or of both at once; the folded problem may be rejected."""
    copies = [cases.normal(case.spec, seed) for seed in range(COPIES)]
    x, w = (np.stack([arrays[name] for arrays in copies]) for name in "xw")
    for what, axes in AXES.items():
        folded = case.spec.folded(COPIES, {"x": "n", "w": "o", "x and w": "g"}[what])
        if (reason := refuses(algorithm, "forward", folded)) is not None:
            yield Verdict(algorithm.name, case.name, "forward", f"vmap over {what}", refused=reason)
            continue
        operands = [a if axis == 0 else a[0] for a, axis in zip((x, w), axes, strict=True)]
        one = functools.partial(convolve, "forward", spec=case.spec, algorithm=algorithm)
        got = jax.jit(jax.vmap(one, axes))(*operands)
        want = _looped(x, w, axes, case.spec)
        bound = tolerance("float32", cases.reduction("forward", folded), algorithm.amplification(folded))
        yield Verdict(
            algorithm.name, case.name, "forward", f"vmap over {what}", _finite(cases.error(got, want)), bound
        )


def _looped(x: np.ndarray, w: np.ndarray, axes: tuple[int | None, ...], spec: ConvSpec) -> np.ndarray:
    xs, ws = ([a[i if axis == 0 else 0] for i in range(COPIES)] for a, axis in zip((x, w), axes, strict=True))
    return np.stack([cases.reference("forward", *pair, spec) for pair in zip(xs, ws, strict=True)])


def _finite(error: float) -> float:
    return error if np.isfinite(error) else float("inf")
