"""Dynamic batching: one thread runs the model, on as many waiting jobs at once as may share a batch.

A job waits until its batch is full or `max_wait` seconds have passed since it came, whichever is first, or longer
while the model is busy. Jobs of different kinds never mix: each says which others it may meet (`mates`).
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

log = logging.getLogger(__name__)


class Job(Protocol):
    """One piece of work for the model."""

    @property
    def mates(self) -> Hashable:
        """Jobs with equal `mates` may be computed in one batch."""

    @classmethod
    def run(cls, jobs: Sequence[Self]) -> list[Any]:
        """The results of some jobs that are mates, in their order."""


class QueueFull(Exception):
    """As many jobs are waiting as may wait."""


class Closed(Exception):
    """The service is shutting down and takes no more work."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    job: Job
    came: float
    answer: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class Batcher:
    """A bounded queue and the thread that works it off.

    Args:
        max_wait: seconds that a job waits for mates.
        batch_size: jobs in one batch.
        queue_size: jobs that may wait.
        watch: told about every batch: the number of its jobs and the seconds it took.
    """

    def __init__(
        self, *, max_wait: float, batch_size: int, queue_size: int, watch: Callable[[int, float], None] | None = None
    ) -> None:
        self._max_wait, self._batch_size, self._queue_size = max_wait, batch_size, queue_size
        self._watch = watch
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="catalign-model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._waiting)

    async def submit(self, job: Job) -> Any:
        """The result of a job, when its batch is done. A caller that gives up takes its job out of the queue.

        Raises:
            QueueFull: too many jobs are waiting.
            Closed: `close` was called.
        """
        loop = asyncio.get_running_loop()
        entry = _Waiting(job, time.monotonic(), loop.create_future(), loop)
        with self._changed:
            if self._closing:
                raise Closed
            if len(self._waiting) >= self._queue_size:
                raise QueueFull
            self._waiting.append(entry)
            self._changed.notify()
        try:
            return await entry.answer
        except asyncio.CancelledError:
            with self._changed:
                if entry in self._waiting:
                    self._waiting.remove(entry)
            raise

    def close(self) -> None:
        """Take no more jobs, finish those that were taken, and return when all is done."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next_batch():
            started = time.monotonic()
            self._run(batch)
            if self._watch is not None:
                self._watch(len(batch), time.monotonic() - started)

    def _next_batch(self) -> list[_Waiting]:
        """The oldest job and its mates; empty when the queue is closed and worked off."""
        with self._changed:
            while True:
                if not self._waiting:
                    if self._closing:
                        return []
                    self._changed.wait()
                    continue
                oldest = self._waiting[0]
                mates = oldest.job.mates
                batch = [entry for entry in self._waiting if entry.job.mates == mates][: self._batch_size]
                left = oldest.came + self._max_wait - time.monotonic()
                if len(batch) == self._batch_size or left <= 0 or self._closing:
                    taken = set(map(id, batch))
                    self._waiting = deque(entry for entry in self._waiting if id(entry) not in taken)
                    return batch
                self._changed.wait(left)

    def _run(self, batch: list[_Waiting]) -> None:
        """Compute a batch; where that fails each job alone, so that only the guilty one fails."""
        jobs = [entry.job for entry in batch]
        try:
            results = type(jobs[0]).run(jobs)
        except Exception as error:
            if len(batch) > 1:
                log.warning("a batch of %d failed (%s); its requests are tried one by one", len(batch), error)
                for entry in batch:
                    self._run([entry])
                return
            _tell(batch[0], error=error)
            return
        for entry, result in zip(batch, results, strict=True):
            _tell(entry, result=result)


def _tell(entry: _Waiting, *, result: Any = None, error: Exception | None = None) -> None:
    """Hand the outcome to the event loop that waits for it, unless it is gone."""

    def settle() -> None:
        if entry.answer.done():
            return
        if error is None:
            entry.answer.set_result(result)
        else:
            entry.answer.set_exception(error)

    try:
        entry.loop.call_soon_threadsafe(settle)
    except RuntimeError:
        log.debug("the event loop that asked is closed")
