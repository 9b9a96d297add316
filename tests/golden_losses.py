"""Golden losses: the first steps of every objective on the toy world, in float32, as they are in `tests/golden/`.

`make golden` writes the files anew and prints what changed. A commit that changes one says why the losses had to move.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # as in conftest.py, before toy imports transformers

from toy import make_dataset, make_model, series, works

FOLDER = Path(__file__).parent / "golden"
TOLERANCE = 1e-4  # relative; sums in another order on another machine
MSL = "msl"  # which the later stages go on from
FIRST: dict[str, list[object]] = {
    "lml": ["--objective", "lml"],
    MSL: ["--objective", "msl"],
    "msl+ats": [  # eight words begin a title: an eta just above an eighth lets the temperature move
        "--objective", "msl+ats", "--set", "objective.first_temperature=2", "--set", "objective.eta=0.135",
        "--set", "objective.momentum=0.5",
    ],
}  # fmt: skip
LATER: dict[str, list[object]] = {
    "soft": ["--stage", "soft", "--objective", "msl", "--curriculum", "linear"],
    "dmpo": ["--stage", "preference", "--objective", "dmpo", "--negatives-from", "uniform", "--negatives", 3],
}
NAMES = (*FIRST, *LATER)
USUAL: list[object] = [
    "--train-examples", 32, "--batch-size", 8, "--epochs", 2, "--learning-rate", 1e-3, "--seed", 0,
    "--precision", "float32", "--logging-steps", 1, "--no-validation",
]  # fmt: skip


def train_all(folder: Path) -> dict[str, list[float]]:
    """The loss of every step of every objective: 2 epochs of 4 steps each."""
    dataset = make_dataset(folder)
    model = make_model(dataset, folder / "lm")
    places = {name: ["--dataset", dataset, "--model", model] for name in FIRST}
    places |= {name: ["--from", folder / MSL] for name in LATER}
    losses = {}
    for name, options in (FIRST | LATER).items():
        works("train", *places[name], *options, *USUAL, "--output", folder / name)
        losses[name] = series(folder / name)
    return losses


def read(name: str) -> list[float]:
    """The losses that are kept."""
    losses: list[float] = json.loads((FOLDER / f"{name}.json").read_text())
    return losses


def largest_difference(kept: list[float], now: list[float]) -> float:
    """Relative, of any step; infinite where the numbers of steps differ."""
    if len(kept) != len(now):
        return float("inf")
    return max(abs(one - other) / abs(one) for one, other in zip(kept, now, strict=True))


def main() -> None:
    """Write the files anew."""
    with tempfile.TemporaryDirectory() as folder:
        losses = train_all(Path(folder))
    for name, now in losses.items():
        known = (FOLDER / f"{name}.json").is_file()
        difference = largest_difference(read(name), now) if known else float("inf")
        if difference <= TOLERANCE:
            sys.stdout.write(f"{name:8} as before (largest difference {difference:.1e})\n")
            continue
        sys.stdout.write(f"{name:8} {'changed' if known else 'new'} (largest difference {difference:.1e})\n")
        for step, loss in enumerate(now):
            before = f"{read(name)[step]:.6f}" if known and step < len(read(name)) else "-"
            sys.stdout.write(f"    step {step + 1:2}: {before} -> {loss:.6f}\n")
        (FOLDER / f"{name}.json").write_text(json.dumps(now, indent=1) + "\n")


if __name__ == "__main__":
    main()
