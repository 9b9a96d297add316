"""The service under load: `python -m benchmarks.serving --run RUN --quick --json`.

A server (`catalign serve`, a process of its own) and an asyncio client on one machine, over loopback, with as many
connections as named, each asking again as soon as it is answered. Histories are drawn from the run's catalogue with a
seed. Six parts:

- load: 64 connections; failed answers, throughput, median and 99th percentile of the latency.
- batching: 32 clients against a server that computes batches, and against one that computes requests one at a time;
  `ratio` is the median of the throughputs, batched over single, in alternating rounds.
- updates: changes of the catalogue over 16 connections while 16 clients ask. Every answer is held against the version
  that it names: an item that this version did not have, or that was not available, is a wrong answer.
- soak: load for some seconds and the resident memory of the server through it.
- cost: without a server, the processor time of a request in batches of 1 to 32, which other jobs on the machine disturb
  less than a throughput; `ratio` is one at a time over 32.
- returning: without a server, the processor time of a request of people who come back with one item more, with a cache
  of prompt states and without, for the template of the run and for `instruction`; `same` compares the answers.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.setting import SEED, make_parser, parse_options, print_result
from catalign.catalogue.catalogue import Catalogue
from catalign.decoding.prompt_states import PromptStates
from catalign.decoding.recommend import CatalogueSearch
from catalign.prompting.templates import load_template
from catalign.training.run import CATALOGUE, Run, load_run, prompter_of

LOAD_CLIENTS, BATCH_CLIENTS, UPDATE_CLIENTS = 64, 32, 16
CHANGERS = 16  # connections that change the catalogue
CHANGING = 10  # items that each of them makes available or not
PROGRAM = "from catalign.cli.main import main; main()"


@dataclass
class Tally:
    """What some clients saw.

    Attributes:
        seconds: latency of every answer.
        failed: answers that were not 200, or broken connections.
        wrong: answers that did not fit their version.
        elapsed: of the whole round.
    """

    seconds: list[float] = field(default_factory=list)
    failed: int = 0
    wrong: int = 0
    elapsed: float = 0.0

    def summary(self) -> dict[str, float]:
        """Throughput and latency in numbers."""
        latency = np.array(self.seconds) * 1000
        return {
            "answers": len(latency),
            "failed": self.failed,
            "per_second": round(len(latency) / self.elapsed, 1),
            "p50_ms": round(float(np.percentile(latency, 50)), 1),
            "p99_ms": round(float(np.percentile(latency, 99)), 1),
        }


@contextlib.contextmanager
def server(run: Path, *options: str) -> Iterator[tuple[int, int]]:
    """Start `catalign serve` on a free port; yield port and process id."""
    command = [sys.executable, "-c", PROGRAM, "serve", str(run), "--port", "0", *options]
    log = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert log.stderr is not None
        found = next(match for line in log.stderr if (match := re.search(r"http://127.0.0.1:(\d+)", line)))
        threading.Thread(target=log.stderr.read, daemon=True).start()  # a full pipe would stop the server
        yield int(found[1]), log.pid
    finally:
        log.send_signal(signal.SIGTERM)
        log.wait()


class Connection:
    """One kept connection that posts JSON; a few lines, so that the client is not what is measured."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        content = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n"
        )
        writer.write(head.encode() + b"\r\n" + content)
        header = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = re.search(r"content-length: (\d+)", header)
        answer = await reader.readexactly(int(length[1]) if length else 0)
        return int(header.split(" ", 2)[1]), json.loads(answer)

    def close(self) -> None:
        """Leave."""
        if self._streams is not None:
            self._streams[1].close()


def questions(run: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Histories of one to ten items, without end."""
    ids = Catalogue.load(run / CATALOGUE).item_ids
    generator = np.random.default_rng(seed)
    while True:
        history = generator.choice(len(ids), size=int(generator.integers(1, 11)))
        yield {"history": [ids[item] for item in history], "k": 10, "unknown_items": "skip"}


async def ask(
    port: int, run: Path, clients: int, going: Callable[[int], bool], check: Callable[[Any], bool] = lambda _: True
) -> Tally:
    """Let clients ask while `going(answers so far)`."""
    tally = Tally()

    async def client(number: int) -> None:
        connection, asked = Connection(port), questions(run, SEED + number)
        while going(len(tally.seconds)):
            started = time.perf_counter()
            try:
                status, answer = await connection.post("/v1/recommend", next(asked))
            except (OSError, asyncio.IncompleteReadError):
                tally.failed += 1
                connection = Connection(port)
                continue
            tally.seconds.append(time.perf_counter() - started)
            tally.failed += status != 200
            tally.wrong += status == 200 and not check(answer)
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    tally.elapsed = time.perf_counter() - started
    return tally


def measure_load(run: Path, answers: int) -> dict[str, Any]:
    """64 connections."""
    with server(run) as (port, _):
        asyncio.run(ask(port, run, LOAD_CLIENTS, lambda done: done < 128))
        return asyncio.run(ask(port, run, LOAD_CLIENTS, lambda done: done < answers)).summary()


def measure_batching(run: Path, answers: int, rounds: int) -> dict[str, Any]:
    """Batched against one at a time, in alternating rounds."""
    with server(run) as (batched, _), server(run, "--batch-size", "1", "--max-wait-ms", "0") as (single, _):
        found: dict[str, list[dict[str, float]]] = {"batched": [], "single": []}
        for _ in range(rounds):
            for name, port in (("batched", batched), ("single", single)):
                tally = asyncio.run(ask(port, run, BATCH_CLIENTS, lambda done: done < answers))
                found[name].append(tally.summary())
    ratios = [a["per_second"] / b["per_second"] for a, b in zip(found["batched"], found["single"], strict=True)]
    return {"ratio": round(statistics.median(ratios), 2), "ratios": [round(ratio, 2) for ratio in ratios], **found}


async def _change(port: int, run: Path, updates: int, rebuilding: int, seconds: float) -> dict[str, Any]:
    """Clients ask while others change the catalogue, each of them items of its own; after `seconds` they stop."""
    ids = Catalogue.load(run / CATALOGUE).item_ids
    log: list[tuple[int, str, bool]] = []  # version, item, whether it may be recommended from then on
    answers: list[tuple[int, list[str]]] = []
    left = iter(range(updates))
    state = {"changing": CHANGERS, "failed": 0}

    def keep(answer: Any) -> bool:
        answers.append((answer["catalogue_version"], [item["item_id"] for item in answer["items"]]))
        return True

    async def change(changer: int) -> None:
        connection, generator = Connection(port), np.random.default_rng(SEED + changer)
        is_open = dict.fromkeys(ids[changer : CHANGING * CHANGERS : CHANGERS], True)
        new = f"new-{changer}"
        is_new = False
        for number in left:
            if time.perf_counter() - started > seconds:
                break
            if number % rebuilding == 0:
                item, opens = new, not is_new
                added = [{"item_id": new, "title": f"{new} of the shop"}]
                body: dict[str, Any] = {"add": added} if opens else {"retire": [new]}
                is_new = opens
            else:
                item = list(is_open)[int(generator.integers(len(is_open)))]
                opens = is_open[item] = not is_open[item]
                body = {"available": {item: opens}}
            status, answer = await connection.post("/v1/items", body)
            if status == 200:
                log.append((answer["catalogue_version"], item, opens))
            else:
                state["failed"] += 1
        state["changing"] -= 1

    started = time.perf_counter()
    asking = asyncio.create_task(ask(port, run, UPDATE_CLIENTS, lambda _: state["changing"] > 0, keep))
    await asyncio.gather(*map(change, range(CHANGERS)))
    tally = await asking
    return {
        "updates": len(log), "rebuilding": sum(item.startswith("new-") for _, item, _ in log),
        "failed_updates": state["failed"],
        "versions": max(version for version, _, _ in log), "seconds": round(time.perf_counter() - started, 1),
        "wrong": _wrong(ids, log, answers), "versions_asked": len({version for version, _ in answers}),
        **tally.summary(),
    }  # fmt: skip


def _wrong(ids: list[str], log: list[tuple[int, str, bool]], answers: list[tuple[int, list[str]]]) -> int:
    """Answers that hold an item which their version did not have or did not recommend."""
    opened, wrong, done = set(ids), 0, 0
    log = sorted(log, key=lambda change: change[0])
    for version, items in sorted(answers, key=lambda answer: answer[0]):
        while done < len(log) and log[done][0] <= version:
            _, item, opens = log[done]
            (opened.add if opens else opened.discard)(item)
            done += 1
        wrong += not opened.issuperset(items)
    return wrong


def measure_updates(run: Path, updates: int, rebuilding: int, seconds: float) -> dict[str, Any]:
    """Changes during load; every `rebuilding`-th adds or retires an item, the others change availability."""
    with server(run) as (port, _):
        return asyncio.run(_change(port, run, updates, rebuilding, seconds))


async def _soak(port: int, pid: int, run: Path, seconds: float) -> dict[str, Any]:
    """Load, and the memory through it."""
    end = time.monotonic() + seconds
    memory: list[float] = []

    async def watch() -> None:
        while time.monotonic() < end:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
            await asyncio.sleep(seconds / 20)

    tally, _ = await asyncio.gather(ask(port, run, UPDATE_CLIENTS, lambda _: time.monotonic() < end), watch())
    return {"seconds": seconds, **tally.summary(), "memory_mib": [round(mib, 1) for mib in memory]}


def measure_soak(run: Path, seconds: float) -> dict[str, Any]:
    """Load for some time."""
    with server(run) as (port, pid):
        return asyncio.run(_soak(port, pid, run, seconds))


def _processor_seconds(search: CatalogueSearch, batches: list[list[list[int]]]) -> list[float]:
    """For each batch the processor time of one of its requests, in milliseconds."""
    spent = []
    for batch in batches:
        before = time.process_time()
        search.recommend_all(batch, 10)
        spent.append(1000 * (time.process_time() - before) / len(batch))
    return spent


def _histories(run: Run, count: int, length: int | None = None) -> list[list[int]]:
    """Histories of one to ten items, or of a given length."""
    generator = np.random.default_rng(SEED)
    items = len(run.catalogue)
    return [generator.choice(items, size=length or int(generator.integers(1, 11))).tolist() for _ in range(count)]


def measure_cost(run: Run, rounds: int) -> dict[str, Any]:
    """Processor time of a request by the size of its batch."""
    search = CatalogueSearch(run.model, run.prompter, beams=10, exclude_history=True, batch_size=BATCH_CLIENTS)
    histories = _histories(run, 2 * BATCH_CLIENTS)
    search.recommend_all(histories[:BATCH_CLIENTS], 10)
    found: dict[str, float] = {}
    for size in (1, 4, 16, BATCH_CLIENTS):
        batches = [histories[start : start + size] for start in range(0, len(histories), size)]
        found[str(size)] = statistics.median(
            statistics.mean(_processor_seconds(search, batches)) for _ in range(rounds)
        )
    ratio = found["1"] / found[str(BATCH_CLIENTS)]
    return {"processor_ms": {size: round(spent, 2) for size, spent in found.items()}, "ratio": round(ratio, 2)}


def measure_returning(run: Run, people: int, visits: int) -> dict[str, Any]:
    """Processor time of people who come back, one request after the other and 32 together."""
    found: dict[str, Any] = {"same": True}
    for name in dict.fromkeys((run.prompter.template.name, "instruction")):
        template = run.prompter.template if name == run.prompter.template.name else load_template(name)
        prompter = prompter_of(run.recipe, run.model, run.catalogue, template)
        whole = _histories(run, people, 10)
        tokens = np.mean([len(prompter.prompt(history)) for history in whole])
        states = PromptStates(1 << 30)
        searches = [
            CatalogueSearch(run.model, prompter, beams=10, exclude_history=True, states=kept) for kept in (None, states)
        ]
        found[name] = {"prompt_tokens": round(float(tokens), 1)}
        for size in (1, BATCH_CLIENTS):
            spent: list[list[float]] = [[], []]
            for length in range(11 - visits, 11):  # the first visit is not counted
                visit = [history[:length] for history in whole]
                batches = [visit[start : start + size] for start in range(0, people, size)]
                for search, seconds in zip(searches, spent, strict=True):
                    came = _processor_seconds(search, batches)
                    seconds.extend(came if length > 11 - visits else [])
            one, other = (search.recommend_all(visit, 10) for search in searches)
            found["same"] &= bool((one[0] == other[0]).all() and np.allclose(one[1], other[1], rtol=1e-5, atol=1e-5))
            without, kept_ms = map(statistics.median, spent)
            found[name][f"batches_of_{size}"] = {"without_ms": round(without, 2), "with_ms": round(kept_ms, 2)}
            found[name]["bytes_per_person"] = states.bytes // people
            states = searches[1].states = PromptStates(1 << 30)
    return found


def main() -> None:
    """Run the parts that were asked for and print them."""
    parser = make_parser(__doc__, own_data=False)
    parser.add_argument("--run", type=Path, required=True, help="a run folder")
    parser.add_argument("--parts", nargs="+", default=["load", "batching", "updates", "soak"], help="which of the six")
    parser.add_argument("--updates", type=int, default=None, help="changes of the catalogue (10,000; quick 200)")
    parser.add_argument(
        "--seconds", type=float, default=None, help="length of the soak (300; quick 10); most for updates"
    )
    options = parse_options(parser)
    quick = options.quick
    found: dict[str, Any] = {}
    if "load" in options.parts:
        found["load"] = measure_load(options.run, 500 if quick else 5000)
    if "batching" in options.parts:
        found["batching"] = measure_batching(options.run, 300 if quick else 1500, 3 if quick else 5)
        found["ratio"] = found["batching"]["ratio"]
    if "updates" in options.parts:
        most = options.updates or (200 if quick else 10_000)
        found["updates"] = measure_updates(options.run, most, 20, options.seconds or float("inf"))
    if "soak" in options.parts:
        found["soak"] = measure_soak(options.run, options.seconds or (10 if quick else 300))
    if {"cost", "returning"} & set(options.parts):
        run = load_run(options.run)
        if "cost" in options.parts:
            found["cost"] = measure_cost(run, 1 if quick else 5)
        if "returning" in options.parts:
            found["returning"] = measure_returning(
                run, BATCH_CLIENTS if quick else 4 * BATCH_CLIENTS, 2 if quick else 6
            )
            assert found["returning"]["same"]
    found["load_average"] = os.getloadavg()[0]  # of the machine, at the end
    found["same"] = all(found[part].get(name, 0) == 0 for part in ("load", "updates", "soak") if part in found
                        for name in ("failed", "wrong", "failed_updates"))  # fmt: skip
    print_result(found, options.json)


if __name__ == "__main__":
    main()
