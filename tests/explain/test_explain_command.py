"""`catalign explain` in the toy world, where the last item alone decides what follows."""

import json
from pathlib import Path

import pytest

from toy import TITLES, catalign, follower, mistake, works

HISTORY = [3, follower(3), follower(follower(3))]
NEXT = follower(HISTORY[-1])
NAMED = [argument for item in HISTORY for argument in ("--history", TITLES[item])]


def test_the_item_that_decides_moves_most(toy_run: Path) -> None:
    found = json.loads(works("explain", toy_run, *NAMED, "--json"))
    assert found["title"] == TITLES[NEXT]
    parts = found["contributions"]
    assert [part["title"] for part in parts] == [TITLES[item] for item in HISTORY]
    assert max(parts, key=lambda part: part["moved"])["title"] == TITLES[HISTORY[-1]]
    nearest = found["training_windows"][0]
    assert nearest["shared"] >= 2 and TITLES[HISTORY[-1]] == nearest["history"][-1]


def test_why_this_and_not_that(toy_run: Path) -> None:
    other = TITLES[follower(NEXT)]
    found = json.loads(works("explain", toy_run, *NAMED, "--item", TITLES[NEXT], "--instead-of", other, "--json"))
    assert found["margin"] > 0
    first, *_, last = (part["contrast"] for part in found["contributions"])
    assert last > max(first, 0), "the last item speaks for what follows it, the first one hardly"
    said = works("explain", toy_run, *NAMED, "--item", TITLES[NEXT], "--instead-of", other)
    assert TITLES[NEXT] in said and "rather than the other" in said


def test_deleting_by_attribution_hurts_more_than_at_random(toy_run: Path) -> None:
    found = json.loads(works("explain", toy_run, "--faithfulness", "--windows", 30, "--deletions", 3, "--json"))
    assert found["windows"] == 30
    for cells in found["more_than"]["random"][:2]:
        assert cells["ci95"][0] > 0, "the interval of the difference lies above 0"
    assert found["top_at_least_random"] == 1.0, "no single deletion is worse than the top one"
    attributed, at_random = (found["orders"][name]["still_first"][0]["mean"] for name in ("attributed", "random"))
    assert attributed < at_random
    said = works("explain", toy_run, "--faithfulness", "--windows", 5, "--deletions", 2)
    assert "still first" in said


def test_what_a_stage_changed(toy_run: Path) -> None:
    moves = json.loads(works("explain", "--before", toy_run, "--after", toy_run, *NAMED, "-k", 3, "--json"))
    assert [move["rank_after"] for move in moves] == [1, 2, 3] == [move["rank_before"] for move in moves]
    assert moves[0]["title"] == TITLES[NEXT]
    assert all(move["log_probability_before"] == move["log_probability_after"] for move in moves)
    assert TITLES[NEXT] in works("explain", "--before", toy_run, "--after", toy_run, *NAMED)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["RUN"], "no history given"),
        (["RUN", "--history", "i001", "--faithfulness"], "a history and --faithfulness"),
        (["--history", "i001"], "no run given"),
        (["RUN", "--history", "i001", "--item", "lamb"], "did you mean"),
        (["RUN", "--history", "i001", "--item", "i002", "--instead-of", "i002"], "name another item"),
        (["RUN", "--history", "i001", "--reason"], "no chat template"),
        (["--before", "RUN", "--history", "i001"], "go together"),
        (["RUN", "--before", "RUN", "--after", "RUN", "--history", "i001"], "a run and --before"),
        (["--before", "RUN", "--after", "RUN", "--history", "i001", "--item", "i002"], "explain one run"),
        (["RUN", "--faithfulness", "--deletions", "40"], "fewer --deletions"),
        (["RUN", "--faithfulness", "--item", "i002"], "explain one history"),
        (["/no/such/run", "--history", "i001"], "not a run folder"),
    ],
)
def test_mistakes_are_one_line(toy_run: Path, arguments: list[str], said: str) -> None:
    assert said in mistake("explain", *(toy_run if argument == "RUN" else argument for argument in arguments))


def test_another_dataset_is_refused(toy_run: Path, tmp_path: Path) -> None:
    from toy import make_dataset

    other = make_dataset(tmp_path / "other", titles=[f"thing {number}" for number in range(12)], users=20)
    assert "another catalogue" in mistake("explain", toy_run, "--history", "i001", "--dataset", other)
    assert catalign("explain", toy_run, "--history", "i001").code == 0
