"""What was measured: the fastest algorithm per convolution, device and jax version.

`jconv.tune` keeps winners here and `choose` looks here; nothing else does.  They lie in the file of `store`,

    "<device>; jax <version>; <role>; <spec>": {"algorithm": "…", "seconds": {"…": 1e-3, …}}

The dtypes are part of the spec.  A name is looked up among jconv's algorithms and must still accept the
problem; nothing in the file is executed.
"""

import contextlib
import functools
import json
import math
import os
import platform as host
from collections.abc import Mapping

import jax

from jconv.algorithms import ALGORITHMS
from jconv.algorithms.record import refuses
from jconv.choice.rates import Factors
from jconv.runtime import store
from jconv.runtime.store import Entry
from jconv.spec import ConvSpec, Role

Measured = tuple[tuple[str, float], ...]


def winner(spec: ConvSpec, role: Role = "forward", platform: str | None = None) -> str | None:
    """Name of the algorithm that was measured as the fastest; None where nothing was, or where jconv does not
    know the name or it refuses the problem now."""
    return next((name for name, _ in measured(spec, role, platform)), None)


def measured(spec: ConvSpec, role: Role = "forward", platform: str | None = None) -> Measured:
    """The names and seconds of what was measured, the winner first; nothing where there is no winner."""
    found = entry(spec, role, platform)
    first = ALGORITHMS.get(found.get("algorithm", ""))
    if first is None or refuses(first, role, spec) is not None:
        return ()
    times = found["seconds"].items()
    kept = {name: time for name, time in times if isinstance(time, float) and 0 < time < math.inf}
    return ((first.name, kept.pop(first.name, math.inf)), *kept.items())


def entry(spec: ConvSpec, role: Role = "forward", platform: str | None = None) -> Entry:
    """What was measured, {"algorithm": name, "seconds": {name: seconds}}; empty for nothing."""
    # where nothing was tuned, not even the device is asked for its name
    if not store.entries() or (where := key(spec, role, platform)) is None:
        return {}
    found = store.entry(where)
    measured = isinstance(found.get("algorithm"), str) and isinstance(found.get("seconds"), dict)
    return found if measured else {}


def keep(spec: ConvSpec, role: Role, platform: str | None, seconds: Mapping[str, float], winner: str) -> bool:
    """Keep the measured times of a convolution; True if they reached the file."""
    where = key(spec, role, platform)
    return where is not None and store.put({where: {"algorithm": winner, "seconds": dict(seconds)}})


def factors(platform: str) -> Factors:
    """What `jconv.tune()` measured of this machine: how much slower each kind of work is than on record."""
    if not store.entries() or (where := _key(platform, "rates")) is None:
        return ()
    found = store.entry(where).get("factors")
    kept = found.items() if isinstance(found, dict) else ()
    return tuple(sorted((name, by) for name, by in kept if isinstance(by, float) and by > 0))


def keep_factors(platform: str, factors: Mapping[str, float]) -> bool:
    """Keep the factors of this machine; True if they reached the file."""
    where = _key(platform, "rates")
    return where is not None and store.put({where: {"factors": dict(factors)}})


def key(spec: ConvSpec, role: Role, platform: str | None = None) -> str | None:
    """The entry's name; None where there is no such device."""
    return _key(platform or jax.default_backend(), f"{role}; {_of_spec(spec)}")


def _key(platform: str, what: str) -> str | None:
    kind = device_kind(platform)
    return kind and f"{kind}; jax {jax.__version__}; {what}"


@functools.lru_cache(maxsize=4096)
def _of_spec(spec: ConvSpec) -> str:
    fields = vars(spec) | {"precision": spec.precision and [str(p) for p in spec.precision]}
    return json.dumps(fields, default=str, separators=(",", ":"))


@functools.cache
def device_kind(platform: str) -> str | None:
    """The model of the device, for a CPU also how many cores this process may run on.

    >>> device_kind("abacus") is None
    True
    """
    try:
        kind = jax.local_devices(backend=platform)[0].device_kind
    except RuntimeError:  # compiling for a device that is not here
        return None
    return f"{processor()}, {cores()} cores" if platform == "cpu" else kind


def cores() -> int:
    """How many processor cores this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def processor() -> str:
    """The processor's name as the system gives it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return host.processor() or host.machine()
