"""Recommendations for every row of a file."""

from pathlib import Path

import polars as pl

from catalign.decoding.scores import ScoreMode
from catalign.errors import UserError
from catalign.files import whole_file
from catalign.progress import progress_bar
from catalign.recommender import Recommender

CHUNK = 256
ADDED = ("items", "titles", "probabilities")


def recommend_file(
    run: Path,
    source: Path,
    output: Path,
    *,
    k: int,
    beams: int | None,
    score: ScoreMode,
    exclude_history: bool,
    overwrite: bool,
) -> int:
    """Read histories from a file, write recommendations to another; every input column is kept.

    Args:
        run: run folder.
        source: Parquet or JSON lines with a list column `history` of item ids or titles, oldest first.
        output: Parquet or JSON lines (by its ending) with the columns `items`, `titles` and `probabilities` added.
        k, beams, score, exclude_history: see `Recommender.recommend`.
        overwrite: replace the output if it is there.

    Returns:
        The number of rows.

    Raises:
        UserError: unreadable input, a wrong column, or a row with an empty history or an unknown item (named).
    """
    if output.exists() and not overwrite:
        raise UserError("already exists", where=output, mend="choose another file or pass --overwrite")
    _check_ending(output)
    frame = read_histories(source)
    recommender = Recommender.load(run)
    histories = frame["history"].cast(pl.List(pl.String)).to_list()
    for row, history in enumerate(histories, 1):
        where = f"{source}, row {row}"
        if history is not None and None in history:
            raise UserError("the history holds a null", where=where, mend="remove it or name the item")
        try:
            recommender.indices(history or [], where="history")
        except UserError as error:
            raise UserError(str(error), where=where) from error
    found = []
    with progress_bar() as progress:
        task = progress.add_task("recommending", total=len(histories), note="")
        for start in range(0, len(histories), CHUNK):
            chunk = histories[start : start + CHUNK]
            found += recommender.recommend_many(chunk, k, beams=beams, score=score, exclude_history=exclude_history)
            progress.advance(task, len(chunk))
    frame = frame.with_columns(
        pl.Series("items", [[item.item_id for item in items] for items in found], dtype=pl.List(pl.String)),
        pl.Series("titles", [[item.title for item in items] for items in found], dtype=pl.List(pl.String)),
        pl.Series(
            "probabilities", [[item.probability for item in items] for items in found], dtype=pl.List(pl.Float64)
        ),
    )
    with whole_file(output) as partial:
        if output.suffix == ".parquet":
            frame.write_parquet(partial)
        else:
            frame.write_ndjson(partial)
    return len(frame)


def read_histories(source: Path) -> pl.DataFrame:
    """Read the input frame and check its `history` column."""
    if not source.is_file():
        raise UserError("no such file", where=source)
    _check_ending(source)
    try:
        frame = (
            pl.read_parquet(source) if source.suffix == ".parquet" else pl.read_ndjson(source, infer_schema_length=None)
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"cannot be read ({str(error).splitlines()[0]})", where=source) from error
    if "history" not in frame.columns:
        raise UserError("has no column 'history'", where=source, mend=f"its columns are {', '.join(frame.columns)}")
    kind = frame.schema["history"]
    if not isinstance(kind, pl.List) or not (kind.inner in (pl.String, pl.Null) or kind.inner.is_integer()):
        raise UserError(
            f"the column 'history' holds {kind}", where=source, mend="give a list of item ids or titles in each row"
        )
    added = [name for name in ADDED if name in frame.columns]
    if added:
        raise UserError(f"has a column '{added[0]}' already", where=source, mend="rename it: the output adds one")
    return frame


def _check_ending(path: Path) -> None:
    if path.suffix not in (".parquet", ".jsonl", ".ndjson"):
        raise UserError("neither Parquet nor JSON lines", where=path, mend="use the ending .parquet or .jsonl")
