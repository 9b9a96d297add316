"""The command line: one typer application, and how a user's mistake is told."""

import errno
import logging
import os
import sys
import warnings
from typing import Annotated

import typer

from catalign.cli import baseline, data, model
from catalign.cli.bench import bench
from catalign.cli.compare import compare
from catalign.cli.doctor import doctor
from catalign.cli.evaluate import evaluate
from catalign.cli.explain import explain
from catalign.cli.quickstart import quickstart
from catalign.cli.rank import rank
from catalign.cli.recommend import recommend
from catalign.cli.report import report
from catalign.cli.serve import serve
from catalign.cli.train import train
from catalign.errors import UserError
from catalign.version import version

app = typer.Typer(
    name="catalign",
    help="Fine-tune a language model to recommend from your own catalogue.",
    epilog="First time? catalign quickstart shows the whole path in a few minutes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(quickstart)
app.add_typer(data.app, name="data")
app.add_typer(model.app, name="model")
app.command()(train)
app.command()(evaluate)
app.command()(compare)
app.command()(report)
app.add_typer(baseline.app, name="baseline")
app.command()(bench)
app.command()(recommend)
app.command()(rank)
app.command()(explain)
app.command()(serve)
app.command()(doctor)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"catalign {version()}")
        raise typer.Exit


@app.callback()
def start(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print version and commit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what happens inside.")] = False,
) -> None:
    """Fine-tune a language model to recommend from your own catalogue."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s: %(message)s")
    if not verbose:
        quieten_libraries()


def quieten_libraries() -> None:
    """Keep the libraries' own progress bars and notices out of ours.

    By the environment, which they read when a command imports them: commands that need no model start at once.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    warnings.filterwarnings("ignore", category=FutureWarning)


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit code 2."""
    try:
        app()
    except UserError as error:
        _fail(str(error))
    except Exception as error:
        # A full disk may surface anywhere, also from inside libraries that write weights.
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error):
            _fail("the disk is full; free some space and run again")
        raise


def _fail(line: str) -> None:
    sys.stderr.write(f"catalign: {line}\n")
    sys.exit(2)
