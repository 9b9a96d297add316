"""Kills at random moments, of every stage, each gone on with to its end: `make chaos` or `python -m benchmarks.chaos`.

Each stage is run once uninterrupted. Then it is run again, killed after a random time (SIGKILL, or SIGTERM), gone on
with, killed again, until it is finished; and what it made is compared with the run that nobody killed. That is repeated
until the stage has had its share of the kills. After some kills a file of the newest checkpoint is torn (cut short, or
a byte changed), as a loss of power would leave it.

A command is a process forked from one that has imported everything, so that kills fall into its work; the steps of a
suite start as a user's do.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.chaos_stages import SUITE, Arguments, Stage, make_shop, make_stages, needed
from catalign.files import read_json, write_json
from catalign.training.checkpoints import checkpoints

TERMINATED = (-signal.SIGTERM, 128 + signal.SIGTERM)
LONGEST = 1800  # seconds that a command may take, and that one may take to end after SIGTERM
TORN = 0.3  # of the kills that leave a checkpoint


@dataclass
class Outcome:
    """What a stage went through.

    Attributes:
        stage: its name.
        rounds: runs from the beginning to the end, killed in between.
        killed: by signal.
        torn: checkpoints that were damaged.
        moments: where it was when it was killed.
        differences: of the finished products from the one that was never killed; none, if all is well.
    """

    stage: str
    rounds: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    torn: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """All of them."""
        return sum(self.killed.values())


class Chaos:
    """Runs stages and kills them.

    Args:
        work: folder for everything.
        seed: of the moments and signals.
    """

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self._random = work, random.Random(seed)
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["benchmarks.chaos_preload"])

    def start(self, arguments: Arguments) -> BaseProcess:
        """Start a command; what it prints goes to a file."""
        process = self._context.Process(target=command, args=(arguments, self.work / "output.txt"))
        process.start()
        return process

    def run(self, arguments: Arguments) -> None:
        """Run a command that must succeed."""
        self.check(self.finish(self.start(arguments)), arguments)

    def finish(self, process: BaseProcess) -> int | None:
        """Wait for a command's end; its exit code."""
        process.join(LONGEST)
        if process.exitcode is None:
            process.kill()
            process.join()
            return None
        return process.exitcode

    def check(self, code: int | None, arguments: Arguments) -> None:
        """Stop everything where a command failed by itself."""
        if code != 0:
            told = (self.work / "output.txt").read_text(errors="replace")[-4000:]
            raise SystemExit(f"catalign {' '.join(arguments)}\nended with {code}:\n{told}")

    def reference(self, stage: Stage) -> float:
        """Run a stage uninterrupted, unless that was done before; the seconds it took."""
        record = self.work / "reference" / f"{stage.product}.seconds.json"
        if not record.exists():
            started = time.monotonic()
            self.run(stage.command(self.work / "reference" / stage.product))
            write_json(record, time.monotonic() - started)
        return float(read_json(record))

    def torment(self, stage: Stage, kills: int, seconds: float, until: float) -> Outcome:
        """Run a stage, killed so many times, or until a time; compare what it makes.

        Args:
            stage: which.
            kills: how many.
            seconds: that it takes uninterrupted.
            until: `time.monotonic()` after which it is not killed any more.
        """
        outcome, place = Outcome(stage.name), self.work / "killed" / stage.product
        while outcome.kills < kills and time.monotonic() < until and not outcome.differences:
            while not stage.finished(place):
                arguments = stage.next_command(place)
                process = self.start(arguments)
                left = until - time.monotonic()
                allowed = outcome.kills < kills and left > 0
                if allowed and stage.parts is not None:
                    self._wait_for_parts(process, stage.parts, place)
                else:
                    process.join(self._random.uniform(0, min(seconds, left)) if allowed else LONGEST)
                if process.exitcode is None and allowed:
                    self._kill(process, stage, place, outcome)
                else:
                    self.check(process.exitcode, arguments)
            outcome.rounds += 1
            outcome.differences += stage.differs(place, self.work / "reference" / stage.product)
            if not outcome.differences:
                shutil.rmtree(place)
        return outcome

    def _wait_for_parts(self, process: BaseProcess, parts: Callable[[Path], int], place: Path) -> None:
        """Return when one to four more parts are there than now, or the command has ended."""
        wanted = parts(place) + self._random.randint(1, 4)
        while process.exitcode is None and parts(place) < wanted:
            process.join(0.002)

    def _kill(self, process: BaseProcess, stage: Stage, place: Path, outcome: Outcome) -> None:
        """Kill a command by one signal or the other, and perhaps tear its newest checkpoint."""
        assert process.pid is not None
        name = self._random.choice(["SIGKILL", "SIGKILL", "SIGTERM"])
        os.kill(process.pid, signal.Signals[name])
        code = self.finish(process)
        if code == 0:  # it ended before the signal came
            return
        if code not in (-signal.SIGKILL, *TERMINATED):
            self.check(code, ["killed by", name])
        outcome.killed[name] += 1
        outcome.moments[stage.moment(place)] += 1
        if stage.checkpoints is not None and self._random.random() < TORN:
            outcome.torn += self._tear(stage.checkpoints(place))

    def _tear(self, folder: Path) -> int:
        """Damage a file of the newest checkpoint; 0 where there is none."""
        for newest in checkpoints(folder)[:1]:
            file = self._random.choice(sorted(path for path in newest.rglob("*") if path.is_file()))
            content = bytearray(file.read_bytes())
            if content and self._random.random() < 0.5:
                content[self._random.randrange(len(content))] ^= 1
            else:
                del content[self._random.randrange(len(content) + 1) :]
            file.write_bytes(content)
            return 1
        return 0


def command(arguments: Arguments, output: Path) -> None:
    """Run `catalign ARGUMENTS` in this process, in small parts, so that kills fall between them."""
    from catalign.cli.main import main
    from catalign.evaluation import evaluate
    from catalign.training import distillation

    evaluate.CHUNK = distillation.CHUNK = 8
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["catalign", *arguments]
    main()


def table(outcomes: list[Outcome]) -> str:
    """The outcomes as Markdown."""
    titles = ["stage", "runs", "SIGKILL", "SIGTERM", "torn checkpoints", "killed while", "result"]
    rows = [f"| {' | '.join(titles)} |", "|---|--:|--:|--:|--:|---|---|"]
    for each in outcomes:
        moments = ", ".join(f"{moment} {count}" for moment, count in each.moments.most_common())
        result = "; ".join(each.differences) or "the same"
        rows.append(
            f"| {each.stage} | {each.rounds} | {each.killed['SIGKILL']} | {each.killed['SIGTERM']} | {each.torn} "
            f"| {moments} | {result} |"
        )
    kills, torn = sum(each.kills for each in outcomes), sum(each.torn for each in outcomes)
    different = sum(bool(each.differences) for each in outcomes)
    return "\n".join([*rows, "", f"{kills} kills, {torn} torn checkpoints, {different} stages that differ."])


def main() -> None:
    """Parse, torment every stage, print; exit code 1 where something differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="of all stages together")
    parser.add_argument("--seconds", type=float, default=900, help="after so many since the first, nothing is killed")
    parser.add_argument("--seed", type=int, default=0, help="of moments and signals")
    parser.add_argument("--stages", nargs="+", help="only these")
    parser.add_argument(
        "--work", type=Path, help="folder for everything, with what is in it (default: a temporary one)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        chaos = Chaos(options.work or Path(scratch), options.seed)
        outcomes = torment_all(chaos, options.kills, options.seconds, options.stages)
    print(json.dumps([vars(each) for each in outcomes]) if options.json else table(outcomes))
    sys.exit(any(each.differences for each in outcomes))


def torment_all(chaos: Chaos, kills: int, seconds: float, names: list[str] | None) -> list[Outcome]:
    """Every stage, or those named; a stage that was quick leaves its time to the others."""
    if not (chaos.work / SUITE).exists():
        make_shop(chaos.work, chaos.run)
    stages = make_stages(chaos.work, chaos.work / "reference")
    chosen = [stage for stage in stages if names is None or stage.name in names]
    taken = {
        stage.name: chaos.reference(stage) for stage in needed(stages, [stage.name for stage in chosen])
    }  # fmt: skip
    deadline = time.monotonic() + seconds
    outcomes: list[Outcome] = []
    for number, stage in enumerate(chosen):
        share = stage.share / sum(each.share for each in chosen[number:])
        left = kills - sum(each.kills for each in outcomes)
        until = time.monotonic() + share * (deadline - time.monotonic())
        outcomes.append(chaos.torment(stage, round(share * left), taken[stage.name], until))
        print(f"{stage.name}: {outcomes[-1].kills} kills in {outcomes[-1].rounds} runs", file=sys.stderr)
    return outcomes


if __name__ == "__main__":
    main()
