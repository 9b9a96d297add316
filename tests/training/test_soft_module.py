"""SOFT's loss against SFT on the real titles and on the teacher's answers, each taken alone."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from catalign.model.language_model import LanguageModel
from catalign.prompting.prompter import Prompter, encode_answers
from catalign.prompting.templates import PLAIN
from catalign.training.batches import BatchMaker, Windows, without_windows
from catalign.training.distillation import SCHEMA
from catalign.training.module import Objective, TrainingModule
from catalign.training.soft_module import SoftBatches, SoftModule, answer_tokens
from tiny import tiny_catalogue, tiny_model

TITLES = [(5,), (5, 6), (5, 6, 7, 7), (8, 9), (8, 9, 10, 11), (12, 12, 12), (5,), (13, 14)]
HISTORIES = [[0], [0, 3], [0, 3, 4], [5, 1], [5, 1, 2], [7], [7, 7, 6], [2]]
TARGETS = [3, 4, 2, 2, 6, 7, 0, 1]
ANSWERS = [3, 1, 2, 5, 6, 0, 7, 4]
ALL = list(range(len(TARGETS)))
OBJECTIVES = [Objective(name="lml"), Objective(), Objective(denominator="all"), Objective(temperature=2.0),
              Objective(bear_weight=0.5, bear_beams=2)]  # fmt: skip


def windows_of(targets: list[int]) -> Windows:
    histories = [np.array(history, dtype=np.uint32) for history in HISTORIES]
    return Windows(np.zeros(8, dtype=np.int64), histories, np.array(targets), np.array([len(h) for h in HISTORIES]))


def answers_of(items: list[list[int]], scores: list[list[float]]) -> pl.DataFrame:
    texts = [[" ".join(f"w{word}" for word in TITLES[item]) for item in row] for row in items]
    columns = {"window": ALL, "texts": texts, "items": items, "scores": scores}
    return pl.DataFrame(columns, schema=SCHEMA)


ONE = answers_of([[item] for item in ANSWERS], [[-1.0]] * 8)


def denominator_of(objective: Objective) -> Any:
    return "branching" if objective.name == "lml" else objective.denominator


def setup(
    model: LanguageModel, objective: Objective, answers: pl.DataFrame = ONE, *, free: bool = False, **packing: Any
) -> tuple[SoftModule, SoftBatches]:
    prompter = Prompter(tiny_catalogue(TITLES), model.tokenizer, PLAIN, context=model.context)
    windows = windows_of(TARGETS)
    maker = BatchMaker(windows, prompter, scores=objective.scores, **{"row_tokens": 1000, **packing})
    texts = None
    if free:
        encoded = [encode_answers(model.tokenizer, PLAIN, row) for row in answers["texts"].to_list()]
        texts = answer_tokens(prompter, windows, encoded)
    module = SoftModule(model, objective, prompter.trie)
    return module, SoftBatches(maker, answers, texts, denominator_of(objective))


def sft_loss(model: LanguageModel, objective: Objective, targets: list[int]) -> float:
    prompter = Prompter(tiny_catalogue(TITLES), model.tokenizer, PLAIN, context=model.context)
    maker = BatchMaker(windows_of(targets), prompter, scores=objective.scores, row_tokens=1000)
    return float(TrainingModule(model, objective, prompter.trie)(**maker(ALL))["loss"])


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: f"{objective.label}-{objective.denominator}")
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_it_is_the_weighted_sum_of_two_passes(objective: Objective, weight: float) -> None:
    model = tiny_model()
    module, batches = setup(model, objective)
    module.weight = weight
    real, distilled = sft_loss(model, objective, TARGETS), sft_loss(model, objective, ANSWERS)
    assert real != pytest.approx(distilled, rel=1e-3)
    expected = (1 - weight) * real + weight * distilled
    assert float(module(**batches(ALL))["loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES[:2], ids=lambda objective: objective.label)
def test_micro_batches_and_shared_prefixes_change_nothing(objective: Objective) -> None:
    def gradients(parts: list[list[int]], **packing: Any) -> tuple[float, list[torch.Tensor]]:
        model = tiny_model()
        module, batches = setup(model, objective, **packing)
        module.weight, total = 0.4, 0.0
        made = [*(batches(part) for part in parts), without_windows(batches(ALL[:1]))]
        items = torch.as_tensor(sum(module.count_items(part) for part in made))
        for part in made:
            loss = module(**part, num_items_in_batch=items)["loss"]
            loss.backward()
            total += float(loss)
        return total, [w.grad for w in module.parameters() if w.grad is not None]

    whole = gradients([ALL])
    for other in (gradients([[number] for number in ALL]), gradients([ALL], share=False)):
        assert other[0] == pytest.approx(whole[0], rel=1e-5)
        for mine, theirs in zip(other[1], whole[1], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_both_answers_share_their_prompt() -> None:
    _, batches = setup(tiny_model(), Objective(name="lml"))
    before, after = batches(ALL)["token_counts"].tolist()
    prompts = [len(prompt) for prompt in batches.maker.prompts(ALL)]
    assert before >= 2 * sum(prompts) and after < sum(prompts) + sum(map(len, TITLES)) * 2


@pytest.mark.parametrize("free", [False, True])
def test_several_answers_are_a_soft_target(free: bool) -> None:
    model, objective = tiny_model(), Objective(name="lml")
    second = [5, 7, 0, 3, 1, 2, 6, 4]
    answers = answers_of([list(pair) for pair in zip(ANSWERS, second, strict=True)], [[np.log(0.6), np.log(0.2)]] * 8)
    module, batches = setup(model, objective, answers, free=free)
    module.weight = 1.0
    np.testing.assert_allclose(batches.weight_SC, [[1.0, 0.75, 0.25]] * 8, rtol=1e-5)
    lengths = [len(title) + 1 for title in TITLES]
    sums = [sft_loss(model, objective, items) * sum(lengths[item] for item in items) for items in (ANSWERS, second)]
    counts = [sum(lengths[item] for item in items) for items in (ANSWERS, second)]
    expected = (0.75 * sums[0] + 0.25 * sums[1]) / (0.75 * counts[0] + 0.25 * counts[1])
    assert float(module(**batches(ALL))["loss"]) == pytest.approx(expected, rel=1e-5)


def test_fewer_answers_than_elsewhere_leave_no_trace() -> None:
    model, objective = tiny_model(), Objective()
    few = answers_of([[3, 1], *([item] for item in ANSWERS[1:])], [[np.log(0.5)] * 2, *([-1.0],) * 7])
    module, batches = setup(model, objective, few)
    module.weight = 1.0
    np.testing.assert_allclose(batches.weight_SC[1:], [[1.0, 1.0, 0.0]] * 7)
    loss = float(module(**batches(ALL[1:]))["loss"])
    only, others = setup(model, objective)
    only.weight = 1.0
    assert loss == pytest.approx(float(only(**others(ALL[1:]))["loss"]), rel=1e-5)


def test_free_answers_that_are_titles_are_the_titles() -> None:
    model, objective = tiny_model(), Objective(name="lml")
    bound, free = setup(model, objective), setup(model, objective, free=True)
    assert float(free[0](**free[1](ALL))["loss"]) == pytest.approx(float(bound[0](**bound[1](ALL))["loss"]), rel=1e-5)


def test_an_empty_answer_is_the_end_token_alone() -> None:
    empty = ONE.with_columns(pl.Series("texts", [[""]] * 8), pl.Series("items", [[None]] * 8, dtype=pl.List(pl.UInt32)))
    module, batches = setup(tiny_model(), Objective(name="lml"), empty, free=True)
    batch = batches(ALL)
    assert batch["item_counts"][1] == 8  # one token each
    assert torch.isfinite(module(**batch)["loss"])


def test_the_adaptive_temperature_follows_the_real_titles() -> None:
    objective = Objective(temperature="adaptive")
    module, batches = setup(tiny_model(), objective)
    other, others = setup(tiny_model(), objective, answers_of([[item] for item in ANSWERS[::-1]], [[-1.0]] * 8))
    for soft, batch in ((module, batches(ALL)), (other, others(ALL))):
        soft.train()(**batch)
        assert soft.adaptive is not None
        soft.adaptive.step()
    assert float(module.adaptive.temperature) == pytest.approx(float(other.adaptive.temperature))
