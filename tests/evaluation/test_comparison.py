"""Comparisons of made-up runs: what the numbers are, how seeds are pooled, what is told and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from catalign.data.dataset import Dataset, load_dataset
from catalign.errors import UserError
from catalign.evaluation.cautions import Caution
from catalign.evaluation.comparison import Comparison, compare
from catalign.evaluation.floor import floor_rankings
from catalign.evaluation.metrics import ndcg, ranks_of_targets
from catalign.evaluation.predictions import metrics_of_predictions
from catalign.files import read_json, write_json
from made_runs import lists_with_target_at, made_run

Make = Callable[..., Path]
GOOD, POOR = [1, 2, 1, 0], [4, 0, 0, 7]


@pytest.fixture
def data(toy_dataset: Path) -> Dataset:
    return load_dataset(toy_dataset)


@pytest.fixture
def make(tmp_path: Path, data: Dataset) -> Make:
    """Make a run whose targets stand at given places."""

    def made(name: str, places: list[int], **changes: Any) -> Path:
        ranked_WK = lists_with_target_at(data, places, depth=changes.pop("depth", 10))
        return made_run(tmp_path / name, data, ranked_WK, **changes)

    return made


def texts(comparison: Comparison, kind: str) -> list[str]:
    return [caution.text for caution in comparison.cautions if caution.kind == kind]


def test_a_row_is_what_evaluate_says(make: Make, data: Dataset) -> None:
    run = make("msl", GOOD)
    comparison = compare([run], metrics=["ndcg@10", "hr@5", "mrr@10"])
    expected = metrics_of_predictions(run / "evaluations" / "test-all", data.training_counts())
    (row,) = comparison.rows
    for name, cell in row.metrics.items():
        assert (cell.mean, [cell.low, cell.high]) == (expected[name], expected["ci95"][name])
        assert cell.difference is None
    assert (row.label, row.chosen_on, row.settings["beams"]) == ("msl", "valid", 20)
    assert (comparison.windows, comparison.protocol, comparison.split) == (expected["n"], "full", "test")


def test_a_difference_is_on_the_same_windows(make: Make) -> None:
    comparison = compare([make("poor", POOR), make("good", GOOD)], metrics=["mrr@10"])
    assert comparison.reference == "good" and comparison.reference_is_best
    poor, good = comparison.rows
    difference = poor.metrics["mrr@10"].difference
    assert difference is not None and good.metrics["mrr@10"].difference is None
    assert difference.test.mean == pytest.approx(poor.metrics["mrr@10"].mean - good.metrics["mrr@10"].mean)
    assert difference.test.high < 0 and difference.p_holm == difference.test.p_permutation
    assert difference.p_holm == pytest.approx(2 / 2**6, abs=0.01)  # six users, all of one sign
    assert texts(comparison, "windows") == []


def test_holm_counts_all_differences_of_the_table(make: Make) -> None:
    runs = [make("a", GOOD), make("b", POOR), make("c", [0, 1, 0, 0])]
    cells = [row.metrics["hr@1"].difference for row in compare(runs, metrics=["hr@1"], baseline="a").rows]
    several = compare(runs, metrics=["hr@1", "hr@5", "hr@10"], baseline="a").rows
    smallest = min(cell.test.p_permutation for cell in cells if cell)
    assert min(cell.p_holm for cell in cells if cell) == pytest.approx(2 * smallest)
    found = [row.metrics["hr@1"].difference for row in several]
    assert min(cell.p_holm for cell in found if cell) == pytest.approx(6 * smallest)


def test_seeds_are_one_row(make: Make) -> None:
    """The mean over seeds window by window, the spread between their means apart."""
    places = [[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0]]
    runs = [make(f"msl-seed{seed}", of_seed, seed=seed) for seed, of_seed in enumerate(places)]
    comparison = compare([*runs, make("lml", GOOD, seed=0, recipe={"objective": {"name": "lml"}})], metrics=["hr@1"])
    pooled, alone = comparison.rows
    assert pooled.label == "msl" and len(pooled.folders) == 3
    spread = pooled.spread["hr@1"]
    shares = [compare([run], metrics=["hr@1"]).rows[0].metrics["hr@1"].mean for run in runs]
    assert (spread.seeds, spread.means) == ([0, 1, 2], pytest.approx(shares))
    assert spread.deviation == pytest.approx(np.std(shares, ddof=1))
    assert pooled.metrics["hr@1"].mean == pytest.approx(np.mean(shares))
    assert alone.spread["hr@1"].deviation is None
    assert texts(comparison, "seeds") == ["not every row has all the seeds: lml lacks 1, 2"]
    width = pooled.metrics["hr@1"].high - pooled.metrics["hr@1"].low
    assert width < min(
        cell.high - cell.low for cell in (compare([run], metrics=["hr@1"]).rows[0].metrics["hr@1"] for run in runs)
    )


def test_what_differs_in_more_than_the_seed_stays_apart(make: Make) -> None:
    wide = make("b", GOOD, seed=1, beams=40)
    other = make("c", GOOD, seed=1, recipe={"epochs": 3})
    assert [row.label for row in compare([make("a", GOOD, seed=0), wide, other]).rows] == ["a", "b", "c"]


def test_models_made_anew_for_each_seed_are_pooled(make: Make) -> None:
    runs = [make(f"x-seed{seed}", GOOD, seed=seed, recipe={"model": f"runs/lm-seed{seed}"}) for seed in (3, 4)]
    assert [row.label for row in compare(runs).rows] == ["x"]


def test_a_row_is_called_by_its_method_where_no_other_is(make: Make) -> None:
    alone = make("popularity-seed0", GOOD)
    assert [row.label for row in compare([alone]).rows] == ["popularity"]
    both = compare([alone, make("x", POOR, recipe={"epochs": 3})], floor=True)
    assert [row.label for row in both.rows] == ["popularity", "item-kNN", "item-kNN, ordered", "popularity-seed0", "x"]
    named = compare([make("popularity", GOOD)], floor=True)
    assert len({row.label for row in named.rows}) == 4, "the floor row of that name is not lost"


def test_one_seed_twice_is_no_further_seed(make: Make) -> None:
    comparison = compare([make("a", GOOD), make("b", POOR)])
    assert [row.label for row in comparison.rows] == ["a", "b"]
    assert "b has the recipe and the seed of another row" in " ".join(texts(comparison, "seeds"))


def test_baselines_are_rows_too(make: Make) -> None:
    """Their provenance has settings and a validation result instead of a recipe."""
    runs = [make(f"ease-seed{seed}", GOOD, seed=seed, score=None) for seed in (0, 1)]
    for seed, run in enumerate(runs):
        (run / "recipe.yaml").unlink()
        settings = {"method": "ease", "trials": 6, "seed": seed}
        write_json(run / "provenance.json", {"settings": settings, "valid": {"ndcg@10": 0.1, "windows": 9}})
    (row, other) = compare([*runs, make("msl", POOR)]).rows
    assert (row.label, row.chosen_on, row.spread["ndcg@10"].seeds) == ("ease", "valid", [0, 1])
    assert row.calibration is None and other.calibration is not None
    with pytest.raises(UserError, match="does not say which dataset it is of; pass it with --dataset"):
        compare(runs)


def test_the_floor_is_computed_for_the_same_windows(make: Make, data: Dataset) -> None:
    comparison = compare([make("msl", GOOD)], floor=True, baseline="item-kNN, ordered")
    assert [row.label for row in comparison.rows] == ["popularity", "item-kNN", "item-kNN, ordered", "msl"]
    assert comparison.reference == "item-kNN, ordered" and not comparison.reference_is_best
    windows = data.windows("test")
    ranked = floor_rankings(data.windows("train"), data.training_counts(), windows)
    target_W = windows["target"].to_numpy().astype(np.int64)
    for row in comparison.rows[:3]:
        expected = ndcg(ranks_of_targets(ranked[row.label], target_W), 10).mean()
        assert row.metrics["ndcg@10"].mean == pytest.approx(expected)
        assert row.chosen_on is None and row.folders == [] and row.calibration is None and row.lists is not None


def test_slices_are_means_over_their_windows(make: Make, data: Dataset) -> None:
    runs = [make("good", GOOD), make("poor", POOR)]
    comparison = compare(runs, by=["history-length", "repeat"], metrics=["hr@1"])
    lengths, _ = comparison.slice_tables
    assert [table.by for table in comparison.slice_tables] == ["history-length", "repeat"]
    assert sum(part.windows for part in lengths.slices) == comparison.windows
    mean = sum(part.cells["good"].mean * part.windows for part in lengths.slices) / comparison.windows
    assert mean == pytest.approx(comparison.rows[0].metrics["hr@1"].mean)
    differences = [part.cells["poor"].difference for part in lengths.slices]
    assert all(cell is not None and cell.p_holm >= cell.test.p_permutation for cell in differences)
    assert max(cell.p_holm / cell.test.p_permutation for cell in differences if cell) == pytest.approx(len(differences))


def test_probabilities_are_calibrated_by_title(make: Make, data: Dataset) -> None:
    """Promised one half, hit three times of four... the log-probabilities of the first places are log(1/2)."""
    (row,) = compare([make("msl", [1, 1, 1, 0])]).rows
    assert row.calibration is not None
    assert row.calibration.probability == pytest.approx(0.5)
    assert row.calibration.hit_rate == pytest.approx(row.calibration.error + 0.5, abs=0.15)
    for changes in ({"length_penalty": 1.0}, {"score": None, "decoder": "grounding"}):
        name = "-".join(changes)
        assert compare([make(name, GOOD, **changes)]).rows[0].calibration is None


def test_embeddings_give_the_diversity(make: Make, data: Dataset) -> None:
    unlike = compare([make("msl", GOOD)], embedder=lambda _: lambda items: np.eye(24)[items])
    assert unlike.rows[0].lists is not None and unlike.rows[0].lists.diversity == pytest.approx(1.0)


def test_the_reader_is_told(make: Make, toy_dataset: Path, tmp_path: Path) -> None:
    quiet = compare([make("a", GOOD), make("b", POOR, recipe={"epochs": 2})])
    assert [caution.kind for caution in quiet.cautions] == ["seeds"]
    chosen = compare([make("c", GOOD, chosen_on="test")])
    assert "the epoch of c was chosen on the split test" in texts(chosen, "selection")[0]
    assert texts(compare([make("d", GOOD, chosen_on="last epoch")]), "selection") == []
    loose = shutil.copytree(make("e", GOOD) / "evaluations" / "test-all", tmp_path / "loose")
    unknown = compare([loose], dataset=toy_dataset)
    assert texts(unknown, "selection") == ["on which split the epoch of loose was chosen is not known"]
    alike = compare([make("f", [1, 0]), make("g", [0, 1], recipe={"epochs": 2})])
    assert "cannot be told apart by ndcg@10" in texts(alike, "windows")[0]
    filtered = make("h", GOOD, exclude_history=True)
    assert "exclude_history is not the same" in texts(compare([make("i", GOOD), filtered]), "settings")[0]


def test_a_difference_that_one_user_makes_is_told(make: Make, data: Dataset, tmp_path: Path) -> None:
    """All runs hit the second place, one run hits the first for one user of six."""
    ordinary, lucky = lists_with_target_at(data, [2]), lists_with_target_at(data, [1])
    users = data.windows("test")["user_id"].to_numpy()
    one = np.where((users == users[0])[:, None], lucky, ordinary)
    base = made_run(tmp_path / "base", data, ordinary)
    told = texts(compare([base, made_run(tmp_path / "one", data, one, recipe={"epochs": 2})]), "users")
    share = (1 - 1 / np.log2(3)) * (users == users[0]).mean()
    count = int((users == users[0]).sum())
    who = f"1 of 6 users ({count} of {len(users)} windows) make the difference of base to one in ndcg@10"
    assert told == [f"{who}: {-share:+.4f}, without them +0.0000"]
    assert texts(compare([base, made_run(tmp_path / "all", data, lucky, recipe={"epochs": 2})]), "users") == []


def test_another_catalogue_is_told(make: Make, toy_dataset: Path) -> None:
    changed = make("changed", GOOD, dataset="0123456789ab")
    told = texts(compare([make("same", GOOD), changed]), "catalogue")
    assert len(told) == 1 and "changed was evaluated with another items.parquet (0123456789ab)" in told[0]
    run = make("trained", GOOD)
    provenance = read_json(run / "provenance.json")
    provenance["dataset"]["files"]["windows/train.parquet"] = "fedcba987654" * 5
    write_json(run / "provenance.json", provenance)
    assert "trained was trained with another windows/train.parquet" in texts(compare([run]), "catalogue")[0]


def test_leaks_and_repeats_are_told(make: Make, toy_dataset: Path, tmp_path: Path) -> None:
    run, leaky = make("msl", GOOD), tmp_path / "leaky"
    shutil.copytree(toy_dataset, leaky)
    train = pl.read_parquet(leaky / "windows" / "train.parquet")
    last = pl.when(pl.int_range(pl.len()) < 7).then(2**43).otherwise("timestamp")
    train.with_columns(timestamp=last.cast(pl.Int64)).write_parquet(leaky / "windows" / "train.parquet")
    windows = pl.read_parquet(leaky / "windows" / "test.parquet")
    first = pl.when(pl.int_range(pl.len()) < 3).then(pl.concat_list("target")).otherwise("history")
    windows.with_columns(history=first).write_parquet(leaky / "windows" / "test.parquet")
    card = read_json(leaky / "dataset.json")
    write_json(leaky / "dataset.json", {**card, "split_rule": "leave-one-out: each user's last interaction is test"})
    comparison = compare([run], dataset=leaky)
    assert f"leave-one-out leaks: 7 of {len(train)} training targets are later" in texts(comparison, "leakage")[0]
    assert texts(comparison, "history")[0].startswith(f"3 of {len(windows)} targets")


def write_windows(folder: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    for file in (folder / "windows.parquet", *folder.glob("part-*.parquet")):
        change(pl.read_parquet(file)).write_parquet(file)


def test_other_windows_are_refused_with_the_difference(make: Make, data: Dataset) -> None:
    one, count = make("one", GOOD), len(data.windows("test"))
    fewer = make("fewer", GOOD, recipe={"epochs": 2})
    write_windows(fewer / "evaluations" / "test-all", lambda frame: frame.filter(pl.col("window") >= 5))
    with pytest.raises(UserError, match=r"fewer/evaluations/test-all: holds .* 5 windows are missing \(the first: 0\)"):
        compare([one, fewer])
    with pytest.raises(UserError, match=r"5 windows are too many \(the first: 0\)"):
        compare([fewer, one])
    other = make("other", GOOD, recipe={"epochs": 3})
    one_more = (pl.col("target") + 1) % 24
    write_windows(
        other / "evaluations" / "test-all",
        lambda frame: frame.with_columns(target=pl.when(pl.col("window") < 3).then(one_more).otherwise("target")),
    )
    with pytest.raises(UserError, match=r"3 windows have another user or target \(the first: 0\)"):
        compare([one, other])
    with pytest.raises(UserError, match=r"has other test windows than .*other.*: \d windows have another user"):
        compare([other])
    valid = make("valid", GOOD, split="test", evaluation="valid-all", recipe={"epochs": 4})
    write_json(
        valid / "evaluations" / "valid-all" / "predictions.json",
        {**read_json(valid / "evaluations" / "valid-all" / "predictions.json"), "split": "valid"},
    )
    with pytest.raises(UserError, match=r"was evaluated with split valid, .* with split test"):
        compare([one, valid])
    assert count > 5


def test_evaluations_that_are_not_whole_are_refused(make: Make, tmp_path: Path) -> None:
    half = make("half", GOOD, rows=4)
    with pytest.raises(UserError, match=r"windows have no prediction \(the first: 4\); run the same evaluation again"):
        compare([half])
    twice = make("twice", GOOD)
    part = twice / "evaluations" / "test-all" / "part-00000.parquet"
    pl.read_parquet(part).head(3).write_parquet(part.with_name("part-00001.parquet"))
    with pytest.raises(UserError, match=r"3 windows are predicted twice \(the first: 0\)"):
        compare([twice])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="empty: holds no predictions; evaluate it first"):
        compare([empty])
    with pytest.raises(UserError, match="nowhere: no such folder"):
        compare([tmp_path / "nowhere"])


def test_damaged_lists_are_refused(make: Make) -> None:
    run = make("msl", GOOD)
    folder = run / "evaluations" / "test-all"
    part = folder / "part-00000.parquet"
    whole = pl.read_parquet(part)
    outside = pl.when(pl.col("window") < 2).then(pl.concat_list(pl.lit(99, dtype=pl.UInt32))).otherwise("ranked")
    whole.with_columns(ranked=outside, scores=pl.col("scores")).write_parquet(part)
    with pytest.raises(UserError, match=r"2 windows \(the first: 0\) hold items that a catalogue of 24 items"):
        compare([run])
    whole.with_columns(
        ranked=pl.concat_list(pl.col("ranked").list.head(9), pl.col("ranked").list.head(1))
    ).write_parquet(part)
    with pytest.raises(UserError, match="row 0 holds an item twice"):
        compare([run])
    whole.with_columns(ranked=pl.concat_list("ranked", "ranked")).write_parquet(part)
    with pytest.raises(UserError, match="holds lists of more than 10 items"):
        compare([run])


def test_several_evaluations_need_a_name(make: Make) -> None:
    run = make("msl", GOOD)
    make("msl", POOR, evaluation="test-all-beams40", beams=40)
    with pytest.raises(UserError, match=r"2 evaluations \(test-all, test-all-beams40\); name one with --evaluation"):
        compare([run])
    with pytest.raises(UserError, match="has no evaluation other; choose from test-all, test-all-beams40"):
        compare([run], evaluation="other")
    assert compare([run], evaluation="test-all-beams40").rows[0].settings["beams"] == 40
    both = compare([run / "evaluations" / "test-all", run / "evaluations" / "test-all-beams40"])
    assert [row.label for row in both.rows] == ["msl, test-all", "msl, test-all-beams40"]
    elsewhere = make("other/msl", POOR, recipe={"epochs": 9})
    first = run / "evaluations" / "test-all"
    assert [row.label for row in compare([first, elsewhere]).rows] == [str(run), str(elsewhere)]
    with pytest.raises(UserError, match="is given twice"):
        compare([run / "evaluations" / "test-all", run / "evaluations" / "test-all"])


def test_questions_without_an_answer_are_refused(make: Make) -> None:
    run = make("msl", GOOD)
    with pytest.raises(UserError, match=r"--metric: ndcg@20 needs lists of 20 items, the shortest are of 10"):
        compare([run], metrics=["ndcg@20"])
    with pytest.raises(UserError, match="no such metric: precision@5"):
        compare([run], metrics=["precision@5"])
    with pytest.raises(UserError, match="the protocol full has no accuracy; choose ndcg@10"):
        compare([run], metrics=["accuracy"])
    with pytest.raises(UserError, match="--baseline: no such row: lml; choose from msl"):
        compare([run], baseline="lml")
    with pytest.raises(UserError, match="--by: no such slices: brand; choose from warm"):
        compare([run], by=["brand"])
    with pytest.raises(UserError, match="nothing to compare"):
        compare([])


def test_cautions_are_plain_data() -> None:
    assert Caution("leakage", "it leaks") == Caution("leakage", "it leaks")
