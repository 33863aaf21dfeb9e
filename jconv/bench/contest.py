"""One race: a layer in one role, computed by lax, jconv and whoever else takes part, checked and timed.

All take the same arrays in the user's layout and are compiled for their one device.  What they compute is
compared with lax's result, within `jconv.testing.tolerance`; then they take turns (`timing.race`).

On a GPU a call returns before its work is done.  There a turn is a burst of calls, enqueued one after the
other and waited for once, so what is timed is the device and not the way to it; and the calls of a burst
go round several sets of arrays that together do not fit into the device's cache.
"""

import concurrent.futures
import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jconv
from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import Algorithm, refuses
from jconv.algorithms.work import workspace
from jconv.bench import contest_torch
from jconv.bench.layers import Layer
from jconv.bench.timing import Times, finish, race
from jconv.calculus.primitives import convolve
from jconv.choice.pick import choose
from jconv.spec import ConvSpec, Ints, Role
from jconv.spec import layout as layouts
from jconv.spec.roles import canonical
from jconv.spec.tolerance import tolerance
from jconv.testing import cases

MODES: dict[str, tuple[str, lax.Precision | None]] = {  # dtype of the arrays, precision of the products
    "f32": ("float32", lax.Precision.HIGHEST),
    "tf32": ("float32", None),  # what "float32" is on a GPU unless asked otherwise
    "bf16": ("bfloat16", None),
    "f16": ("float16", None),
}
TF32_LIKE = "float16"  # TensorFloat-32 has the significand of float16
CACHE = 100e6  # bytes that the sets of arrays together exceed: twice the L2 cache of an H200
MOST_SETS = 8
BURST = 0.005  # seconds a burst lasts
MOST_CALLS = 200
MOST_WORKSPACE = 8e9  # an algorithm that needs more temporaries is not timed by name

Pass = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
Arrays = tuple[jax.Array, jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is raced: a layer in a role, a layout and a mode of `MODES`, on a platform."""

    layer: Layer
    role: Role
    layout: str = "NHWC"
    mode: str = "f32"
    platform: str = "cpu"

    @functools.cached_property
    def spec(self) -> ConvSpec:
        """The layer's, in the dtype and precision of the mode; on a CPU float32 is never rounded further."""
        dtype, precision = MODES[self.mode]
        if precision is None or self.platform == "cpu":
            return self.layer.spec.with_dtype(dtype)
        return self.layer.spec.with_dtype(dtype).replace(precision=(precision, precision))

    def __str__(self) -> str:
        return f"{self.layer.name}, {self.role}, {self.layout}, {self.mode}"


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of a race, by contestant.

    Args:
      entry: what was raced.
      chosen: the algorithm that "auto" takes for it.
      seconds: time of a call.
      ratios: their time over jconv's: above 1 jconv is faster.
      errors: the distance from lax's result, relative to its largest value.
      bounds: how large that may be.
      failed: who did not get through, and why.
    """

    entry: Entry
    chosen: str
    seconds: dict[str, float]
    ratios: dict[str, float]
    errors: dict[str, float]
    bounds: dict[str, float]
    failed: dict[str, str]

    @property
    def wrong(self) -> list[str]:
        """Contestants that gave another result than lax, and jconv also where it gave none."""
        off = [name for name, error in self.errors.items() if not error <= self.bounds[name]]
        return off + (["jconv"] if "jconv" in self.failed else [])


def contest(
    entry: Entry, device: Any, seed: int, rounds: int = 7, with_torch: bool = True, named: bool = False
) -> Result:
    """Race one entry.

    Args:
      entry: what.
      device: of JAX, on which lax and jconv compute.
      seed: of the random arrays.
      rounds: how many times each takes its turn.
      with_torch: whether PyTorch takes part, where it is installed; it computes float32 on the CPU.
      named: whether every algorithm of jconv that can takes part by name as well; in the layout NHWC
        only, since algorithms are written in it.
    """
    with jax.default_device(device):
        sets = input_sets(entry, seed)
        passes = jax_passes(entry) | (by_name(entry) if named and entry.layout == "NHWC" else {})
        results, failed = first_results(passes, sets[0], workers=1 if entry.platform == "cpu" else 8)
        bursts = {name: bursting(passes[name], sets, entry.platform) for name in results}
        if with_torch and entry.platform == "cpu" and entry.mode == "f32":
            torch = contest_torch.calls(entry.spec, entry.role, entry.layout, sets[0])
            if torch is not None:
                bursts["PyTorch"], results["PyTorch"] = (torch.call, 1), jax.numpy.asarray(torch.result())
        chosen = choose(*canonical(entry.spec, entry.role), entry.platform).algorithm
        errors, bounds = compared(entry, results, chosen)
        del results
        times = race({name: call for name, (call, _) in bursts.items()}, rounds, seed)
    counts = {name: count for name, (_, count) in bursts.items()}
    return Result(entry, chosen.name, *_per_call(times, counts), errors, bounds, failed)


def _per_call(times: Times, counts: dict[str, int]) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of a call from those of a burst, and their ratios to jconv's."""
    scaled = Times({
        name: tuple(None if s is None else s / counts[name] for s in rounds)
        for name, rounds in times.rounds.items()
    })  # fmt: skip
    seconds = {name: scaled.median(name) for name in counts}
    others = [name for name in counts if name != "jconv"] if "jconv" in counts else []
    return seconds, {name: scaled.ratio(name, "jconv") for name in others}


def jax_passes(entry: Entry) -> dict[str, Pass]:
    """lax and jconv through the same door."""
    spec, space = entry.spec, "DHW"[-entry.spec.ndim :]
    last = f"N{space}C", f"{space}IO", f"N{space}C"
    numbers = last if entry.layout == "NHWC" else (f"NC{space}", f"OI{space}", f"NC{space}")
    doors = {"lax": lax.conv_general_dilated, "jconv": jconv.conv_general_dilated}

    def forward(door: Callable[..., jax.Array], x: jax.Array, w: jax.Array) -> jax.Array:
        return door(
            x, w, spec.strides, spec.padding, spec.lhs_dilation, spec.rhs_dilation, numbers, spec.groups,
            precision=spec.precision,
        )  # fmt: skip

    return {name: as_role(functools.partial(forward, door), entry.role) for name, door in doors.items()}


def as_role(forward: Callable[[jax.Array, jax.Array], jax.Array], role: Role) -> Pass:
    """The forward or one of its gradients, as a compiled function of x, w and g."""

    def run(x: jax.Array, w: jax.Array, g: jax.Array) -> jax.Array:
        if role == "forward":
            return forward(x, w)
        backward = jax.vjp(forward, x, w)[1](g)
        return backward[0 if role == "grad_input" else 1]

    return jax.jit(run)


def by_name(entry: Entry) -> dict[str, Pass]:
    """Every algorithm that can, in canonical arrays."""

    def one(algorithm: Algorithm) -> Pass:
        letters = cases.OPERANDS[entry.role]

        def run(x: jax.Array, w: jax.Array, y: jax.Array) -> jax.Array:
            a, b = (dict(x=x, w=w, y=y)[letter] for letter in letters)
            return convolve(entry.role, a, b, entry.spec, algorithm)

        return jax.jit(run)

    able = [
        algorithm
        for algorithm in ALGORITHMS.values()
        if refuses(algorithm, entry.role, entry.spec) is None
        and workspace(algorithm, entry.role, entry.spec) < MOST_WORKSPACE
    ]
    return {algorithm.name: one(algorithm) for algorithm in able}


def first_results(
    passes: dict[str, Pass], arrays: Arrays, workers: int
) -> tuple[dict[str, jax.Array], dict[str, str]]:
    """Compile and compute once, several at a time: each one's result, or why there is none."""
    results, failed = {}, {}
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        device = jax.config.jax_default_device  # type: ignore[attr-defined]  # a thread does not inherit it

        def one(run: Pass) -> jax.Array:
            with jax.default_device(device):
                return finish(lambda: run(*arrays))

        futures = {name: pool.submit(one, run) for name, run in passes.items()}
        for name, future in futures.items():
            try:
                results[name] = future.result()
            except Exception as error:  # out of memory, no algorithm found, …: told, and on
                failed[name] = f"{type(error).__name__}: {str(error)[:200]}"
    return results, failed


def input_sets(entry: Entry, seed: int) -> list[Arrays]:
    """Random x, w and g in the entry's layout; on a GPU as many sets as its cache cannot hold."""
    if entry.platform == "cpu":  # NumPy has nothing to compile
        rng = np.random.default_rng(seed)
        draw = [rng.standard_normal(shape, "float32") for shape in shapes(entry.spec, entry.layout)]
        return [scaled(entry.spec, *map(jnp.asarray, draw))]
    sets = min(MOST_SETS, max(2, math.ceil(CACHE / entry.spec.bytes)))
    keys = jax.random.split(jax.random.key(seed), sets)
    return [drawn_on_device(entry.spec, entry.layout, key) for key in keys]


@functools.partial(jax.jit, static_argnums=(0, 1))
def drawn_on_device(spec: ConvSpec, layout: str, key: jax.Array) -> Arrays:
    """One set, without a way through the host."""
    pairs = zip(jax.random.split(key, 3), shapes(spec, layout), strict=True)
    return scaled(spec, *(jax.random.normal(one, shape) for one, shape in pairs))


def shapes(spec: ConvSpec, layout: str) -> list[Ints]:
    """Of x, w and y in the user's layout."""
    axes = layouts.named(layout, spec.ndim)
    assert axes is not None
    perms = tuple(map(axes.back, "xwy"))
    canonical = cases.shapes(spec).values()
    return [tuple(shape[axis] for axis in perm) for perm, shape in zip(perms, canonical, strict=True)]


def scaled(spec: ConvSpec, x: jax.Array, w: jax.Array, g: jax.Array) -> Arrays:
    """In the spec's dtype, and w such that y is about as large as x."""
    w = w / math.sqrt(spec.taps * spec.c)
    return x.astype(spec.x_dtype), w.astype(spec.w_dtype), g.astype(spec.y_dtype)


def compared(
    entry: Entry, results: dict[str, Any], chosen: Algorithm
) -> tuple[dict[str, float], dict[str, float]]:
    """How far each result is from lax's, and how far it may be; nothing where lax itself failed."""
    want = results.get("lax")
    if want is None:
        return {}, {}
    in_tf32 = entry.mode == "tf32" and entry.platform != "cpu"
    dtype = TF32_LIKE if in_tf32 else entry.spec.result(entry.role)[1]
    reduction = cases.reduction(entry.role, entry.spec)
    errors, bounds = {}, {}
    for name, got in results.items():
        if name != "lax":
            algorithm = chosen if name == "jconv" else ALGORITHMS.get(name)
            amplification = algorithm.amplification(entry.spec) if algorithm else 1.0
            errors[name] = float(_distance(jnp.asarray(got), want))
            bounds[name] = tolerance(dtype, reduction, amplification)
    return errors, bounds


@jax.jit
def _distance(got: jax.Array, want: jax.Array) -> jax.Array:
    """max|got − want| / max|want|: a NaN stays one, and is no agreement."""
    got, want = got.astype("float32"), want.astype("float32")
    return jnp.abs(got - want).max() / jnp.maximum(jnp.abs(want).max(), np.finfo("float32").tiny)


def bursting(run: Pass, sets: list[Arrays], platform: str) -> tuple[Callable[[], Any], int]:
    """A turn of `run`, and how many calls it makes: one on a CPU, a burst over all sets elsewhere."""
    if platform == "cpu":
        return functools.partial(run, *sets[0]), 1
    burst(run, sets, len(sets))
    start = time.perf_counter()
    burst(run, sets, len(sets))
    one = (time.perf_counter() - start) / len(sets)
    count = max(len(sets), min(MOST_CALLS, round(BURST / one)))
    return functools.partial(burst, run, sets, count), count


def burst(run: Pass, sets: list[Arrays], count: int) -> jax.Array:
    """Enqueue `count` calls, one set after the other, and wait for the last: a device works in order."""
    for turn in range(count):
        result = run(*sets[turn % len(sets)])
    return jax.block_until_ready(result)
