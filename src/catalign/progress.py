"""Progress bars that are silent where nobody watches."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining

console = Console(stderr=True, highlight=False)
"""Where progress and notes go: standard output belongs to results."""


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress display on standard error; in a pipe or a log file it prints nothing but the last state.

    When the work fails the display goes, so that the reason stands alone.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        Remaining(),
        TextColumn("{task.fields[note]}"),
    )
    progress = Progress(*columns, console=console)
    progress.start()
    try:
        yield progress
    except BaseException:
        progress.live.transient = True
        progress.live.stop()  # Progress.stop would leave an empty line in a pipe
        raise
    progress.stop()


results = Console(highlight=False)
"""Where results go: standard output."""
