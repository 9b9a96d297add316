"""Run a suite: what is not done yet, command by command, each in a process of its own.

A process of its own gives every row its own peak memory, and one that fails takes no other with it.
"""

import shlex
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from catalign.baselines.environment import environments_folder, interpreter
from catalign.baselines.methods import METHODS
from catalign.bench.command import ended_by_terminate, run_command
from catalign.bench.leaderboard import leaderboard
from catalign.bench.steps import Plan, Step, needed, plan, read_record, record_file, record_of
from catalign.bench.suite import Suite
from catalign.errors import UserError
from catalign.files import whole_file, write_json
from catalign.progress import console
from catalign.training.recipe import choose_from
from catalign.version import source_state


def run_suite(
    suite: Suite, output: Path, data_root: Path, board: Path, *, command: str, only: Sequence[str] = ()
) -> list[str]:
    """Run the steps that are not done and write the leaderboard; steps after one that failed are left out.

    The board is also written where rows are missing, and names them.

    Args:
        suite: from `load_suite`.
        output: where everything goes; what an earlier call finished there is kept.
        data_root: folder that the sources are named from.
        board: the Markdown file.
        command: how this was called, for the board.
        only: data sets and methods to run now; the board shows whatever is done.

    Returns:
        The names of the steps that failed.

    Raises:
        UserError: `only` names nothing of the suite, a source is not there, `output` holds what was made otherwise, or
            a baseline has no environment.
    """
    planned = plan(suite, output, data_root)
    check(suite, planned, output, data_root)
    left = [step for step in chosen(suite, planned, only) if not step.done()]
    check_environments(left)
    done = sum(step.done() for step in planned.steps.values())
    console.print(f"{suite.name}: {len(planned.steps)} steps, {done} done, {len(left)} to do now")
    failed: list[str] = []
    missing: set[str] = set()
    with ended_by_terminate():
        for number, step in enumerate(left, 1):
            if missing & set(step.needs):
                missing.add(step.name)
                continue
            arguments = step.resume if step.begun and step.resume is not None else step.arguments
            console.print(f"[{number}/{len(left)}] catalign {shlex.join(arguments)}", markup=False, soft_wrap=True)
            if not run_step(step, arguments, output):
                failed.append(step.name)
                missing.add(step.name)
    with whole_file(board) as place:
        place.write_text(leaderboard(suite, planned, output, command=command), encoding="utf-8")
    return failed


def chosen(suite: Suite, planned: Plan, only: Sequence[str]) -> list[Step]:
    """Return the steps that the named data sets and methods take, in order; all where nothing is named.

    Data sets alone mean all of their methods, methods alone mean all data sets, both mean these methods on these sets.

    Raises:
        UserError: a name is neither.
    """
    for name in only:
        if name not in suite.data and name not in suite.methods:
            mend = choose_from(name, [*suite.data, *suite.methods])
            raise UserError(f"neither a data set nor a method of {suite.name}: {name}", where="--only", mend=mend)
    data = {name for name in only if name in suite.data} or set(suite.data)
    methods = {name for name in only if name in suite.methods} or set(suite.methods)
    wanted = [row.last for row in planned.rows if row.data in data and row.method in methods]
    return needed(planned, wanted)


def check(suite: Suite, planned: Plan, output: Path, data_root: Path) -> None:
    """Refuse, before anything runs, what would fail later or mix two suites.

    Raises:
        UserError: a source is not there, or `output` holds what was made otherwise.
    """
    for name, part in suite.data.items():
        if part.source is not None and not (data_root / part.source).is_dir():
            mend = "name the folder that holds it with --data"
            raise UserError(f"the source of {name} is not there", where=data_root / part.source, mend=mend)
    for step in planned.steps.values():
        before = read_record(step, output)
        if before is None and step.done():
            raise UserError("was not made by a suite", where=step.product, mend="choose another --output")
        known = record_of(step)
        if before is not None and any(before[name] != known[name] for name in known):
            mend = f"remove it with {record_file(step, output)} to make it anew, or choose another --output"
            raise UserError(f"was made otherwise: {_difference(before, known)}", where=step.product, mend=mend)


def check_environments(steps: Sequence[Step]) -> None:
    """Refuse baselines that cannot run here, before hours are spent on what stands before them.

    Raises:
        UserError: the environment of a library is not there.
    """
    names = [step.arguments[1] for step in steps if step.arguments[0] == "baseline"]
    for library in sorted({METHODS[name].library for name in names}):
        interpreter(library, environments_folder())


def run_step(step: Step, arguments: list[str], output: Path) -> bool:
    """Run one command and keep a record of it; whether it succeeded.

    Args:
        step: which.
        arguments: its own, or those to go on with.
        output: of the suite.
    """
    if step.recipe is not None:
        file = Path(step.arguments[1])
        with whole_file(file) as place:
            place.write_text(yaml.safe_dump(step.recipe, sort_keys=False, allow_unicode=True), encoding="utf-8")
    facts = {**record_of(step), "source": source_state(), "started": datetime.now(UTC).isoformat(timespec="seconds")}
    write_json(record_file(step, output), facts)
    began = time.monotonic()
    code = run_command(arguments)
    write_json(record_file(step, output), {**facts, "seconds": round(time.monotonic() - began, 1), "code": code})
    return code == 0 and step.done()


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The first thing in which two records differ."""
    old, new = before["recipe"] or {}, now["recipe"] or {}
    changed = [name for name in old | new if old.get(name) != new.get(name)]
    if changed:
        name = changed[0]
        return f"its recipe had {name} {old.get(name, 'not given')}, now {new.get(name, 'not given')}"
    return f"{shlex.join(before['command'])}, now {shlex.join(now['command'])}"
