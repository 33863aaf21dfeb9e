"""Timing things against each other so that the ratio means something.

A machine's clock rate, its other users and its memory drift over seconds.  So the contestants take
turns: in every round each is timed once, in a fresh random order.  A round's *pace* is how slow it was for
all of them; every time is divided by the pace of its round, and the time of a contestant is the median of
those.  A drift that all share is not seen, and ratios are quotients of the times that are printed.

  * Everything is called before it is timed: compiling and first touches of memory do not count.
  * A call counts until its result is there (`jax.block_until_ready`).
  * A fast call is repeated until one measurement is long against the clock's resolution.
  * Before each turn the machine rests: worker threads of one library go on spinning for some
    milliseconds after its last call and would be timed as a slowness of the next.
"""

import dataclasses
import functools
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

MEASUREMENT = 0.02  # seconds one measurement should last
MOST_REPEATS = 200
REST = 0.02  # seconds between two contestants; OpenMP's and oneDNN's threads spin for a few milliseconds
SLOW = 0.5  # a call longer than this takes part in only SLOW_ROUNDS rounds
SLOW_ROUNDS = 3
UNSTEADY = 2.0  # slowest over fastest round; on an idle machine 1.1 to 1.5

Call = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds per call of each contestant, by round; None where it sat a round out."""

    rounds: dict[str, tuple[float | None, ...]]

    def median(self, name: str) -> float:
        """Seconds per call: the median over rounds, each time divided by its round's pace.

        >>> Times({"a": (1.0, None, 3.0)}).median("a")
        2.0
        """
        pairs = zip(self.rounds[name], self.pace, strict=True)
        return statistics.median(seconds / pace for seconds, pace in pairs if seconds is not None)

    def ratio(self, slow: str, fast: str) -> float:
        """How many times faster `fast` is: the quotient of the two times.

        Three times the load in the second round, where b did not sit out, does not make b look slower:

        >>> Times({"a": (2.0, 6.0, 2.0), "b": (1.0, 3.0, None)}).ratio("a", "b")
        2.0
        """
        return self.median(slow) / self.median(fast)

    def unsteady(self) -> str | None:
        """A warning where rounds differ so much that they say more about the machine than about the calls.

        >>> Times({"a": (1.0, 1.1, 1.2)}).unsteady() is None
        True
        >>> Times({"a": (1.0, 1.1, 3.0)}).unsteady()
        'The same call took up to 3.0 times as long in one round as in another: the machine is busy.'
        """
        spread = max(max(present(times)) / min(present(times)) for times in self.rounds.values())
        if spread < UNSTEADY:
            return None
        times = f"up to {spread:.1f} times as long in one round as in another"
        return f"The same call took {times}: the machine is busy."

    @functools.cached_property
    def pace(self) -> tuple[float, ...]:
        """How slow each round was: the median over contestants of their time over their usual time.

        >>> Times({"a": (2.0, 20.0, 200.0), "b": (1.0, 10.0, 100.0)}).pace
        (0.1, 1.0, 10.0)
        """
        usual = {name: statistics.median(present(times)) for name, times in self.rounds.items()}
        relative = [[t and t / usual[name] for t in times] for name, times in self.rounds.items()]
        # a round that all sat out has no pace, and no time to divide by it
        return tuple(
            statistics.median(present(of_round) or [1.0]) for of_round in zip(*relative, strict=True)
        )


def present(times: Iterable[float | None]) -> list[float]:
    """Without those that were not taken."""
    return [seconds for seconds in times if seconds is not None]


def finish(call: Call) -> Any:
    """The result of `call` once it is there."""
    return jax.block_until_ready(call())


def race(
    calls: Mapping[str, Call], rounds: int = 7, seed: int = 0, after_each: Callable[[str], None] | None = None
) -> Times:
    """Time every call once per round, in a random order, for `rounds` rounds.

    Args:
      calls: what is timed, by name; each a function of no arguments.
      rounds: how many times each takes its turn (slow ones at most `SLOW_ROUNDS` times).
      seed: of the order in a round.
      after_each: called with the name after each turn, also one that was sat out: for a progress bar.

    Returns:
      `Times`, from which times and ratios are read.

    Raises:
      ValueError: fewer than one round.

    >>> times = race({"short": lambda: None, "long": lambda: sum(range(10000))}, rounds=3)
    >>> times.ratio("long", "short") > 1
    True
    """
    if rounds < 1:
        raise ValueError(f"`rounds`={rounds} must be at least 1")
    once = {name: _warm(call) for name, call in calls.items()}
    seconds: dict[str, list[float | None]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(seed).shuffle
    for turn in range(rounds):
        shuffle(order)
        for name in order:
            rests = once[name] > SLOW and turn >= SLOW_ROUNDS
            seconds[name].append(None if rests else measure(calls[name], once[name]))
            if after_each:
                after_each(name)
    return Times({name: tuple(values) for name, values in seconds.items()})


def measure(call: Call, expected: float) -> float:
    """Seconds per call now, over as many calls as `expected` seconds each make a measurement long."""
    repeats = max(1, min(MOST_REPEATS, round(MEASUREMENT / max(expected, 1e-9))))
    time.sleep(REST)
    if repeats > 1:
        finish(call)  # wakes this library's threads and brings the operands back into the cache
    start = time.perf_counter()
    for _ in range(repeats):
        finish(call)
    return (time.perf_counter() - start) / repeats


def _warm(call: Call) -> float:
    """Call once to compile, then seconds of one more call."""
    finish(call)
    start = time.perf_counter()
    finish(call)
    return time.perf_counter() - start
