"""Where oneDNN may be called: the list of what was verified, and nothing else.

Through the door that `algorithms/onednn_calls.py` opens oneDNN does not raise: outside of what its kernels
and XLA's call of them take, processes die, hang, or let a NaN out of its window.  So what is on this list ran
in child processes against float64 (`python -m jconv verify`), and all else is refused with its reason.

    system      Linux on x86-64
    jaxlib      a version in `JAXLIBS`, or one whose verdict lies in the cache folder; a verdict against it
                refuses either
    build       XLA's compiler knows the call; it is asked once, by compiling (not running) one
    dtypes      those of `DTYPES`, on processors with their features; float32 stands in for bfloat16
    program     one that is neither exported nor kept: such a program cannot be serialised
    geometry    `algorithms.onednn.rejects`, and what `algorithms.onednn_direct` brings inside of it
"""

import concurrent.futures
import dataclasses
import functools
import os
import platform
import re
import sys

import jax
import jax.numpy as jnp
import jaxlib

from jconv.runtime import store

TRUSTED = "JCONV_TRUSTED"  # set for the child process that verifies a jaxlib which is not on the list
PORTABLE = "JCONV_PORTABLE"  # an environment variable: any value but "" and "0" asks for portable programs
JAXLIBS = ("0.10.0", "0.10.2", "0.11.0", "0.11.2", "0.12.0.1")
VERSION = jaxlib.version.__version__
COMMAND = "python -m jconv verify"


@dataclasses.dataclass(frozen=True)
class Verified:
    """One line of the list.

    Args:
      results: dtypes of y.
      needs: instruction sets, as Linux names them, without which oneDNN takes kernels that hang.
      unseen: instruction sets with which oneDNN takes kernels that were never run here.
    """

    results: tuple[str, ...]
    needs: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


# until jaxlib ?: below AVX-512 oneDNN's `gemm:jit` (many channels, first) hangs or writes past its heap
FEATURES = ("avx512f", "avx512bw", "avx512dq", "avx512vl")
# Each by 7666 random specs run 20 times, of the seeds 1001, 2001, 3001, 4001, 7001 to 7005 and, on the newest
# jaxlib, 8001 to 8005; float32 by 2500 more of 9001 and 3000 of 10001, which multiply one matrix by a batch,
# too, and 1953 of 12001, with kernel gradients along lines, tall kernels and single columns.  None was wrong.
DTYPES: dict[str, Verified] = {
    "float32": Verified(("float32",)),
    # until jaxlib ?: without avx512_bf16 a batched product waits for itself
    "bfloat16": Verified(("bfloat16", "float32"), needs=("avx512_bf16",), unseen=("amx_bf16",)),
    # until jaxlib ?: oneDNN's int8 kernels write past their heap where there is padding; so through float32
    "int8": Verified(("int32",)),
}


def refusal() -> str | None:
    """Why no program may call oneDNN here, or None."""
    return _of_the_system() or _of_the_program() or _of_jaxlib()


def unverifiable() -> str | None:
    """Why there is no oneDNN here that could be verified, or None."""
    if reason := _of_the_system() or _of_the_program() or _of_the_build():
        return reason
    reasons = [refusal_of(dtype, line.results[0]) for dtype, line in DTYPES.items()]
    return reasons[0] if all(reasons) else None


def refusal_of(x_dtype: str, y_dtype: str) -> str | None:
    """Why oneDNN may not compute y of such an x, whatever the shapes, or None."""
    line = DTYPES.get(x_dtype)
    if line is None or y_dtype not in line.results:
        return f"{x_dtype} to {y_dtype} was not verified with oneDNN; verified are {', '.join(DTYPES)}"
    if missing := [name for name in (*FEATURES, *line.needs) if name not in features()]:
        return f"{x_dtype} was not verified with oneDNN on a processor without {', '.join(missing)}"
    if unseen := [name for name in line.unseen if name in features()]:
        return f"{x_dtype} was not verified with oneDNN on a processor with {', '.join(unseen)}"
    xla = re.search(r"--xla_cpu_max_isa=(\w+)", os.environ.get("XLA_FLAGS", ""))
    for limit in os.environ.get("ONEDNN_MAX_CPU_ISA"), os.environ.get("DNNL_MAX_CPU_ISA"), xla and xla[1]:
        if limit and limit.upper() not in ("ALL", "DEFAULT"):
            return f"{x_dtype} was not verified with oneDNN limited to {limit}"
    return None


@functools.cache
def _of_the_system() -> str | None:
    if not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "AMD64"):
        return f"oneDNN was verified on Linux on x86-64, not on {sys.platform} on {platform.machine()}"
    return None


@functools.cache
def features() -> frozenset[str]:
    """What the processor can do, as Linux names it; nothing where the system does not tell."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return frozenset()
    return frozenset(flags.partition(":")[2].split())


def _of_the_program() -> str | None:
    if os.environ.get(PORTABLE, "0") not in ("", "0"):
        return f"{PORTABLE} asks for portable programs, without oneDNN"
    if os.environ.get("ONEDNN_DEFAULT_FPMATH_MODE", "STRICT").upper() != "STRICT":
        return "ONEDNN_DEFAULT_FPMATH_MODE lets oneDNN round float32 to something shorter"
    config = jax.config
    # until jaxlib ?: a program that calls oneDNN cannot be serialised
    if config.jax_enable_compilation_cache and config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        kept = "JAX's persistent compilation cache is on"
        return f"{kept}, and a program that calls oneDNN cannot be kept in it"
    return None


def verdict_key() -> str:
    """Where the verdict on this jaxlib is kept, beside the tuned winners; oneDNN picks its kernels by the
    instruction sets."""
    sets = sorted(name for name in features() if name.startswith(("avx", "amx")))
    return f"oneDNN; jaxlib {VERSION}; {' '.join(sets)}"


def _of_jaxlib() -> str | None:
    trusted = os.environ.get(TRUSTED) == "1"
    agrees = store.entry(verdict_key()).get("agrees", VERSION in JAXLIBS or None)
    if agrees is None and not trusted:
        return f"oneDNN in jaxlib {VERSION} was not verified; `{COMMAND}` does it, in a process of its own"
    if not agrees and not trusted:
        return f"oneDNN in jaxlib {VERSION} did not agree here, as `{COMMAND}` found"
    return _of_the_build()


@functools.cache
def _of_the_build() -> str | None:
    """Asked in a thread, which is free of a user's contexts."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        is_built = thread.submit(_compiles).result()
    return None if is_built else f"jaxlib {VERSION} was built without oneDNN here"


def _compiles() -> bool:
    """Whether XLA's compiler knows the call; compiled, not run."""
    a = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    config = '{"onednn_matmul_config": {"transpose_a": false, "transpose_b": false}}'
    call = jax.ffi.ffi_call("__onednn$matmul", a, custom_call_api_version=2, legacy_backend_config=config)
    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            jax.jit(call).lower(a, a).compile()
    except Exception:  # NOT_FOUND, or whatever else another build answers
        return False
    return True
