"""A stand-in for the interpreter of a baseline's environment, and an environment that holds it."""

import sys
from pathlib import Path

from catalign.baselines import environment
from catalign.files import write_json

# What every stub begins with; `answer` writes lists that are the same for all windows, as a worker would.
BEGINNING = """
import json, sys
from pathlib import Path
import numpy as np
import polars as pl
folder = Path(sys.argv[2])
job = json.loads((folder / "job.json").read_text())

def lists(name, file, ranked):
    windows = pl.read_parquet(folder / f"{name}.parquet")["window"]
    scores = [float(-place) for place in range(len(ranked))]
    frame = pl.DataFrame({"window": windows, "ranked": [ranked] * len(windows), "scores": [scores] * len(windows)})
    frame.write_parquet(folder / f"{file}.parquet")

def answer(ranked, score=None):
    lists("targets", "valid-predictions", ranked)
    lists("asked", "predictions", ranked)
    place = {item: number for number, item in enumerate(ranked[:10])}
    targets = pl.read_parquet(folder / "targets.parquet")["target"].to_list()
    gains = [1 / np.log2(place[item] + 2) if item in place else 0.0 for item in targets]
    score = sum(gains) / len(gains) if score is None else score
    print(json.dumps({"event": "epoch", "trial": 1, "trials": 1, "epoch": 1, "score": score, "best": score}))
    trial = {"parameters": {"a": 1}, "ndcg@10": score, "seconds": 0.1}
    result = {"trials": [trial], "seconds": 0.1, "versions": {"python": "3", "stub": "1"}}
    (folder / "result.json").write_text(json.dumps(result))
"""


def environments_with(folder: Path, body: str, library: str = "rectools") -> Path:
    """Make environments whose interpreter runs `body` after `BEGINNING` instead of the worker."""
    place = folder / library
    (place / "bin").mkdir(parents=True)
    (place / "stub.py").write_text(BEGINNING + body)
    python = place / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{place / "stub.py"}" "$@"\n')
    python.chmod(0o755)
    write_json(place / environment.READY, {"requirements": environment._digest(library)})
    return folder
