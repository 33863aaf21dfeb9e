"""Several ways to one result in a small table: does each agree, how long does it take, what does it need.

Temporaries are what the compiler sets aside beside arguments and results, read from the compiled
program; of code that JAX does not compile they are not known.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jconv.bench.job import busy, duration, machine
from jconv.bench.timing import Call, Times, race

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What came out of `compare`; print it, or take its parts.

    Args:
      reference: the way the others are held against, the first.
      times: seconds per call of each way.
      temporaries: bytes of each way; None where they are not known.
      errors: max|a − b| / max|b| of each, b from the reference, over all leaves of the result.
    """

    reference: str
    times: Times
    temporaries: Mapping[str, int | None]
    errors: Mapping[str, float]

    def __str__(self) -> str:
        width = max(map(len, self.errors))
        heading = f"  {'':{width}}  {'time':>8}  {'faster':>6}  {'temporaries':>11}  differs by"
        return "\n".join([heading, *(f"  {name:{width}}  {self._cells(name)}" for name in self.errors)])

    def _cells(self, name: str) -> str:
        held = self.temporaries[name]
        memory = "not known" if held is None else f"{held / MIB:.2f} MiB"
        faster = f"{self.times.ratio(self.reference, name):.1f}×"
        return f"{duration(self.times.median(name)):>8}  {faster:>6}  {memory:>11}  {self.errors[name]:.1e}"


def compare(
    ways: Mapping[str, Callable[..., Any]],
    *args: Any,
    bound: float,
    others: Mapping[str, Call] | None = None,
    rounds: int = 5,
) -> Comparison:
    """Compile each way, hold its result against the first one's, and time all in turn.

    Args:
      ways: traceable functions of `args`, by name; the first is the reference.
      *args: arrays.
      bound: on max|a − b| / max|b|; take it from `jconv.testing.tolerance`.
      others: functions of no arguments that JAX cannot compile, of the same result.
      rounds: how many times each is timed.

    Returns:
      A `Comparison`.

    Raises:
      AssertionError: a result differs by more than `bound`, or is not a number.

    >>> import jax.numpy as jnp
    >>> found = compare({"sum": jnp.sum, "dot": lambda v: v @ jnp.ones(9)}, jnp.arange(9.0), bound=1e-6)
    >>> found.errors["dot"], sorted(found.temporaries)
    (0.0, ['dot', 'sum'])
    """
    compiled = {name: jax.jit(way).lower(*args).compile() for name, way in ways.items()}
    calls = {name: lambda run=run: run(*args) for name, run in compiled.items()} | dict(others or {})
    reference, *_ = calls
    expected = calls[reference]()
    errors = {name: _error(call(), expected) for name, call in calls.items()}
    for name, error in errors.items():
        assert error <= bound, f"{name} differs from {reference} by {error:.1e}, more than {bound:.1e}"
    temporaries = {
        name: getattr(run.memory_analysis(), "temp_size_in_bytes", None) for name, run in compiled.items()
    }
    unknown = dict.fromkeys(others or {})
    return Comparison(reference, race(calls, rounds), temporaries | unknown, errors)


def _error(result: Any, expected: Any) -> float:
    """The largest over the leaves, each relative to the largest magnitude expected in it; NaN stays NaN."""
    pairs = zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True)
    wide = [(np.asarray(a, "float64"), np.asarray(b, "float64")) for a, b in pairs]
    return float(np.max([np.abs(a - b).max() / np.abs(b).max() for a, b in wide]))


def conditions() -> str:
    """A line on the machine, and a warning where it is busy."""
    return "\n".join(filter(None, [machine(), busy()]))
