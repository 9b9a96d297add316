"""Batches of waiting jobs: who meets whom, how long one waits, what happens when it is too much."""

import asyncio
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import pytest

from catalign.serving.batcher import Batcher, Closed, QueueFull

SEEN: list[list[int]] = []


@dataclass
class Doubling:
    """Doubles a number; fails for 13; waits for `gate` first."""

    number: int
    kind: str = "even"
    gate: threading.Event = field(default_factory=threading.Event)

    @property
    def mates(self) -> Hashable:
        return self.kind

    @classmethod
    def run(cls, jobs: Sequence["Doubling"]) -> list[int]:
        assert len({job.kind for job in jobs}) == 1
        SEEN.append([job.number for job in jobs])
        for job in jobs:
            if job.kind == "slow":
                job.gate.wait(10)
        if any(job.number == 13 for job in jobs):
            raise RuntimeError("unlucky")
        return [2 * job.number for job in jobs]


@pytest.fixture(autouse=True)
def forget() -> None:
    SEEN.clear()


def make(max_wait: float = 0.05, batch_size: int = 4, queue_size: int = 100) -> Batcher:
    return Batcher(max_wait=max_wait, batch_size=batch_size, queue_size=queue_size)


def test_mates_share_batches_and_everybody_gets_their_own_answer() -> None:
    async def ask() -> list[int]:
        jobs = [Doubling(number, kind) for number in range(10) for kind in ("even", "odd")]
        return await asyncio.gather(*(batcher.submit(job) for job in jobs))

    batcher = make(max_wait=0.5)
    assert asyncio.run(ask()) == [2 * number for number in range(10) for _ in range(2)]
    batcher.close()
    assert sorted(map(len, SEEN)) == [2, 2, 4, 4, 4, 4]


def test_a_full_batch_does_not_wait_and_a_lone_job_waits_no_longer_than_the_bound() -> None:
    async def ask(count: int) -> None:
        await asyncio.gather(*(batcher.submit(Doubling(number)) for number in range(count)))

    batcher = make(max_wait=3600)
    asyncio.run(ask(4))
    batcher.close()
    batcher = make(max_wait=0)
    asyncio.run(ask(1))
    batcher.close()
    assert [len(batch) for batch in SEEN] == [4, 1]


def test_one_more_than_may_wait_is_refused() -> None:
    async def ask() -> None:
        blocked = Doubling(0, "slow")
        first = asyncio.create_task(batcher.submit(blocked))
        while batcher.waiting or not SEEN:  # until the worker has it
            await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(batcher.submit(Doubling(number))) for number in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await batcher.submit(Doubling(3))
        blocked.gate.set()
        assert await asyncio.gather(first, *waiting) == [0, 2, 4]

    batcher = make(max_wait=0, queue_size=2)
    asyncio.run(ask())
    batcher.close()


def test_a_failing_job_fails_alone() -> None:
    async def ask() -> list[object]:
        jobs = [batcher.submit(Doubling(number)) for number in (1, 13, 3)]
        return await asyncio.gather(*jobs, return_exceptions=True)

    batcher = make()
    one, failed, three = asyncio.run(ask())
    batcher.close()
    assert (one, three) == (2, 6) and isinstance(failed, RuntimeError)


def test_who_gives_up_leaves_the_queue() -> None:
    async def ask() -> None:
        blocked = Doubling(0, "slow")
        first = asyncio.create_task(batcher.submit(blocked))
        while batcher.waiting or not SEEN:
            await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await batcher.submit(Doubling(5))
        assert batcher.waiting == 0
        blocked.gate.set()
        await first

    batcher = make(max_wait=0)
    asyncio.run(ask())
    batcher.close()
    assert [5] not in SEEN


def test_closing_finishes_what_was_taken_and_takes_no_more() -> None:
    async def ask() -> list[int]:
        taken = [asyncio.create_task(batcher.submit(Doubling(number))) for number in range(3)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await asyncio.sleep(0.05)
        with pytest.raises(Closed):
            await batcher.submit(Doubling(9))
        await closing
        return await asyncio.gather(*taken)

    batcher = make(max_wait=60)  # nobody waits that long when the service closes
    assert asyncio.run(ask()) == [0, 2, 4]
