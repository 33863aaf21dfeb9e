"""Verify oneDNN on this machine: random convolutions and products in a child process, against float64.

The child draws specs of the whole breadth that `algorithms.onednn` takes (odd and single channels, tails of
every vector width, kernels as large as the input, long rows, paddings wider than the kernel) and, for each,
one role.  Whole numbers have to agree to the bit, in bfloat16 to its rounding; each program is run many
times, since a corrupted heap shows late; and a NaN must not leave its window.  If the child comes back and
all agreed, the verdict is kept beside the tuned winners, and oneDNN is used with this jaxlib.
"""

import argparse
import dataclasses
import functools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jconv.algorithms import ONEDNN, onednn_calls, onednn_lines
from jconv.algorithms.record import evaluate, refuses
from jconv.bench import interrupts, options
from jconv.runtime import store, verified
from jconv.spec import ROLES, ConvSpec, Role, extent
from jconv.testing import cases

CHANNELS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 40, 48, 63, 64, 65)
MOST_MACS = 4e6  # of one spec: the reference computes it in NumPy
ROUNDING = 2.0**-8  # of bfloat16, relative to the largest value
DTYPES = tuple(verified.DTYPES)
NOTHING_RAN = 3  # how the child says so


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `main` reads."""
    parser.add_argument("--specs", type=options.positive, default=500, metavar="N", help="how many (500)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the random numbers (0)")
    parser.add_argument("--repeats", type=options.positive, default=20, metavar="K", help="runs of each (20)")
    parser.add_argument("--dtype", choices=DTYPES, help="only this one, and keep no verdict")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)


def main(args: argparse.Namespace) -> int:
    """Verify and print; 0 if all agreed, 1 if not, 2 if there is no oneDNN to verify or nothing was run."""
    if args.child:
        return _child(args)
    if reason := verified.unverifiable() or _refusal_of(args.dtype):
        print(f"there is nothing to verify: {reason}", file=sys.stderr)
        return 2
    given = {name: getattr(args, name) for name in ("specs", "seed", "repeats", "dtype")}
    again = [f"--{name}={value}" for name, value in given.items() if value is not None]
    command = [sys.executable, "-m", "jconv", "verify", "--child", *again]
    status = interrupts.child(command, os.environ | {verified.TRUSTED: "1"})
    if status == NOTHING_RAN:
        print("nothing was verified: oneDNN takes none of the random specs; raise --specs", file=sys.stderr)
        return 2
    agrees = status == 0
    print("oneDNN agrees" if agrees else f"oneDNN is not used: the child process ended with {status}")
    if not args.dtype:
        kept = {"agrees": agrees, "specs": args.specs, "seed": args.seed, "repeats": args.repeats}
        store.put({verified.verdict_key(): kept})
    return 0 if agrees else 1


def _child(args: argparse.Namespace) -> int:
    """What runs in the child process: 0 if all agreed."""
    first = np.random.default_rng(args.seed)
    rngs = [first, first, *(np.random.default_rng((args.seed, kind)) for kind in (2, 3, 4))]
    draws = _of_convolution, _of_product, _of_shared_product, _of_lines, _of_tall_kernel
    ran, wrong = 0, 0
    dtypes = [args.dtype] if args.dtype else [d for d in DTYPES if not verified.refusal_of(d, _result(d))]
    for number in range(args.specs):
        dtype = dtypes[number % len(dtypes)]
        for found in (of(rng, dtype, args.repeats) for of, rng in zip(draws, rngs, strict=True)):
            ran += found is not None
            for fault in found or ():
                print(fault, flush=True)
                wrong += 1
    what = f"{args.specs} specs of seed {args.seed}, {', '.join(dtypes)}"
    print(f"{what}, {args.repeats} runs each of {ran} convolutions and products: {wrong} wrong")
    return int(wrong > 0) if ran else NOTHING_RAN


def _refusal_of(dtype: str | None) -> str | None:
    return verified.refusal_of(dtype, _result(dtype)) if dtype else None


def _result(dtype: str) -> str:
    return verified.DTYPES[dtype].results[0]


def random_spec(rng: np.random.Generator, dtype: str) -> ConvSpec:
    """A spec of the list's breadth that is small enough to be computed in NumPy.

    >>> random_spec(np.random.default_rng(0), "float32").x_dtype
    'float32'
    """
    while True:
        spec = _drawn(rng, dtype)
        if not spec.is_empty and spec.macs <= MOST_MACS:
            return spec


def _drawn(rng: np.random.Generator, dtype: str) -> ConvSpec:
    n = int(rng.integers(1, 4))
    groups = int(rng.choice([1, 1, 1, 2, 3, 4, 8]))
    c, o = (int(v) for v in rng.choice(CHANNELS, 2))
    if rng.random() < 0.2:  # depthwise
        groups, c, o = int(rng.choice(CHANNELS[1:])), 1, int(rng.choice([1, 1, 2]))
    kernel, strides, dilation = (_ints(rng, top, n) for top in ((7, 7, 4)[n - 1] + 1, 4, 4))
    window = list(map(extent, kernel, dilation))
    longer = _ints(rng, 3000 if n == 1 and rng.random() < 0.2 else (40, 14, 6)[n - 1], n)
    spatial = _inputs(window, longer)
    widest = [K + 2 if rng.random() < 0.1 else K for K in window]
    padding = _paddings(rng, widest)
    result = str(rng.choice(verified.DTYPES[dtype].results))
    one, batch, first = (1,) * n, int(rng.integers(1, 4)), bool(rng.random() < 0.5)
    return ConvSpec(
        batch, groups * c, groups * o, spatial, kernel, strides, padding, one, dilation, groups,
        dtype, dtype, result, channels_first=first,
    )  # fmt: skip


def _ints(rng: np.random.Generator, top: int, count: int) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(1, top, count))


def _inputs(window: Sequence[int], longer: Sequence[int]) -> tuple[int, ...]:
    """Sizes of inputs with so many more positions than the window's last but one."""
    return tuple(K - 1 + more for K, more in zip(window, longer, strict=True))


def _paddings(rng: np.random.Generator, widest: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """(lo, hi) per dimension, each below the widest."""
    return tuple((int(rng.integers(0, K)), int(rng.integers(0, K))) for K in widest)


def _of_convolution(rng: np.random.Generator, dtype: str, repeats: int) -> list[str] | None:
    """The faults of a random one, or None if it is one that oneDNN does not take."""
    spec = random_spec(rng, dtype)
    role: Role = "forward" if dtype == "int8" else ROLES[int(rng.integers(3))]
    if role != "forward":
        spec = spec.replace(y_dtype=dtype)
    if refuses(ONEDNN, role, spec):
        return None
    return _faults(rng, role, functools.partial(evaluate, ONEDNN, role), spec, repeats)


def _of_lines(rng: np.random.Generator, dtype: str, repeats: int) -> list[str] | None:
    """The faults of a random kernel gradient along the lines of x, whose kernel is as large as an image."""
    if dtype != "float32":
        return None
    n, batch = int(rng.integers(1, 4)), int(rng.choice([1, 1, 2, 3, 5, 8, 17]))
    c, o = (int(v) for v in rng.choice(CHANNELS, 2))
    kernel, strides, dilation = (_ints(rng, top, n) for top in ((12, 6, 4)[n - 1], 4, 4))
    window = list(map(extent, kernel, dilation))
    longer = list(_ints(rng, (3000, 80, 12)[n - 1], n))
    if rng.random() < 0.5:  # long or tall
        longer = [size if axis == int(rng.integers(n)) else 1 + size // 8 for axis, size in enumerate(longer)]
    spec = ConvSpec.of(
        batch=batch, in_channels=c, out_channels=o, spatial=_inputs(window, longer), kernel=kernel,
        strides=strides, rhs_dilation=dilation, padding=_paddings(rng, window),
    ).replace(channels_first=bool(rng.random() < 0.5))  # fmt: skip
    if spec.is_empty or spec.macs > MOST_MACS or not onednn_lines.applies(spec):
        return None
    return _faults(rng, "grad_kernel", onednn_lines.grad_kernel, spec, repeats)


def _of_tall_kernel(rng: np.random.Generator, dtype: str, repeats: int) -> list[str] | None:
    """The faults of a random convolution with a kernel that is long along one axis; one in four, or None."""
    if dtype != "float32" or rng.random() < 0.75:
        return None
    n, groups = int(rng.integers(1, 4)), int(rng.choice([1, 1, 1, 2, 3]))
    c, o = (int(v) for v in rng.choice(CHANNELS, 2))
    if rng.random() < 0.2:  # depthwise
        groups, c, o = c, 1, 1
    kernel, longer = list(_ints(rng, 4, n)), list(_ints(rng, 12, n))
    kernel[int(rng.integers(n))] = int(rng.integers(8, 400))
    if rng.random() < 0.3:  # one column
        kernel[-1] = longer[-1] = 1
    spec = ConvSpec.of(
        batch=int(rng.choice([1, 3, 8])), in_channels=groups * c, out_channels=groups * o, groups=groups,
        spatial=_inputs(kernel, longer), kernel=tuple(kernel), padding=_paddings(rng, kernel),
    ).replace(channels_first=bool(rng.random() < 0.5))  # fmt: skip
    role = ROLES[int(rng.integers(3))]
    if spec.is_empty or spec.macs > MOST_MACS or refuses(ONEDNN, role, spec):
        return None
    return _faults(rng, role, functools.partial(evaluate, ONEDNN, role), spec, repeats)


def _faults(rng: np.random.Generator, role: Role, compute: Any, spec: ConvSpec, repeats: int) -> list[str]:
    """Wrong values of compute(a, b, spec), and NaNs that left their window."""
    arrays = cases.whole(dataclasses.replace(spec, x_dtype="int8"), int(rng.integers(2**31)))
    a, b = (v.astype(spec.x_dtype) for v in cases.operands(role, arrays))
    program = jax.jit(lambda a, b: compute(*_as_they_lie(a, b, spec), spec))
    want = cases.reference(role, a, b, spec)
    faults = [*_values(f"{role} of {spec}, {spec.padding}", program, (a, b), want, repeats)]
    if spec.x_dtype != "int8":
        faults += _nans(rng, role, program, a, b, spec)
    return faults


def _as_they_lie(a: jax.Array, b: jax.Array, spec: ConvSpec) -> tuple[jax.Array, jax.Array]:
    """Images and kernels that lie in memory as a user's do."""
    if not spec.channels_first:
        return a, b
    a, b = (jax.lax.optimization_barrier(jnp.moveaxis(v, -1, 1)) for v in (a, b))
    return jnp.moveaxis(a, 1, -1), jnp.moveaxis(b, 1, -1)


def _nans(
    rng: np.random.Generator, role: Role, program: Any, a: Any, b: Any, spec: ConvSpec
) -> Iterator[str]:
    """A NaN in the image reaches only the results that read it."""
    image = a.copy()
    image[tuple(int(rng.integers(size)) for size in a.shape)] = np.nan
    seen = np.isnan(image.astype("float32")).astype("float64")
    may = cases.reference(role, seen, np.ones(b.shape), spec) > 0
    if (np.isnan(np.asarray(program(image, b)).astype("float64")) & ~may).any():
        yield f"a NaN left its window: {role} of {spec}, {spec.padding}"


def _values(what: str, program: Any, operands: Any, want: np.ndarray, repeats: int) -> Iterator[str]:
    for _ in range(repeats):
        got = np.asarray(program(*operands))
        most = ROUNDING if got.dtype.name == "bfloat16" else 0.0
        error = cases.error(got.astype(want.dtype), want)
        if not error <= most:
            yield f"wrong by {error:.1e}: {what}"
            return


def _of_product(rng: np.random.Generator, dtype: str, repeats: int) -> list[str] | None:
    """The faults of a random one, or None for integers, of which there are none."""
    if dtype == "int8":
        return None
    batch = (int(rng.integers(1, 5)),) if rng.random() < 0.6 else ()
    return _of_batches(rng, dtype, repeats, batch, batch)


def _of_shared_product(rng: np.random.Generator, dtype: str, repeats: int) -> list[str] | None:
    """The same where one matrix is multiplied by a batch of them; every other time, or None."""
    if dtype != "float32" or rng.random() < 0.5:
        return None
    batches = [(1,), (int(rng.integers(2, 20)),)]
    rng.shuffle(batches)
    return _of_batches(rng, dtype, repeats, *batches)


def _of_batches(
    rng: np.random.Generator, dtype: str, repeats: int, lefts: tuple[int, ...], rights: tuple[int, ...]
) -> list[str]:
    """The faults of a random product of batches of so many matrices."""
    m, n, k = (int(rng.choice([*CHANNELS, int(rng.integers(1, 400))])) for _ in range(3))
    turned = dict(transpose_a=bool(rng.random() < 0.5), transpose_b=bool(rng.random() < 0.3))
    a = rng.integers(-3, 4, (*lefts, *((k, m) if turned["transpose_a"] else (m, k)))).astype(dtype)
    b = rng.integers(-3, 4, (*rights, *((n, k) if turned["transpose_b"] else (k, n)))).astype(dtype)
    result = str(rng.choice(verified.DTYPES[dtype].results))
    program = jax.jit(lambda a, b: onednn_calls.matmul(a, b, result, **turned))
    left, right = (v.astype("float64") for v in (a, b))
    left = np.swapaxes(left, -1, -2) if turned["transpose_a"] else left
    right = np.swapaxes(right, -1, -2) if turned["transpose_b"] else right
    what = f"product of {a.shape} and {b.shape} {dtype} to {result}, {turned}"
    faults = [*_values(what, program, (a, b), left @ right, repeats)]
    row, column = int(rng.integers(m)), int(rng.integers(n))
    a[_line(row, lefts, 0, last=turned["transpose_a"])] = np.nan
    b[_line(column, rights, -1, last=not turned["transpose_b"])] = np.nan
    nans = np.isnan(np.asarray(program(a, b)).astype("float32"))
    nans[_line(row, lefts, slice(None) if lefts == (1,) else 0, last=False)] = False
    nans[_line(column, rights, slice(None) if rights == (1,) else -1, last=True)] = False
    return [*faults, f"a NaN left its row or column: {what}"] if nans.any() else faults


def _line(at: int, batch: tuple[int, ...], of: Any, *, last: bool) -> tuple[Any, ...]:
    """The index of a row, or along the last axis a column, of these matrices of a batch."""
    return (*((of,) if batch else ()), *((slice(None), at) if last else (at,)))
