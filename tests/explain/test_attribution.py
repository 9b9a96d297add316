"""Leave one out: against plain forward passes of every shortened history, for several architectures."""

import numpy as np
import pytest

from catalign.decoding.scores import ScoreMode
from catalign.errors import UserError
from catalign.explain.attribution import attribute
from catalign.explain.explanation import explain
from catalign.model.language_model import LanguageModel
from catalign.prompting.histories import HistoryRule
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN, Template
from tiny import ARCHITECTURES, UNSHARED, tiny_catalogue, tiny_causal, tiny_model, title_scores, word_tokenizer

TITLES = [(5, 6), (5,), (7, 8, 9), (5, 6), (10, 10), (7, 8)]
CATALOGUE = tiny_catalogue(TITLES)
COMMAS = Template(name="commas", opening="w12", separator="w13", closing="w14")


@pytest.mark.parametrize("score", ["valid", "full"])
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2", *UNSHARED])
def test_moves_are_the_differences_of_plain_forward_passes(architecture: str, score: ScoreMode) -> None:
    model = tiny_model(architecture)
    model.shares_prefixes = architecture in ARCHITECTURES
    prompter = Prompter(CATALOGUE, model.tokenizer, COMMAS, context=model.context)
    histories, items = [[0, 2, 4], [5], [1, 1]], [[1, 2], [4], [0, 3, 5]]
    for history, explained, found in zip(
        histories, items, attribute(model, prompter, histories, items, score=score), strict=True
    ):
        assert (found.history, found.items) == (history, explained)
        whole = title_scores(model.causal, prompter.write(history).tolist(), TITLES, score)[explained]
        np.testing.assert_allclose(found.score_T, whole, atol=1e-4)
        for place in range(len(history)):
            rest = history[:place] + history[place + 1 :]
            without = title_scores(model.causal, prompter.write(rest).tolist(), TITLES, score)[explained]
            np.testing.assert_allclose(found.moved_HT[place], whole - without, atol=1e-4)
        if len(explained) > 1:
            np.testing.assert_allclose(found.contrast_H(1, 0), found.moved_HT[:, 1] - found.moved_HT[:, 0])


def test_only_what_the_prompt_shows_is_explained() -> None:
    model = tiny_model()
    prompter = Prompter(CATALOGUE, model.tokenizer, PLAIN, context=model.context, rule=HistoryRule(items=2))
    (found,) = attribute(model, prompter, [[4, 0, 1, 5]], [[2]])
    assert found.history == [1, 5]
    # Without item 5 the older item 0 does not slide in: the score is that of item 1 alone.
    np.testing.assert_allclose(
        found.without_HT[1], title_scores(model.causal, prompter.write([1]).tolist(), TITLES, "valid")[[2]], atol=1e-4
    )


def test_a_prompt_of_no_token_is_refused() -> None:
    model = LanguageModel(tiny_causal(), word_tokenizer(begin=False)).eval()
    prompter = Prompter(CATALOGUE, model.tokenizer, PLAIN, context=model.context)
    with pytest.raises(UserError, match="nothing would be left"):
        attribute(model, prompter, [[0]], [[1]])


def test_an_explanation_names_ids_titles_and_the_margin() -> None:
    model = tiny_model()
    prompter = Prompter(CATALOGUE, model.tokenizer, PLAIN, context=model.context)
    found = explain(model, prompter, CATALOGUE, [0, 2], 4, 1)
    assert (found.item_id, found.instead_of) == ("id4", "id1")
    assert [part.item_id for part in found.contributions] == ["id0", "id2"]
    (both,) = attribute(model, prompter, [[0, 2]], [[4, 1]])
    assert found.margin == pytest.approx(float(both.score_T[0] - both.score_T[1]))
    assert [part.contrast for part in found.contributions] == pytest.approx(both.contrast_H(0, 1).tolist())
    alone = explain(model, prompter, CATALOGUE, [0, 2], 4)
    assert alone.margin is None and {part.contrast for part in alone.contributions} == {None}
    assert [part.moved for part in alone.contributions] == pytest.approx([part.moved for part in found.contributions])


def test_items_of_one_title_are_not_compared() -> None:
    model = tiny_model()
    prompter = Prompter(CATALOGUE, model.tokenizer, PLAIN, context=model.context)
    with pytest.raises(UserError, match='both are "w5 w6"'):
        explain(model, prompter, CATALOGUE, [2], 0, 3)
