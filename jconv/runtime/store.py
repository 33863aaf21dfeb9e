"""The file in the user's cache folder, in which what was measured or verified is kept.

It is `$XDG_CACHE_HOME/jconv/tuned.json` or the platform's like, or wherever `use` says, and is read once, at
the first question:

    {"format": "jconv tuned", "version": 1, "entries": {"<what>": {…}}}

**Nothing is lost or half written.**  A writer takes a lock (on a file beside, as the file itself is
replaced), reads what is there, adds its own, writes a new file to the end, and only then renames it into
place.  The operating system lets go of the lock when its owner dies.  If any step fails the old file is as
it was, what was found holds for this process, and a warning says so.  **Nothing foreign is trusted or
touched.**  What is not such a file is ignored with a warning and never overwritten.
"""

import contextlib
import json
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FORMAT, VERSION = "jconv tuned", 1
Entry = dict[str, Any]


class UnusableError(ValueError):
    """The file holds something else."""


FAILURES = (OSError, RuntimeError, UnusableError)  # RuntimeError: there is no home folder


def default_path() -> Path:
    """`jconv/tuned.json` in the user's cache folder."""
    if sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Caches"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / "jconv" / "tuned.json"


_place: str | os.PathLike[str] | None = "default"  # see `use`
_entries: dict[str, Entry] | None = None  # the file's and those put since; None before the first question
_lock = threading.RLock()  # of both


def use(path: str | os.PathLike[str] | None = "default") -> None:
    """Read and keep measured winners in the file at `path` from now on.

    What is compiled already keeps its algorithm until `jax.clear_caches()`.  Processes that run one program
    together (multi-host JAX) must all use the same file, or they would compile different programs.

    Args:
      path: a file, which need not exist yet; None for no file, so that every choice is the cost model's
        until something is tuned; "default" for the one in the user's cache folder.

    >>> from jconv.runtime import store
    >>> store.use(None)
    >>> store.path() is None
    True
    """
    global _place, _entries
    if not (path is None or isinstance(path, (str, os.PathLike))):
        raise TypeError(f"`path` must be a path, None or 'default', got {path!r}")
    with _lock:
        _place, _entries = path, None


def path() -> Path | None:
    """The file in use, whether it exists or not; None for none."""
    if _place is None:
        return None
    return default_path() if _place == "default" else Path(_place).expanduser()


def entries() -> Mapping[str, Entry]:
    """All that the file or this process has."""
    global _entries
    if (known := _entries) is None:
        with _lock:
            known = _entries = _first_read() if _entries is None else _entries
    return known


def entry(key: str) -> Entry:
    """What stands under `key`; an empty dictionary for nothing."""
    return entries().get(key, {})


def put(new: Mapping[str, Entry]) -> bool:
    """Keep entries, in memory and in the file; True if they reached the file."""
    global _entries
    with _lock:
        _entries = {**entries(), **new}
        try:
            if (file := path()) is None:
                return False
            file.parent.mkdir(parents=True, exist_ok=True)
            with _locked(file):
                content = read(file)
                content["entries"].update(new)
                _replace(file, json.dumps(content, indent=1, sort_keys=True))
        except FAILURES as error:
            _warn(f"{error}; what was measured holds for this process only, the file is as it was")
            return False
    return True


def _first_read() -> dict[str, Entry]:
    """The entries that are dictionaries; what else stands there stays in the file."""
    try:
        kept = read(file)["entries"] if (file := path()) else {}
    except FAILURES as error:
        _warn(f"{error}; it is ignored")
        return {}
    return {key: value for key, value in kept.items() if isinstance(value, dict)}


def read(path: Path) -> dict[str, Any]:
    """The content of the file, or of an empty one; an UnusableError says what it is instead."""
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


def _replace(path: Path, text: str) -> None:
    """All of the new file or all of the old one: written and synced beside it, then renamed.  Through a link
    it is the file behind it that is replaced."""
    path = path.resolve()
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
