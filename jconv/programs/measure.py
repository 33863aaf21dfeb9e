"""How long candidates take: each compiled as a call would be, then timed in turns."""

import functools
import random
import statistics
import time
from collections.abc import Callable, Container, Iterable, Mapping

import jax
import numpy as np

from jconv.algorithms import ALGORITHMS
from jconv.algorithms.derived import carried
from jconv.algorithms.record import Algorithm
from jconv.api import arguments
from jconv.calculus.primitives import convolve
from jconv.spec import ConvSpec, Role
from jconv.spec.checks import in_one_line
from jconv.spec.layout import Layout
from jconv.spec.roles import OPERANDS, RESULT, ROLE_OF

Call = Callable[[], jax.Array]

HOPELESS = 3.0  # times the best: out after the first call, unless it has to be compared with
MEASUREMENT = 0.005  # seconds one turn should last
MOST_REPEATS = 100


def compiled(names: Iterable[str], role: Role, spec: ConvSpec) -> tuple[dict[str, Call], dict[str, str]]:
    """A compiled call of each candidate on random operands, and why others do not compile."""
    operands = [_random(name, spec) for name in OPERANDS[role]]
    calls: dict[str, Call] = {}
    failed: dict[str, str] = {}
    for name in names:
        fn = functools.partial(_called, ALGORITHMS[name], role, spec)
        try:
            calls[name] = functools.partial(jax.jit(fn).lower(*operands).compile(), *operands)
        except Exception as error:  # whatever it is, another candidate may do
            failed[name] = in_one_line(error)
    return calls, failed


def _layout(spec: ConvSpec) -> Layout:
    """How the arrays of a call lie."""
    return arguments.layout("NCHW" if spec.channels_first else "NHWC", spec.ndim)


def _called(algorithm: Algorithm, role: Role, spec: ConvSpec, *arrays: jax.Array) -> jax.Array:
    """As a door calls it: an algorithm takes the arrays as they lie or pays for transposing them, which shows
    only where the compiler sees both together."""
    layout = _layout(spec)
    a, b = (array.transpose(layout.into(name)) for name, array in zip(OPERANDS[role], arrays, strict=True))
    carry = carried(spec)[0] if spec.kernel_swapped else lambda w, spec: w
    if role == "grad_kernel":
        result = carry(convolve(role, a, b, spec, algorithm), spec)
    else:
        result = convolve(role, a, carry(b, spec.as_grad_input()), spec, algorithm)
    return result.transpose(layout.back(RESULT[role]))


def _random(name: str, spec: ConvSpec) -> jax.Array:
    """An operand as a call lays it out: noise, for zeros and small integers may be faster than data."""
    canonical, named = spec.result(ROLE_OF[name])
    if name == "w" and spec.kernel_swapped:
        canonical = spec.as_grad_input().w_shape
    shape, dtype = tuple(canonical[axis] for axis in _layout(spec).back(name)), np.dtype(named)
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, shape) if dtype.kind in "iub" else rng.standard_normal(shape, np.float32)
    array = jax.device_put(values.astype(dtype))
    if array.dtype != dtype:
        raise ValueError(f"{dtype} needs 64-bit types: jax.config.update('jax_enable_x64', True)")
    return array


def race(
    calls: Mapping[str, Call], rounds: int, failed: dict[str, str], kept: Container[str] = ()
) -> dict[str, float]:
    """Median seconds per call of the hopeful and the `kept`, the least first; adds to `failed`."""
    once = {}
    for name, call in calls.items():
        try:
            seconds_of(call, 1)
            once[name] = seconds_of(call, 1)
        except jax.errors.JaxRuntimeError as error:  # out of memory, perhaps
            failed[name] = in_one_line(error)
    most = HOPELESS * min(once.values(), default=0.0)
    racers = [name for name in once if once[name] <= most or name in kept]
    repeats = {n: max(1, min(MOST_REPEATS, round(MEASUREMENT / max(once[n], 1e-9)))) for n in racers}
    turns: dict[str, list[float]] = {name: [] for name in racers}
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(racers)
        for name in racers:
            turns[name].append(seconds_of(calls[name], repeats[name]))
    medians = {name: statistics.median(times) for name, times in turns.items()}
    return dict(sorted(medians.items(), key=lambda item: item[1]))


def seconds_of(call: Call, repeats: int) -> float:
    """Seconds per call now, each call until its result is there."""
    start = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(call())
    return (time.perf_counter() - start) / repeats
