"""Self-distillation (SOFT): a trained run answers every training prompt, and its answers become an easier training set.

Answers are streamed to Parquet part by part, as predictions are, so a killed distillation goes on where it was. A
distillation folder holds

    distillation.json   what produced it: teacher, mode, beams, answers kept, the windows
    part-00000.parquet  window (UInt32 number of the training window), texts (List(String)), items (List(UInt32), null
                        where a text is no real title), scores (List(Float32), log-probabilities), best first
    statistics.json     share of real titles, share equal to the truth, seconds; its presence marks the end
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from catalign.catalogue.catalogue import Catalogue
from catalign.data.writing import write_parquet
from catalign.decoding.generation import generate_in_batches
from catalign.decoding.recommend import CatalogueSearch
from catalign.errors import UserError
from catalign.evaluation.predictions import refuse_difference
from catalign.files import read_json, whole_file, write_json
from catalign.model.language_model import LanguageModel
from catalign.processes import count, is_main, rank, wait_for_all
from catalign.progress import progress_bar
from catalign.prompting.prompter import Prompter
from catalign.training.batches import Windows
from catalign.training.run import Run
from catalign.training.soft_settings import Distillation

CHUNK = 512  # windows of one part: what a killed distillation loses at most
SETTINGS, STATISTICS = "distillation.json", "statistics.json"
SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "window": pl.UInt32,
    "texts": pl.List(pl.String),
    "items": pl.List(pl.UInt32),
    "scores": pl.List(pl.Float32),
}


@dataclass(frozen=True)
class Answers:
    """The teacher's answers to a batch of B prompts, best first; ragged lists where there are fewer than asked for.

    Attributes:
        texts: the answers as text.
        items: catalogue items, None where a text is no real title.
        scores: log-probabilities.
    """

    texts: list[list[str]]
    items: list[list[int | None]]
    scores: list[list[float]]


Histories = Sequence[npt.NDArray[np.uint32]]
Answer = Callable[[Histories], Answers]


def distil(teacher: Run, windows: Windows, settings: Distillation, folder: Path) -> pl.DataFrame:
    """Let the teacher answer every training window, or go on where a killed distillation of the same settings stopped.

    Several processes answer a part each in turn.

    Args:
        teacher: a finished run.
        windows: the training windows.
        settings: how it answers.
        folder: where the answers are kept.

    Returns:
        One row per window, in their order: the columns of `SCHEMA`.

    Raises:
        UserError: the folder holds answers of another teacher, of other windows or settings.
    """
    expected = check_distilled(teacher, windows, settings, folder)
    if is_main() and not (folder / SETTINGS).exists():
        write_json(folder / SETTINGS, expected)
    done = read_answers(folder)
    left = np.setdiff1d(np.arange(len(windows)), done["window"].to_numpy())
    next_part = max((int(part.stem.removeprefix("part-")) for part in folder.glob("part-*.parquet")), default=-1) + 1
    wait_for_all()  # each has seen the same parts
    seconds = _answer(teacher, windows, settings, folder, left, next_part)
    wait_for_all()
    answers = read_answers(folder)
    if is_main() and not (folder / STATISTICS).exists():
        write_json(folder / STATISTICS, {**statistics(answers, windows), "seconds": seconds, "timed": len(left)})
    wait_for_all()
    return answers


def check_distilled(teacher: Run, windows: Windows, settings: Distillation, folder: Path) -> dict[str, Any]:
    """Say what tells one distillation from another; refuse a folder that holds something else.

    Raises:
        UserError: the folder holds answers of another teacher, of other windows or settings, or no answers.
    """
    expected = {
        **settings.model_dump(),
        "teacher": teacher.checkpoint,
        "catalogue": teacher.catalogue.digest[:12],
        "windows": windows_digest(windows),
    }
    if (folder / SETTINGS).exists():
        refuse_difference(folder, read_json(folder / SETTINGS), expected)
    elif folder.is_dir() and any(folder.iterdir()):
        what = f"does not hold a teacher's answers (no {SETTINGS})"
        raise UserError(what, where=folder, mend="choose another folder")
    return expected


def statistics(answers: pl.DataFrame, windows: Windows) -> dict[str, float]:
    """Shares, over the best answer of each window: texts that are real titles, empty texts, answers that are true."""
    best = answers["items"].list.first()
    return {
        "windows": len(answers),
        "share_real": float(best.is_not_null().mean() or 0),  # type: ignore[arg-type]
        "share_empty": float((answers["texts"].list.first() == "").mean() or 0),  # type: ignore[arg-type]
        "share_true": float((best == pl.Series(windows.target_S)).fill_null(False).mean() or 0),  # type: ignore[arg-type]
    }


def _answer(
    teacher: Run, windows: Windows, settings: Distillation, folder: Path, left: npt.NDArray[np.int64], next_part: int
) -> float:
    """Answer the windows that are left, a part at a time; returns the seconds it took."""
    done = len(windows) - len(left)
    answer = answerer(teacher.model, teacher.prompter, teacher.catalogue, settings)
    started = time.monotonic()
    with progress_bar() as progress:
        task = progress.add_task("self-distilling", total=len(windows), completed=done, note="")
        for part in range(rank(), -(-len(left) // CHUNK), count()):
            numbers = left[part * CHUNK : (part + 1) * CHUNK]
            answers = answer([windows.histories[number] for number in numbers])
            frame = pl.DataFrame(
                {"window": numbers, "texts": answers.texts, "items": answers.items, "scores": answers.scores},
                schema=SCHEMA, strict=False,
            )  # fmt: skip
            with whole_file(folder / f"part-{next_part + part:05d}.parquet") as partial:
                write_parquet(frame, partial)
            answered = min((part + count()) * CHUNK, len(left))  # by all processes, about
            speed = answered / (time.monotonic() - started)
            progress.update(task, completed=done + answered, note=f"{speed:.0f} prompts/s")
    return round(time.monotonic() - started, 1)


def answerer(model: LanguageModel, prompter: Prompter, catalogue: Catalogue, settings: Distillation) -> Answer:
    """What answers histories as the settings say: with the best real items, or with the model's own text."""
    if settings.mode == "constrained":
        return _search_answers(model, prompter, catalogue, settings)
    return _free_answers(model, prompter, catalogue, settings)


def _search_answers(model: LanguageModel, prompter: Prompter, catalogue: Catalogue, settings: Distillation) -> Answer:
    """The best real items, by the search over the catalogue."""
    search = CatalogueSearch(model, prompter, beams=max(settings.beams, settings.best))

    def answer(histories: Histories) -> Answers:
        items_BK, scores_BK = search.recommend_all(histories, settings.best)
        items: list[list[int | None]] = [[item for item in row if item >= 0] for row in items_BK.tolist()]
        return Answers(
            texts=[[catalogue.titles[item] for item in row if item is not None] for row in items],
            items=items,
            scores=[row[: len(kept)] for row, kept in zip(scores_BK.tolist(), items, strict=True)],
        )

    return answer


def _free_answers(model: LanguageModel, prompter: Prompter, catalogue: Catalogue, settings: Distillation) -> Answer:
    """The model's own texts, as long as the longest title at most; beside them the items they happen to name."""
    longest, beams = int(prompter.trie.depth.max()), max(settings.beams, settings.best)

    def answer(histories: Histories) -> Answers:
        prompts = [prompter.prompt(history) for history in histories]
        texts: list[list[str]] = [[] for _ in prompts]
        scores: list[list[float]] = [[] for _ in prompts]
        for numbers, found in generate_in_batches(model, prompts, beams=beams, most_tokens=longest):
            rows = zip(numbers.tolist(), found.texts(model.tokenizer), found.score_BW.tolist(), strict=True)
            for number, row, row_scores in rows:
                texts[number] = [prompter.template.bare(text) for text in row[: settings.best]]
                scores[number] = row_scores[: settings.best]
        return Answers(texts, [[catalogue.find_title(text) for text in row] for row in texts], scores)

    return answer


def windows_digest(windows: Windows) -> str:
    """Tells two lists of windows apart."""
    digest = hashlib.sha256(windows.target_S.tobytes())
    for history in windows.histories:
        digest.update(np.asarray(history, dtype=np.uint32).tobytes() + b"|")
    return digest.hexdigest()[:12]


def read_answers(folder: Path) -> pl.DataFrame:
    """All answers that a distillation folder holds so far.

    Raises:
        UserError: a part cannot be read, or a window is answered twice.
    """
    frames = [pl.DataFrame(schema=SCHEMA)]
    for part in sorted(folder.glob("part-*.parquet")):
        try:
            frames.append(pl.read_parquet(part))
        except (OSError, pl.exceptions.PolarsError) as error:
            raise UserError("cannot be read", where=part, mend="remove it and run the same command again") from error
    answers = pl.concat(frames)
    if answers["window"].is_duplicated().any():
        raise UserError("holds two answers to one window", where=folder, mend="remove the folder")
    return answers.sort("window")
