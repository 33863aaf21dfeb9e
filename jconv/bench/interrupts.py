"""Ctrl-C that always comes through, and leaves no crash behind."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
AGAIN = 1.0  # seconds


@contextlib.contextmanager
def insisting() -> Iterator[None]:
    """Within it, `KeyboardInterrupt` is raised every second from Ctrl-C on until it has come out.

    Python raises it wherever it happens to be, and drops what is raised in a callback of the garbage
    collector, as jax has one, or of compiled code: one in 200 Ctrl-C's during the main job was dropped.
    Scopes may be nested; whoever catches the interrupt to finish something catches it outside the
    innermost.  A handler that is not Python's own stays, and so does everything where there are no timers
    or outside the main thread.
    """
    before = signal.getsignal(signal.SIGINT)
    ours = before in (signal.default_int_handler, _interrupt) and hasattr(signal, "setitimer")
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    alarm, hook = signal.signal(signal.SIGALRM, _interrupt), sys.unraisablehook
    signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = lambda dropped: None if dropped.exc_type is KeyboardInterrupt else hook(dropped)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGALRM, alarm)
        sys.unraisablehook = hook


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    signal.setitimer(signal.ITIMER_REAL, AGAIN)
    raise KeyboardInterrupt


def child(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit status of a process that a terminal's Ctrl-C does not reach: it ends with this one, which says
    so once."""
    return subprocess.run(command, env=environment, check=False, process_group=0).returncode


def leave(status: int) -> NoReturn:
    """Exit with that status; after an interrupt at once, without taking the interpreter apart: a
    computation may still run in a thread of XLA's (4 in 10 interrupted jobs ended in a segmentation fault).
    """
    if status == INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
