"""`catalign bench`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from catalign.errors import UserError


def bench(
    suite: Annotated[Path, typer.Argument(help="A suite (YAML), such as recipes/leaderboard.yaml.")],
    output: Annotated[Path, typer.Option(help="Folder of everything that is made; what is finished there is kept.")],
    data: Annotated[Path, typer.Option(help="Folder that the sources of the suite are named from.")] = Path(),
    leaderboard: Annotated[Path, typer.Option(help="The Markdown file to write.")] = Path(
        "docs/results/leaderboard.md"
    ),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands that are not done, and stop.")] = False,
) -> None:
    """Run a suite of data sets, methods and seeds, and write its leaderboard; an interrupted one goes on.

    Every row is made by the commands that a person would type (catalign data, model, train, baseline, evaluate), each
    in a process of its own; --dry-run prints them. A row that fails is named on the board, the others go on.

    catalign bench recipes/leaderboard.yaml --data data --output runs/leaderboard
    """
    from catalign.bench.run import check, run_suite
    from catalign.bench.steps import plan
    from catalign.bench.suite import load_suite

    asked = load_suite(suite)
    if dry_run:
        planned = plan(asked, output, data)
        check(asked, planned, output, data)
        for step in planned.steps.values():
            if not step.done():
                typer.echo(shlex.join(["catalign", *step.arguments]))
        return
    failed = run_suite(asked, output, data, leaderboard, command=shlex.join(["catalign", *sys.argv[1:]]))
    if failed:
        what = f"{len(failed)} steps failed: {', '.join(failed)}"
        raise UserError(what, where=suite, mend="their messages stand above; the same command tries them again")
    typer.echo(str(leaderboard))
