"""The face of the package, and the same on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from catalign.errors import UserError
from catalign.recommender import Recommendation, Recommender
from toy import TITLES, works


@pytest.fixture(scope="module")
def recommender(toy_run: Path) -> Recommender:
    return Recommender.load(toy_run)


def test_ids_and_titles_may_be_mixed(recommender: Recommender) -> None:
    by_id = recommender.recommend(["i003", "i004"], k=5)
    assert by_id == recommender.recommend([TITLES[3], "i004"], k=5)
    assert [item.title for item in by_id] == [TITLES[int(item.item_id[1:])] for item in by_id]


def test_items_are_unique_ranked_and_not_in_the_history(recommender: Recommender) -> None:
    found = recommender.recommend(["i003", "i004"], k=30)
    assert len(found) == 22 and len({item.item_id for item in found}) == 22, "all the catalogue but the history"
    assert not {"i003", "i004"} & {item.item_id for item in found}
    probabilities = [item.probability for item in found]
    assert probabilities == sorted(probabilities, reverse=True)
    assert min(probabilities) > 0 and sum(probabilities) < 1
    everything = recommender.recommend(["i003", "i004"], k=30, exclude_history=False)
    assert len(everything) == 24
    assert sum(item.probability for item in everything) == pytest.approx(1, abs=1e-4)


def test_many_people_at_once_get_what_each_gets_alone(recommender: Recommender) -> None:
    histories = [["i001"], ["i002", "i003", "i004"], ["i009", "i001"] * 8]
    together = recommender.recommend_many(histories, k=4)
    for history, found in zip(histories, together, strict=True):
        alone = recommender.recommend(history, k=4)
        assert [item.item_id for item in found] == [item.item_id for item in alone]
        np.testing.assert_allclose(
            [item.probability for item in found], [item.probability for item in alone], rtol=1e-4
        )
    assert recommender.recommend_many([], k=4) == []


def test_a_wider_search_changes_no_certain_answer(recommender: Recommender) -> None:
    assert recommender.recommend(["i003", "i004"], k=1, beams=1)[0].item_id == (
        recommender.recommend(["i003", "i004"], k=1, beams=24)[0].item_id
    )


def test_an_item_that_is_not_there_gets_suggestions(recommender: Recommender) -> None:
    with pytest.raises(UserError, match='no item has the id or title "green lmp"; did you mean "green lamp"'):
        recommender.recommend(["green lmp"])


def test_the_command_line_says_the_same(recommender: Recommender, toy_run: Path) -> None:
    said = json.loads(works("recommend", toy_run, "--history", TITLES[3], "--history", "i004", "-k", 3, "--json"))
    expected = recommender.recommend(["i003", "i004"], k=3)
    assert [Recommendation(**item).item_id for item in said] == [item.item_id for item in expected]
    lines = works("recommend", toy_run, "--history", TITLES[3], "--history", "i004", "-k", 3).splitlines()
    assert [line.split("(")[0].strip() for line in lines] == [
        f"{place}. {item.title}" for place, item in enumerate(expected, 1)
    ]
    repeated = json.loads(
        works("recommend", toy_run, "--history", "i004", "-k", 24, "--beams", 24, "--repeat", "--json")
    )
    assert "i004" in {item["item_id"] for item in repeated}
