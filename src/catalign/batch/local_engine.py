"""Parts answered here: in this process, or shared among those that a launcher started."""

from collections.abc import Iterator
from pathlib import Path

from catalign.batch.answering import PartAnswerer
from catalign.batch.settings import BatchSettings
from catalign.processes import count, rank


def answer_here(run: Path, output: Path, settings: BatchSettings, left: list[int]) -> Iterator[int]:
    """Write parts and yield the number of each; of several processes each takes them in turn."""
    mine = left[rank() :: count()]
    if mine:
        answerer = PartAnswerer(run, output, settings)
        for part in mine:
            answerer.write(part)
            yield part
