"""`python -m jconv tune --fit`: where the numbers of `choice/rates.py` come from, and how to take them anew.

    measure    every algorithm that takes a problem, as a program calls it; the problems are the layer table
               and as many random ones, in all roles and both layouts, in random order
    keep       a line of JSON a problem, written when it is known: whoever interrupts keeps what was measured,
               and the same command goes on from there
    fit        the logarithms of the record's numbers, so that none becomes negative, by damped least squares
               on log(estimate / measured); a slow algorithm, which no choice takes, counts for less
    compare    the regret of a record: the time of what "auto" picks over that of the fastest exact algorithm

Source: Levenberg (1944), Marquardt (1963) for the damping; Huber (1964) for the weights of outliers.
"""

import argparse
import dataclasses
import json
import math
import os
import random
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import Step, forms_of
from jconv.algorithms.work import steps, workspace
from jconv.bench import interrupts, progress
from jconv.bench.layers import LAYERS
from jconv.choice import cost, pick, rates, winners
from jconv.choice.candidates import Policy, fitting
from jconv.programs.measure import compiled, race
from jconv.spec import ROLES, ConvSpec, Role
from jconv.spec.roles import canonical

WITHIN, LONGEST = 30.0, 1.0  # estimated at more times the best or seconds, an algorithm is not measured
MOST_MACS = 4e9  # of a random problem
GIVEN = ("lanes", "packed")  # numbers of the hardware and of a rule, not rates
ITERATIONS, NUDGE = 8, 0.02
PRIOR = 0.3  # how much a number's present value counts, in times measured
OUTLIER, MOST = 0.5, 2.3  # logarithms: an error from which it counts for less; how far a number may move
CLOSE = 1.15  # a pick that takes no more times as long as the best is as good

Row = dict[str, Any]


class Timed(NamedTuple):
    """One algorithm on one problem: what it does, as the cost model sees it, and how long it took."""

    name: str
    steps: tuple[Step, ...]
    workspace: int
    seconds: float
    flops: float = math.inf

    def estimate(self, record: rates.Platform) -> float:
        """Seconds by a record."""
        return cost.total(self.steps, self.workspace, record)


def main(args: argparse.Namespace) -> int:
    """Measure what the file lacks, fit, and print both records; 130 if interrupted."""
    platform = jax.default_backend()
    record = rates.of(platform)
    if record is None:
        raise ValueError(f"no rates were measured on {platform}, so there is no record to fit")
    rows = read(args.measured)
    try:
        with interrupts.insisting(), open(args.measured, "a", encoding="utf-8") as file:
            for row in measure(list(rows), args.rounds, args.budget):
                print(json.dumps(row), file=file, flush=True)
                rows.append(row)
    except KeyboardInterrupt:
        kept = f"{len(rows)} problems are in {args.measured}, and the same command goes on"
        print(f"\ninterrupted; {kept}", file=sys.stderr)
        return interrupts.INTERRUPTED
    if not rows:
        raise ValueError(f"nothing was measured and {args.measured} is empty; raise --budget")
    timed = list(map(timings, rows))
    refit = fit([one for times in timed for one in times], record)
    print("\n".join(report({"present": record, "refit": refit}, timed)))
    return 0


def problems(seed: int = 0) -> list[tuple[ConvSpec, Role]]:
    """The layer table and as many random problems, shuffled: a run that is cut short has seen every kind."""
    rng = np.random.default_rng(seed)
    specs = [layer.spec for layer in LAYERS] + [random_spec(rng) for _ in LAYERS]
    layouts = [spec.replace(channels_first=first) for spec in specs for first in (False, True)]
    found = list(dict.fromkeys(canonical(spec, role) for spec in layouts for role in ROLES))
    random.Random(seed).shuffle(found)
    return found


def random_spec(rng: np.random.Generator) -> ConvSpec:
    """A convolution of the sizes that networks have.

    >>> random_spec(np.random.default_rng(0)).x_dtype
    'float32'
    """
    n, groups = int(rng.choice([1, 2, 2, 2, 3])), int(rng.choice([1, 1, 1, 2, 8]))
    c, o = (int(2 ** rng.uniform(0, 9)) for _ in "co")
    if rng.random() < 0.25:  # depthwise
        groups, c, o = c, 1, 1
    kernel, stride, dilation = (
        int(rng.choice(of)) for of in ([1, 2, 3, 3, 3, 5, 7], [1, 1, 2], [1, 1, 1, 2])
    )
    pad = int(rng.integers(2)) * dilation * (kernel // 2)
    spec = ConvSpec.of(
        batch=int(rng.choice([1, 2, 8])), in_channels=groups * c, out_channels=groups * o, groups=groups,
        spatial=tuple(map(int, rng.integers(2 * kernel, (4000, 120, 20)[n - 1], n))), kernel=(kernel,) * n,
        strides=(stride,) * n, rhs_dilation=(dilation,) * n, padding=((pad, pad),) * n,
    )  # fmt: skip
    return random_spec(rng) if spec.is_empty or spec.macs > MOST_MACS else spec


def measure(known: list[Row], rounds: int, budget: float) -> Iterator[Row]:
    """A row for each problem that is not known, while the budget of seconds lasts."""
    platform, end = jax.default_backend(), time.monotonic() + budget
    calls = "portable" if Policy.of("auto", platform).portable else "with oneDNN"
    here = f"{winners.device_kind(platform)}; jax {jax.__version__}; {calls}"
    if budget > 0 and (others := {row["machine"] for row in known} - {here}):
        advice = "name another file, or give --budget 0 to fit what is there"
        raise ValueError(f"`--measured` holds times of {others.pop()!r}, not of {here!r}; {advice}")
    seen = {json.dumps([row["role"], row["spec"]]) for row in known}
    asked = [problem for problem in problems() if json.dumps([problem[1], vars(problem[0])]) not in seen]
    with progress.bar("measuring", len(asked)) as advance:
        for spec, role in asked:
            if time.monotonic() >= end:
                return
            yield {"machine": here, "role": role, "spec": vars(spec), "times": times_of(spec, role, rounds)}
            advance(f"{role} of {spec}")


def times_of(spec: ConvSpec, role: Role, rounds: int) -> list[tuple[str, str, float]]:
    """The name, the form and the seconds of every algorithm worth measuring."""
    estimates = pick.choose(spec, role, algorithm="fastest").seconds
    most = min(LONGEST, WITHIN * min(estimates.values()))
    calls, failed = compiled([name for name, seconds in estimates.items() if seconds <= most], role, spec)
    seconds = race(calls, rounds, failed, kept=calls)
    forms = {name: pick.resolve(ALGORITHMS[name], role, spec, jax.default_backend())[0] for name in seconds}
    return [(name, forms[name].variant, taken) for name, taken in seconds.items()]


def read(path: str) -> list[Row]:
    """The rows of a file, none if it is not there; a ValueError names the line that is none."""
    rows: list[Row] = []
    with open(path if os.path.exists(path) else os.devnull, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                rows.append(json.loads(line))
                _ = rows[-1]["machine"], timings(rows[-1])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                why = f"line {number} of {path} is no measurement ({type(error).__name__}: {error})"
                raise ValueError(f"`--measured`: {why}; delete it or name another file") from None
    return rows


def timings(row: Row) -> list[Timed]:
    """What the cost model has to explain: the work of each form that was measured and is still there."""

    def tuples(value: Any) -> Any:  # which JSON has made lists
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    spec, role, found = ConvSpec(**{k: tuples(v) for k, v in row["spec"].items()}), row["role"], []
    for name, variant, seconds in row["times"]:
        forms = forms_of(ALGORITHMS[name]) if name in ALGORITHMS else ()
        for form in [form for form in forms if form.variant == variant][:1]:
            fits = fitting(form, role, spec)
            work = steps(fits, role, spec), workspace(fits, role, spec)
            found.append(Timed(name, *work, seconds, spec.flops))
    return found


def numbers(record: rates.Platform) -> dict[str, float]:
    """The numbers of a record that a fit may change, by name; 0 and infinity mean that there is no such."""
    found = {_name(path): value for path, value in jax.tree.leaves_with_path(dataclasses.asdict(record))}
    return {name: value for name, value in found.items()
            if value and math.isfinite(value) and not name.endswith(GIVEN)}  # fmt: skip


def with_numbers(record: rates.Platform, new: Mapping[str, float]) -> rates.Platform:
    """The record with other numbers."""
    plain = jax.tree_util.tree_map_with_path(
        lambda path, value: new.get(_name(path), value), dataclasses.asdict(record)
    )
    return rates.Platform(**plain | dict(
        native={name: rates.Route(**route) for name, route in plain["native"].items()},
        onednn=plain["onednn"] and rates.Direct(**plain["onednn"]),
    ))  # fmt: skip


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def fit(timed: list[Timed], record: rates.Platform) -> rates.Platform:
    """The record whose estimates come closest.  A number that nothing measured speaks of stays."""

    def scaled(logs: np.ndarray) -> rates.Platform:
        values = np.array([*present.values()]) * np.exp(logs)
        return with_numbers(record, dict(zip(present, values.tolist(), strict=True)))

    present = numbers(record)
    now = np.zeros(len(present))  # the logarithms of the factors
    importance = np.array([one.seconds for one in timed]) ** -0.25
    importance, damping, found = importance / importance.max(), PRIOR, errors(timed, record)
    with progress.bar("fitting", ITERATIONS) as advance:
        for _ in range(ITERATIONS):
            weight = importance * np.minimum(1, OUTLIER / np.maximum(np.abs(found), OUTLIER))
            nudged = (errors(timed, scaled(now + NUDGE * unit)) for unit in np.eye(len(now)))
            J = np.stack([(off - found) / NUDGE for off in nudged], 1)
            normal = J.T @ (weight[:, None] * J) + (PRIOR + damping) * np.eye(len(now))
            step = np.linalg.solve(normal, J.T @ (weight * found) + PRIOR * now)
            tried = np.clip(now - step, -MOST, MOST)
            off = errors(timed, scaled(tried))
            better = weight @ off**2 < weight @ found**2
            now, found, damping = (tried, off, damping / 3) if better else (now, found, damping * 10)
            advance(f"off by a factor of {math.exp(np.abs(found).mean()):.2f}")
    return scaled(now)


def errors(timed: list[Timed], record: rates.Platform) -> np.ndarray:
    """log(estimate / measured) of each."""
    return np.log([one.estimate(record) / one.seconds for one in timed])


def regrets(record: rates.Platform, timed: list[list[Timed]]) -> np.ndarray:
    """Of each problem the time of what "auto" picks by this record, over that of the fastest exact one."""
    found = []
    for times in timed:
        exact = {one.name: one for one in times if ALGORITHMS[one.name].exact}
        if exact:
            estimates = {name: one.estimate(record) for name, one in exact.items()}
            ranked = dict(sorted(estimates.items(), key=lambda item: item[1]))
            taken = exact[pick.preferred(ranked, times[0].flops)]
            found.append(taken.seconds / min(one.seconds for one in exact.values()))
    return np.array(found)


def report(records: Mapping[str, rates.Platform], timed: list[list[Timed]]) -> Iterator[str]:
    """The records side by side: their numbers, how far their estimates are off, what their picks cost."""
    flat = [one for times in timed for one in times]
    regret = [regrets(record, timed) for record in records.values()]
    of = [numbers(record) for record in records.values()]
    yield f"{len(timed)} problems, {len(flat)} times\n"
    yield f"{'':34}" + "".join(f"{name:>12}" for name in records)
    for what, values in {
        **{name: [values[name] for values in of] for name in of[0]},
        "estimates off by a factor of": [np.exp(abs(errors(flat, one)).mean()) for one in records.values()],
        "picks take, times the best": [np.exp(np.log(one).mean()) for one in regret],
        "  at worst": [one.max() for one in regret],
        f"  above {CLOSE}, of {len(regret[0])}": [(one > CLOSE).sum() for one in regret],
    }.items():
        yield f"{what:34}" + "".join(f"{value:12.4g}" for value in values)
