"""The few-shot grid on generated files: what it prints, what it keeps, and how it counts."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import toy
from catalign.errors import UserError
from fewshot_files import write_fewshot

ROOT = Path(__file__).parents[2]
WORDS = ("Red", "Blue", "Green", "Golden", "Silver", "Black")
THINGS = {"games": ("Racer", "Quest", "Puzzle"), "movies": ("Road", "House", "River")}
ROWS = ["SFT", "SFT + DMPO, k = 2", "SFT, pair prompt", "SFT, pair prompt + DMPO, k = 3"]


def write_domain(folder: Path, domain: str) -> None:
    """Eighteen titles, four training users of whom one has four negatives, and five to ask."""
    titles = [f"{word} {thing}" for thing in THINGS[domain] for word in WORDS]
    generator = np.random.default_rng(0)

    def user(negatives: int) -> Any:
        drawn = [titles[place] for place in generator.permutation(18)[: 4 + negatives]]
        return drawn[:3], drawn[3], drawn[4:], [bool(side) for side in generator.integers(2, size=negatives)]

    train = [user(5), user(5), user(4), user(5)]
    write_fewshot(folder, train, [user(1) for _ in range(5)], domain=domain)


def grid(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.syspath_prepend(ROOT)
    module = importlib.import_module("benchmarks.fewshot")
    monkeypatch.setattr(module, "CANDIDATES", 5)
    monkeypatch.setattr(sys, "argv", ["fewshot", *map(str, arguments)])
    module.main()


def test_the_grid(
    toy_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "files").mkdir()
    for domain in THINGS:
        write_domain(tmp_path / "files", domain)
    output = tmp_path / "out"
    asked = (
        tmp_path / "files", "--output", output, "--domains", *THINGS, "--unseen", toy_dataset, "--windows", 7,
        "--seeds", 0, 1, "--sft-epochs", 1, "--preference-epochs", 1,
    )  # fmt: skip
    grid(monkeypatch, *asked, "--rows", *ROWS)
    text = capsys.readouterr().out
    assert all(text.count(f"\n| {row} |") == 3 for row in ("base", "popularity", *ROWS))

    # Nothing is trained twice; what is missing of a killed grid is made, and nothing else.
    weights = {path: path.stat().st_mtime_ns for path in output.rglob("model.safetensors")}
    assert len(weights) == 2 + 2 * 2 * 4
    removed = next(output.glob("games-seed1/SFT+DMPO-k=2/scores/unseen-full.npy"))
    before = np.load(removed)
    removed.unlink()
    grid(monkeypatch, *asked, "--rows", *ROWS, "--json")
    result = json.loads(capsys.readouterr().out)
    assert {path: path.stat().st_mtime_ns for path in weights} == weights
    np.testing.assert_array_equal(np.load(removed), before)

    # The grid counts as the command does.
    rows = result["rows"]
    for folder, row, prompt in (("SFT+DMPO-k=2", ROWS[1], "history"), ("SFT-pairprompt", ROWS[2], "choices")):
        run = output / "games-seed0" / folder
        told = toy.evaluated(run, "--protocol", "pairs", "--prompt", prompt, "--score", "full")
        cells = rows["trained on"]["games"][row]
        assert cells["pairs of games"]["seeds"][0] == pytest.approx(told["accuracy"])
        if "auc" in told:
            assert cells["pooled AUC, own"]["seeds"][0] == pytest.approx(told["auc"], abs=1e-4)
    assert rows["overall"][ROWS[2]]["unseen, HR@1 of 20"] is None
    assert rows["overall"][ROWS[3]]["own domain, less SFT"] is not None

    # The user with four negatives is not trained on: three users with two negatives and a target each.
    reference = output / "games-seed0/reference/reference.parquet"
    assert pl.read_parquet(reference).height == 3 * 3

    with pytest.raises(UserError, match="was begun with other options"):
        grid(monkeypatch, *asked, "--beta", 0.5)


@pytest.fixture()
def rows(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.fewshot_rows")


def test_intervals_hold_users_and_seeds(rows: Any) -> None:
    generator = np.random.default_rng(0)
    users = np.arange(1_000)
    once = (generator.random((1, 1_000)) < 0.5).astype(float)
    alone = rows.interval([once], [users])
    half = (alone["ci95"][1] - alone["ci95"][0]) / 2
    assert half == pytest.approx(1.96 * once.std() / 1_000**0.5, rel=0.01)
    # Three equal seeds tell nothing that one did not; three that differ make the interval wide.
    assert rows.interval([np.repeat(once, 3, axis=0)], [users])["ci95"] == pytest.approx(alone["ci95"], abs=1e-3)
    apart = np.stack([once[0], np.ones(1_000), np.zeros(1_000)])
    low, high = rows.interval([apart], [users])["ci95"]
    assert high - low > 4.3 * 2 * 0.5 / 3**0.5  # Student's quantile of two degrees of freedom
    # Ten questions to each of a hundred users who answer alike are a hundred questions.
    alike = np.repeat(once[:, :100], 10, axis=1)
    of_users = rows.interval([alike], [np.repeat(np.arange(100), 10)])["ci95"]
    assert of_users == pytest.approx(rows.interval([once[:, :100]], [np.arange(100)])["ci95"])


def test_ties_share_the_first_place(rows: Any) -> None:
    scores = np.array([[3.0, 1.0, 2.0], [2.0, 2.0, 1.0], [2.0, 2.0, 2.0], [1.0, 2.0, 0.0]])
    assert rows.first_wins(scores).tolist() == pytest.approx([1, 1 / 2, 1 / 3, 0])
