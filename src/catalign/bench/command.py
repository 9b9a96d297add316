"""One command in a process of its own, which ends with the one that started it."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_STANDARD_ERROR = 2  # the file descriptor
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def run_command(arguments: list[str]) -> int:
    """Run `catalign ARGUMENTS` in a process of its own and return its exit code; it prints to standard error."""
    on_linux = sys.platform == "linux"
    process = subprocess.Popen(
        [sys.executable, "-m", "catalign", *arguments], stdout=_STANDARD_ERROR,
        preexec_fn=_end_with(os.getpid()) if on_linux else None,
    )  # fmt: skip
    try:
        return process.wait()
    finally:
        if process.poll() is None:  # we are interrupted: a training writes its checkpoint first
            process.terminate()
            process.wait()


def _end_with(parent: int) -> Callable[[], None]:
    """What a new process does first, on Linux: ask to be killed when its parent is, for it could not be told then.

    Else it would go on beside the command that a suite starts in its place when it is run again.
    """
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:  # which died meanwhile
            os._exit(1)

    return ask


@contextmanager
def ended_by_terminate() -> Iterator[None]:
    """Let SIGTERM end this process as an exception, so that the command in progress is ended too."""
    if threading.current_thread() is not threading.main_thread():  # no other may set handlers
        yield
        return

    def end(number: int, frame: Any) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
