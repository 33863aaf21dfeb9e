"""The ladder of every convolution lesson: the same convolution, from four Python loops to a library.

One problem, 8 pictures of 3×32×32 under 16 kernels of 3×3 with padding 1, and one rung for each way to
compute it, in the order they are taught:

    the textbook (NumPy)   the quadruple loop; patches copied by hand, then one matrix product; the
                           same patches as a strided view, contracted by einsum
    jconv (jitted)         one of its algorithms by name, or all, then the one it picks itself
    others                 `lax.conv_general_dilated` jitted, and PyTorch where it is installed

All take and give NCHW float32 arrays of their own library; nothing is converted inside the timing.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jconv
from jconv import textbook
from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import Algorithm, refuses
from jconv.api.options import AlgorithmName
from jconv.bench.timing import Call, Times, finish, race
from jconv.choice.pick import choose
from jconv.spec import ConvSpec
from jconv.spec.tolerance import tolerance
from jconv.testing.check import error

LESSON = ConvSpec.of(batch=8, in_channels=3, out_channels=16, spatial=(32, 32), kernel=(3, 3),
                     padding=((1, 1), (1, 1)))  # fmt: skip
LOOP = "quadruple loop"
STEP = "im2col"  # the algorithm that shows what compiling does to what was done by hand


@dataclasses.dataclass(frozen=True)
class Rung:
    """One way to compute the convolution.

    Args:
      name: what the table says; unique.
      what: it does, in a few words.
      call: computes it.
    """

    name: str
    what: str
    call: Call


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table: a rung, its time, the loop's time over that, and whether it is right."""

    name: str
    what: str
    seconds: float
    speedup: float
    error: float
    agrees: bool


def rungs(
    spec: ConvSpec = LESSON,
    algorithms: Iterable[Algorithm] | None = None,
    seed: int = 0,
    with_torch: bool = True,
) -> list[Rung]:
    """Every way to compute `spec` that there is on this machine, on the same random NCHW arrays.

    Args:
      spec: a 2-D problem without input dilation, its padding equal on both sides if PyTorch takes part.
      algorithms: jconv's records that take part if they do not refuse; None means all of them.
      seed: of the random arrays.
      with_torch: False leaves PyTorch out even where it is installed.
    """
    x, w = arrays(spec, seed)
    knobs = dict(padding=spec.padding, stride=spec.strides, dilation=spec.rhs_dilation, groups=spec.groups)
    able = [a for a in algorithms or ALGORITHMS.values() if refuses(a, "forward", spec) is None]
    ways = [*_textbook(x, w, knobs), *_jconv(x, w, knobs, able, spec), _lax(x, w, spec)]
    return [*ways, *(_torch(x, w, spec) if with_torch else ())]


def arrays(spec: ConvSpec, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random x (n, c, h, w) and w (o, c, r, s)."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((spec.batch, spec.in_channels, *spec.spatial))
    w = rng.standard_normal((spec.out_channels, spec.c, *spec.kernel))
    return x.astype(spec.x_dtype), w.astype(spec.w_dtype)


def _textbook(x: np.ndarray, w: np.ndarray, knobs: dict[str, Any]) -> Iterator[Rung]:
    ways: dict[str, tuple[str, Callable[..., np.ndarray]]] = {
        LOOP: ("one output at a time", textbook.conv2d_loops),
        "im2col by hand, matmul": ("patches copied out", textbook.conv2d_im2col),
        "strided view, einsum": ("patches only viewed", textbook.conv2d_einsum),
    }
    for name, (what, conv2d) in ways.items():
        yield Rung(name, what, functools.partial(conv2d, x, w, **knobs))


def _jconv(
    x: np.ndarray, w: np.ndarray, knobs: dict[str, Any], able: list[Algorithm], spec: ConvSpec
) -> Iterator[Rung]:
    on_device = jnp.asarray(x), jnp.asarray(w)
    named: dict[str, AlgorithmName | Algorithm] = {algorithm.name: algorithm for algorithm in able}
    for name, algorithm in (named | {"auto": "auto"}).items():
        compiled = jax.jit(functools.partial(jconv.conv2d, algorithm=algorithm, **knobs))
        what = f"jconv's pick: {choose(spec).algorithm.name}" if name == "auto" else "compiled by jax.jit"
        yield Rung(f"jconv {name}", what, functools.partial(compiled, *on_device))


def _lax(x: np.ndarray, w: np.ndarray, spec: ConvSpec) -> Rung:
    on_device = jnp.asarray(x), jnp.asarray(w)
    numbers = ("NCHW", "OIHW", "NCHW")
    compiled = jax.jit(
        lambda x, w: lax.conv_general_dilated(
            x, w, spec.strides, spec.padding, spec.lhs_dilation, spec.rhs_dilation, numbers, spec.groups
        )
    )
    return Rung("lax.conv_general_dilated", "JAX's own", functools.partial(compiled, *on_device))


def _torch(x: np.ndarray, w: np.ndarray, spec: ConvSpec) -> Iterator[Rung]:
    try:
        import torch
    except ImportError:
        return
    tensors = torch.from_numpy(x), torch.from_numpy(w)
    low = [lo for lo, _ in spec.padding]

    def call() -> Any:
        with torch.inference_mode():
            return torch.nn.functional.conv2d(
                *tensors, stride=spec.strides, padding=low, dilation=spec.rhs_dilation, groups=spec.groups
            )

    yield Rung("torch conv2d", "PyTorch's own", call)


def climb(
    ways: list[Rung],
    spec: ConvSpec = LESSON,
    rounds: int = 7,
    after_each: Callable[[str], None] | None = None,
) -> list[Row]:
    """Compute with every rung, compare with the textbook's loop, then time them all against each other.

    Args:
      ways: of `rungs`; the loop must be among them.
      spec: the problem they compute.
      rounds, after_each: as in `jconv.bench.timing.race`.

    Returns:
      A `Row` per rung, in the order given.
    """
    results = {rung.name: np.asarray(finish(rung.call)) for rung in ways}
    times = race({rung.name: rung.call for rung in ways}, rounds, after_each=after_each)
    return [_row(rung, results, times, spec) for rung in ways]


def _row(rung: Rung, results: dict[str, np.ndarray], times: Times, spec: ConvSpec) -> Row:
    off = error(results[rung.name], results[LOOP])
    agrees = off <= tolerance(spec.y_dtype, spec.taps * spec.c)
    speedup = times.ratio(LOOP, rung.name)
    return Row(rung.name, rung.what, times.median(rung.name), speedup, off, agrees)
