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
    only: Annotated[
        list[str] | None,
        typer.Option(help="A data set or method to run now; may be repeated. The leaderboard shows all that is done."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands that are not done, and stop.")] = False,
) -> None:
    """Run a suite of data sets, methods and seeds, and write its leaderboard; an interrupted one goes on.

    Every row is made by the commands that a person would type (catalign data, model, train, baseline, evaluate), each
    in a process of its own; --dry-run prints them. A row that fails is named on the board, the others go on.

    catalign bench recipes/leaderboard.yaml --data data --output runs/leaderboard
    """
    from catalign.bench.run import check, chosen, run_suite
    from catalign.bench.steps import plan
    from catalign.bench.suite import load_suite

    asked = load_suite(suite)
    if dry_run:
        planned = plan(asked, output, data)
        check(asked, planned, output, data)
        for step in chosen(asked, planned, only or []):
            if not step.done():
                typer.echo(shlex.join(["catalign", *step.arguments]))
        return
    command = shlex.join(["catalign", *without_parts(sys.argv[1:])])
    failed = run_suite(asked, output, data, leaderboard, command=command, only=only or [])
    if failed:
        what = f"{len(failed)} steps failed: {', '.join(failed)}"
        raise UserError(what, where=suite, mend="their messages stand above; the same command tries them again")
    typer.echo(str(leaderboard))


def without_parts(arguments: list[str]) -> list[str]:
    """The command that makes all of the board: without `--only NAME`, however it was split."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and not argument.startswith("--only="):
            kept.append(argument)
        skip = argument == "--only"
    return [argument for argument in kept if argument != "--only"]
