"""What was measured: the fastest algorithm per convolution, device and jax version, kept in a JSON file.

`jconv.tune` stores here and `choose` looks here; nothing else does.  The file lies in the user's cache
folder (`$XDG_CACHE_HOME/jconv/tuned.json` or the platform's like), or wherever `use` says:

    {"format": "jconv tuned", "version": 1,
     "entries": {"<device>; jax <version>; <role>; <spec>": {"algorithm": "…", "seconds": {"…": 1e-3, …}}}}

The dtypes are part of the spec.  Reading is lazy and happens once, at the first convolution that has to
be chosen; a file that appears or changes later is seen after `use`, or by the next process.

**Nothing is lost or half written.**  A writer takes a lock (on a file beside, as the file itself is
replaced), reads what is there, adds its own, writes a new file to the end, and only then renames it into
place: the other processes see all of the old or all of the new.  The operating system lets go of the
lock when its owner dies.  If any step fails (a full disk, a folder that may not be written) the old file
is as it was, the winners hold for this process, and a warning says so.

**Nothing foreign is trusted or touched.**  What is not such a file (corrupt, something else, a newer
version) is ignored with a warning and never overwritten.  A name in it is looked up among jconv's
algorithms and must still accept the problem; nothing in it is executed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform as host
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from jconv.algorithm import refuses
from jconv.algorithms import ALGORITHMS
from jconv.spec import ConvSpec, Role

FORMAT, VERSION = "jconv tuned", 1
Entry = dict[str, Any]


# -- which file ------------------------------------------------------------------------------------


def default_path() -> Path:
    """`jconv/tuned.json` in the user's cache folder."""
    if sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Caches"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / "jconv" / "tuned.json"


class Store:
    """A cache file and what is known of it: read when first asked, added to by `put`.

    Args:
      path: the file, which need not exist; None keeps everything in memory; "default" is
        `default_path()`, found out when it is needed.
    """

    def __init__(self, path: str | os.PathLike[str] | None = "default") -> None:
        self._path = path
        self._entries: dict[str, Entry] | None = None
        self._lock = threading.Lock()

    @property
    def path(self) -> Path | None:
        """The file."""
        if self._path is None:
            return None
        return default_path() if self._path == "default" else Path(self._path)

    @property
    def entries(self) -> Mapping[str, Entry]:
        """All entries, the file's and those put since."""
        if self._entries is None:
            with self._lock:
                if self._entries is None:
                    self._entries = self._first_read()
        return self._entries

    def _first_read(self) -> dict[str, Entry]:
        try:
            return _valid(read(self.path)["entries"]) if self.path else {}
        except (OSError, RuntimeError, UnusableError) as error:  # RuntimeError: there is no home folder
            _warn(f"{error}; it is ignored")
            return {}

    def put(self, new: Mapping[str, Entry]) -> bool:
        """Add entries, to memory and to the file; True if the file has them now."""
        self._entries = {**self.entries, **new}
        try:
            if (path := self.path) is None:
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path), self._lock:
                content = read(path)
                content["entries"].update(new)
                _replace(path, json.dumps(content, indent=1, sort_keys=True))
        except (OSError, RuntimeError, UnusableError) as error:
            _warn(f"{error}; what was measured holds for this process only, the file is as it was")
            return False
        return True


_active = Store()


def use(path: str | os.PathLike[str] | None = "default") -> None:
    """Read and keep measured winners in the file at `path` from now on.

    What is compiled already keeps the algorithm it was compiled with; `jax.clear_caches()` forgets it.
    Processes that run one program together (multi-host JAX) must all use the same file, or they would
    compile different programs.

    Args:
      path: a file, which need not exist yet; None for no file, so that every choice is the cost
        model's until something is tuned; "default" for the one in the user's cache folder.

    >>> from jconv import cache
    >>> cache.use(None)
    >>> cache.path() is None
    True
    """
    global _active
    if not (path is None or isinstance(path, (str, os.PathLike))):
        raise TypeError(f"`path` must be a path, None or 'default', got {path!r}")
    _active = Store(path)


def path() -> Path | None:
    """The file in use, whether it exists or not; None for none."""
    return _active.path


# -- what is asked of it ---------------------------------------------------------------------------


def winner(spec: ConvSpec, role: Role = "forward", platform: str | None = None) -> str | None:
    """Name of the algorithm that was measured as the fastest, or None where nothing was.

    A name that jconv does not know, or that refuses the problem now, counts as nothing.
    """
    found = entry(spec, role, platform)
    algorithm = ALGORITHMS.get(found["algorithm"]) if found else None
    return algorithm.name if algorithm and refuses(algorithm, role, spec) is None else None


def entry(spec: ConvSpec, role: Role = "forward", platform: str | None = None) -> Entry | None:
    """What was measured, {"algorithm": name, "seconds": {name: seconds}}, or None."""
    if not _active.entries:  # nothing tuned: not even the device is asked for its name
        return None
    where = key(spec, role, platform)
    return _active.entries.get(where) if where else None


def store(
    spec: ConvSpec, role: Role, platform: str | None, seconds: Mapping[str, float], winner: str
) -> bool:
    """Keep the measured times of a convolution; True if they reached the file."""
    where = key(spec, role, platform)
    return where is not None and _active.put({where: {"algorithm": winner, "seconds": dict(seconds)}})


def key(spec: ConvSpec, role: Role, platform: str | None = None) -> str | None:
    """The entry's name; None where there is no such device."""
    kind = device_kind(platform or jax.default_backend())
    return kind and f"{kind}; jax {jax.__version__}; {role}; {_of_spec(spec)}"


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
    return f"{_processor()}, {_cores()} cores" if platform == "cpu" else kind


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return host.processor() or host.machine()


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


# -- the file --------------------------------------------------------------------------------------


class UnusableError(ValueError):
    """The file holds something else."""


def read(path: Path) -> dict[str, Any]:
    """The content of the file, that of an empty one if there is none.

    Raises:
      UnusableError: it is not a file of tuned algorithms, or of a version not known here.
      OSError: it may not be read.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        text = b""
    if not text:
        return {"format": FORMAT, "version": VERSION, "entries": {}}
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnusableError(f"{path} is not JSON ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UnusableError(f"{path} is not a file of jconv's tuned algorithms")
    if content.get("version") != VERSION:
        raise UnusableError(f"{path} has version {content.get('version')!r}, this jconv knows {VERSION}")
    if not isinstance(content.get("entries"), dict):
        raise UnusableError(f"{path} has no entries")
    return content


def _valid(entries: Mapping[str, Any]) -> dict[str, Entry]:
    """The entries that name an algorithm; what else stands there stays in the file."""
    return {
        key: value
        for key, value in entries.items()
        if isinstance(value, dict)
        and isinstance(value.get("algorithm"), str)
        and isinstance(value.get("seconds"), dict)
    }


def _replace(path: Path, text: str) -> None:
    """All of the new file or all of the old one: written and synced beside it, then renamed."""
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # a full disk may show only here
        if path.exists():
            os.chmod(beside, path.stat().st_mode & 0o777)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time: a lock of the operating system on `<path>.lock`."""
    with open(f"{path}.lock", "a+b") as file:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)  # let go of when the file is closed
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _warn(message: str) -> None:
    warnings.warn(f"jconv's cache of tuned algorithms: {message}", RuntimeWarning, stacklevel=3)
