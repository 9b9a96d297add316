"""A written reason: asked of models that can answer, refused for others."""

import pytest

from catalign.errors import UserError
from catalign.explain.explanation import explain
from catalign.explain.reason import written_reason
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN
from tiny import tiny_catalogue, tiny_model

CATALOGUE = tiny_catalogue([(5, 6), (5,), (7, 8, 9)])


def test_a_model_without_a_chat_template_is_not_asked() -> None:
    model = tiny_model()
    prompter = Prompter(CATALOGUE, model.tokenizer, PLAIN, context=model.context)
    with pytest.raises(UserError, match="no chat template"):
        written_reason(model, explain(model, prompter, CATALOGUE, [0], 1))


def test_the_reason_is_what_the_model_writes_after_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    prompter = Prompter(CATALOGUE, model.tokenizer, PLAIN, context=model.context)
    explanation = explain(model, prompter, CATALOGUE, [0, 2], 1)
    # The toy tokenizer knows no English: the template asks with three words and the length of the question.
    model.tokenizer.chat_template = "w4 w5 {% if 'w7 w8 w9' in messages[0].content %}w6{% endif %}"
    monkeypatch.setattr("catalign.explain.reason.LONGEST", 5)
    reason = written_reason(model, explanation)
    tokens = [4, 5, 6]
    import torch

    expected = model.causal.generate(torch.tensor([tokens]), max_new_tokens=5, do_sample=False)[0, 3:]
    assert reason == model.tokenizer.decode(expected, skip_special_tokens=True)
    assert reason == written_reason(model, explanation), "greedy, so repeatable"
