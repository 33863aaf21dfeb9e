"""`explain`: the convolutions of a program, where they are and what becomes of each."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jconv.algorithms import XLA
from jconv.choice.candidates import POLICIES
from jconv.choice.cost import duration
from jconv.choice.pick import choose, resolve
from jconv.programs.choose import Asked, stated
from jconv.programs.found import Convolution, Place, find, program
from jconv.programs.table import Rows
from jconv.spec import ConvSpec


@dataclasses.dataclass(frozen=True)
class Found:
    """A convolution of a program.

    Args:
      where: file and line, the last one outside installed libraries.
      scope: JAX's stack of names there, such as the path of a layer.
      role: forward, grad_input or grad_kernel; for what jconv leaves to lax, "-".
      spec: the problem behind the role; None for what jconv leaves to lax.
      equation: the shapes of what jconv leaves to lax, "" otherwise.
      count: how often it runs.
      algorithm: what will compute it.
      reason: why that one, or why jconv does not.
      seconds, lax_seconds: estimates for one run; None for what jconv leaves to lax or has no estimate of.
      taken: whether it runs on jconv.
    """

    where: str
    scope: str
    role: str
    spec: ConvSpec | None
    equation: str
    count: int
    algorithm: str
    reason: str
    seconds: float | None
    lax_seconds: float | None
    taken: bool

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of `Table.headings`."""
        times = ("-" if time is None else duration(time) for time in (self.lax_seconds, self.seconds))
        problem = str(self.spec or self.equation)
        return (f"{self.count}×", self.where, self.role, problem, self.algorithm, *times, self.reason)


@dataclasses.dataclass(frozen=True, repr=False)
class Table(Rows):
    """The convolutions of a program; prints as a table, in a notebook as an HTML one.

    Args:
      rows: one `Found` per place, problem and role.
      platform: what the algorithms were chosen and the times estimated for.
    """

    headings = ("count", "where", "role", "convolution", "algorithm", "lax", "jconv", "why")
    numbers = ("count", "lax", "jconv")
    rows: tuple[Found, ...]
    platform: str

    def as_dicts(self) -> list[dict[str, Any]]:
        """One dictionary a row, in plain types: for pandas, JSON or a test."""
        return [vars(row) | {"spec": str(row.spec or row.equation)} for row in self.rows]

    @property
    def summary(self) -> str:
        """The sums."""
        count = sum(row.count for row in self.rows)
        lax = sum(row.count * (row.lax_seconds or 0.0) for row in self.rows)
        ours = sum(row.count * (row.seconds or 0.0) for row in self.rows)
        gain = f", {lax / ours:.1f} times less" if ours else ""
        estimated = f"estimated {duration(lax)} by lax, {duration(ours)} by jconv{gain}"
        return f"{count} convolutions on {self.platform}: {estimated}"


def explain(fn_or_specs: Asked, /, *args: Any, **kwargs: Any) -> Table:
    """A table of the convolutions in `fn(*args, **kwargs)` and of what `accelerate` makes of each.

    Nothing is computed: `fn` is traced, and times are estimates.  A convolution in a scan counts once per
    step, in a while loop once, in a branch as if it were taken.  What jconv leaves to lax says why.

    Args:
      fn_or_specs: any traceable function, accelerated or not; to see the backward pass, hand in the
        gradient.  Or, as `tune` takes them, an input, a `ConvSpec` or several, of which all three roles are
        listed, or `(spec, role)` pairs.
      *args, **kwargs: the function's arguments, for which `jax.ShapeDtypeStruct` does for an array; or the
        kernel that goes with an input, and the options of `choose` that tell the convolution.

    Returns:
      A `Table`: print it, iterate over its rows, or take `.as_dicts()`.

    Raises:
      TypeError, ValueError: an argument is wrong.  Otherwise whatever tracing the function raises.

    >>> import jax, jax.numpy as jnp, jconv
    >>> def loss(w, x):
    ...     return jax.lax.conv_general_dilated(x, w, (2, 2), "VALID").sum()
    >>> w, x = jnp.ones((8, 4, 3, 3)), jnp.ones((2, 4, 17, 17))
    >>> sorted(row.role for row in jconv.explain(jax.grad(loss, (0, 1)), w, x))
    ['forward', 'grad_input', 'grad_kernel']
    >>> len(jconv.explain(x, w, stride=2))
    3
    """
    platform = jax.default_backend()
    if callable(fn_or_specs):
        places = find(program(fn_or_specs, args, kwargs))
    else:
        asked = stated("explain", fn_or_specs, args, kwargs)
        places = (Place(Convolution(role, spec, "auto"), "", 1, "-", "", "") for spec, role in asked)
    return Table(tuple(_found(place, platform) for place in places), platform)


def _found(place: Place, platform: str) -> Found:
    where, scope, count = place.where, place.scope, place.count
    if place.problem is None:
        return Found(where, scope, "-", None, place.shapes, count, "lax", place.reason, None, None, False)
    role, spec, algorithm = place.problem
    policy = algorithm if isinstance(algorithm, str) and algorithm in POLICIES else None
    choice = choose(spec, role, platform, policy or "auto")
    name = resolve(algorithm, role, spec, platform)[0].name
    reason = choice.reason if policy else "asked for by name"
    ours, lax = (choice.measured.get(one, choice.seconds.get(one)) for one in (name, XLA.name))
    return Found(where, scope, role, spec, "", count, name, reason, ours, lax, True)
