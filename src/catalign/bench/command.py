"""One command in a process of its own, which ends with the one that started it."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_STANDARD_ERROR = 2  # the file descriptor


def run_command(arguments: list[str]) -> int:
    """Run `catalign ARGUMENTS` in a process of its own and return its exit code; it prints to standard error."""
    process = subprocess.Popen([sys.executable, "-m", "catalign", *arguments], stdout=_STANDARD_ERROR)
    try:
        return process.wait()
    finally:
        if process.poll() is None:  # we are interrupted: a training writes its checkpoint first
            process.terminate()
            process.wait()


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
