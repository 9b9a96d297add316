import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from catalign.errors import UserError
from catalign.evaluation.metrics import NO_ITEM, ranks_of_targets, summarise
from catalign.evaluation.predictions import (
    PredictionWriter,
    draw_windows,
    metrics_of_predictions,
    ranked_array,
    read_predictions,
    read_settings,
)

SETTINGS = {"split": "test", "beams": 4, "score": "masked", "sample": {"count": None, "seed": 0}}
WINDOWS = pl.DataFrame(
    {
        "user_id": ["ann", "ann", "bob", "cat", "dan"],
        "history": [[0], [0, 1], [2], [3], [4]],
        "target": [1, 2, 3, 4, 0],
    },
    schema={"user_id": pl.String, "history": pl.List(pl.UInt32), "target": pl.UInt32},
)
RANKED_WK = np.array([[1, 0, 2, 3], [0, 2, 1, 3], [0, 1, 2, NO_ITEM], [0, 1, 3, 4], [2, 1, 0, 3]])
RANK_W = [1, 2, 0, 4, 3]
COUNTS_I = np.array([3, 2, 1, 1, 0])


def open_writer(folder: Path, **changes: Any) -> PredictionWriter:
    return PredictionWriter(folder, {**SETTINGS, **changes}, draw_windows(WINDOWS, None, 0), depth=4)


def write(writer: PredictionWriter, rows: int) -> None:
    """Predict the next `rows` windows that are left."""
    batch = writer.left.head(rows)
    ranked_BK = RANKED_WK[batch["window"].to_numpy()]
    writer.write(batch, ranked_BK, -ranked_BK.astype(np.float32))


def finished(folder: Path) -> Path:
    writer = open_writer(folder)
    write(writer, 2)
    write(writer, 2)
    write(writer, 1)
    return folder


def test_metrics_need_no_model(tmp_path: Path) -> None:
    folder = finished(tmp_path / "predictions")
    metrics = metrics_of_predictions(folder, COUNTS_I)
    users = WINDOWS["user_id"].to_numpy()
    warm_W = COUNTS_I[WINDOWS["target"].to_numpy()] > 0
    expected = summarise(np.array(RANK_W), warm_W, depth=4, groups_W=users)
    assert metrics == {**expected, "produced_by": SETTINGS}
    assert (metrics["cold"]["n"], metrics["ci95_over"]) == (1, "users")
    assert "hr@1" in metrics and "hr@5" not in metrics  # lists of 4


def test_files_hold_what_the_contract_says(tmp_path: Path) -> None:
    folder = finished(tmp_path / "predictions")
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"part-{number:05d}.parquet" for number in range(3)),
        "predictions.json",
        "windows.parquet",
    ]
    assert read_settings(folder) == {**SETTINGS, "depth": 4}
    predictions = read_predictions(folder)
    assert predictions.schema == {
        "window": pl.UInt32,
        "user_id": pl.String,
        "target": pl.UInt32,
        "ranked": pl.List(pl.UInt32),
        "scores": pl.List(pl.Float32),
    }
    assert predictions["window"].to_list() == [0, 1, 2, 3, 4]
    assert predictions["ranked"][2].to_list() == [0, 1, 2]  # NO_ITEM is not stored
    assert predictions["scores"][2].to_list() == [0, -1, -2]
    assert np.array_equal(ranked_array(predictions["ranked"], 4), RANKED_WK)
    assert ranks_of_targets(RANKED_WK, WINDOWS["target"].to_numpy().astype(np.int64)).tolist() == RANK_W


def test_goes_on_where_it_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    write(open_writer(folder), 2)
    resumed = open_writer(folder)
    assert resumed.left["window"].to_list() == [2, 3, 4]
    assert resumed.left["history"].to_list() == [[2], [3], [4]]  # what the decoder needs passes through
    write(resumed, 3)
    assert len(open_writer(folder).left) == 0
    assert read_predictions(folder).equals(read_predictions(finished(tmp_path / "in one go")))


def test_a_kill_while_writing_leaves_whole_parts(tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    write(open_writer(folder), 2)
    script = (
        "import os, signal, sys; from pathlib import Path; from catalign.files import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as partial:\n"
        "    partial.write_bytes(b'PAR1 half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(folder / "part-00001.parquet")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert any(folder.glob(".*.partial-*"))
    resumed = open_writer(folder)
    assert resumed.left["window"].to_list() == [2, 3, 4]
    assert not any(folder.glob(".*.partial-*"))


def test_other_settings_are_named(tmp_path: Path) -> None:
    folder = finished(tmp_path / "predictions")
    with pytest.raises(UserError, match=r"\(beams 4 there, 10 now\)") as error:
        open_writer(folder, beams=10)
    assert str(folder) in str(error.value)
    with pytest.raises(UserError, match="checkpoint None there, 'step-3' now"):
        open_writer(folder, checkpoint="step-3")
    with pytest.raises(UserError, match="other windows"):
        PredictionWriter(folder, SETTINGS, draw_windows(WINDOWS, 3, 0), depth=4)


def test_missing_and_doubled_windows_are_refused(tmp_path: Path) -> None:
    folder = finished(tmp_path / "predictions")
    middle = folder / "part-00001.parquet"
    kept = middle.read_bytes()
    middle.unlink()
    with pytest.raises(UserError, match=r"2 of 5 windows have no prediction \(the first: 2\)"):
        read_predictions(folder)
    resumed = open_writer(folder)
    assert resumed.left["window"].to_list() == [2, 3]
    write(resumed, 2)
    assert (folder / "part-00003.parquet").exists()  # the gap is not filled: no part is ever overwritten
    assert metrics_of_predictions(folder, COUNTS_I)["n"] == 5
    middle.write_bytes(kept)
    with pytest.raises(UserError, match=r"2 windows are predicted twice \(the first: 2\)"):
        read_predictions(folder)


def test_damaged_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_predictions(tmp_path)
    folder = finished(tmp_path / "predictions")
    part = folder / "part-00002.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"part-00002.parquet: cannot be read; remove it"):
        read_predictions(folder)
    WINDOWS.write_parquet(part)
    with pytest.raises(UserError, match="not a part of predictions"):
        read_predictions(folder)
    part.write_bytes(whole)
    with pytest.raises(UserError, match="target 4 is not in a catalogue of 3 items"):
        metrics_of_predictions(folder, COUNTS_I[:3])
    (folder / "predictions.json").write_text(json.dumps([]))
    with pytest.raises(UserError, match="not the settings of predictions"):
        read_predictions(folder)
    (folder / "predictions.json").unlink()
    with pytest.raises(UserError, match=r"parts but no predictions\.json"):
        open_writer(folder)


def test_writer_refuses_what_was_not_asked(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "predictions")
    batch = writer.left.head(2)
    write(writer, 1)
    with pytest.raises(ValueError, match="already written"):
        writer.write(batch, RANKED_WK[:2], RANKED_WK[:2] * 1.0)
    with pytest.raises(ValueError, match="depth 4"):
        writer.write(batch.tail(1), np.arange(5)[None], np.ones((1, 5)))
    assert len(writer.left) == 4


def test_drawing_windows() -> None:
    many = pl.DataFrame({"target": np.arange(100)})
    drawn = draw_windows(many, 30, seed=3)
    assert drawn["window"].to_list() == drawn["target"].to_list() == sorted(set(drawn["window"]))
    assert len(drawn) == 30
    assert drawn.equals(draw_windows(many, 30, seed=3))
    assert not drawn.equals(draw_windows(many, 30, seed=4))
    assert draw_windows(many, 1_000, seed=3)["window"].to_list() == list(range(100))
