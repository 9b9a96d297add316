"""The loss of the preference stage against plain computations from the whole model's logits."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from catalign.model.language_model import LanguageModel
from catalign.objectives import Preference, margins, positive_losses, preference_losses
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN, Template
from catalign.training.batches import Windows, without_windows
from catalign.training.preference_module import PreferenceBatches, PreferenceModule, PreferenceObjective
from tiny import ARCHITECTURES, END, children_of, tiny_catalogue, tiny_model, title_scores

TITLES = [(5,), (5, 6), (5, 6, 7, 7), (8, 9), (8, 9, 10, 11), (12, 12, 12), (5,), (13, 14)]
HISTORIES = [[0], [0, 3], [0, 3, 4], [5, 1], [5, 1, 2], [7], [7, 7, 6], [2]]
TARGETS = [3, 4, 2, 2, 6, 7, 0, 1]
NEGATIVES = [[1, 2, 4], [5, 7, 1], [1, 5, 7], [4, 3, 0], [3, 4, 7], [0, 2, 3], [3, 5, 1], [4, 6, 7]]
ALL = list(range(len(TARGETS)))
CUED = Template(name="cued", opening="w20 w21", item="w22 {title}", closing="w19", answer="w18 {title}")
NAMES = ("dmpo", "pairs", "sdpo", "pair-sum", "dmpo-released")
REFERENCE = np.random.default_rng(0).normal(-5, 2, (8, 4)).astype(np.float32)


def setup(
    model: LanguageModel,
    objective: PreferenceObjective,
    *,
    template: Template = PLAIN,
    negatives: list[list[int]] = NEGATIVES,
    **packing: Any,
) -> tuple[PreferenceModule, PreferenceBatches]:
    prompter = Prompter(tiny_catalogue(TITLES), model.tokenizer, template, context=model.context)
    seen = np.array([len(history) for history in HISTORIES])
    histories = [np.array(history, dtype=np.uint32) for history in HISTORIES]
    windows = Windows(np.zeros(8, dtype=np.int64), histories, np.array(TARGETS), seen)
    batches = PreferenceBatches(windows, prompter, scores=objective.scores, **{"row_tokens": 1000, **packing})
    batches.change(np.array(negatives))
    if objective.has_reference:
        batches.reference_SC = REFERENCE[:, : 1 + len(negatives[0])]
    return PreferenceModule(model, objective, prompter.trie).train(), batches


def loss_and_gradients(
    module: PreferenceModule, parts: list[dict[str, torch.Tensor]]
) -> tuple[float, dict[str, torch.Tensor]]:
    """Of the parts of one step."""
    module.zero_grad()
    items, total = torch.tensor(sum(module.count_items(part) for part in parts)), 0.0
    for part in parts:
        loss = module(**part, num_items_in_batch=items)["loss"]
        loss.backward()
        total += float(loss)
    return total, {name: w.grad.clone() for name, w in module.named_parameters() if w.grad is not None}


def assert_same(ours: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert ours[0] == pytest.approx(other[0], rel=1e-5)
    assert ours[1].keys() == other[1].keys() and ours[1]
    for name, gradient in ours[1].items():
        scale = float(other[1][name].abs().max())
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-4, atol=max(1e-5 * scale, 1e-6))


@pytest.mark.parametrize("score", ["valid", "full"])
@pytest.mark.parametrize("template", [PLAIN, CUED], ids=lambda template: template.name)
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "phi"])
def test_log_probabilities_are_those_of_the_whole_model(architecture: str, template: Template, score: str) -> None:
    model = tiny_model(architecture)
    objective = PreferenceObjective(score=score)
    module, batches = setup(model, objective, template=template)
    found_SC = module.log_probabilities(**batches(ALL)).view(8, 4).detach()
    cue = (18,) if template is CUED else ()
    answers = [(*cue, *title) for title in TITLES]
    prompts = batches.maker.prompts(ALL)
    for row, prompt in enumerate(prompts):
        scores = title_scores(model.causal, prompt.tolist(), answers, score)
        np.testing.assert_allclose(found_SC[row], scores[batches.item_SC[row]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sft_weight", [None, 0.3])
def test_the_loss_is_the_formula_example_by_example(name: str, sft_weight: float | None) -> None:
    objective = PreferenceObjective(name=name, beta=0.7, sft_weight=sft_weight)
    module, batches = setup(tiny_model(), objective)
    found = float(module(**batches(ALL))["loss"])
    policy_SC = module.log_probabilities(**batches(ALL)).view(8, 4).detach().double()
    weight = {None: 1.0 if name == "dmpo-released" else 0.0}.get(sft_weight, sft_weight)
    total = 0.0
    for row, (policy_C, reference_C) in enumerate(zip(policy_SC, torch.tensor(REFERENCE).double(), strict=True)):
        ratio_C = policy_C if name == "dmpo-released" else policy_C - reference_C
        margin_K = 0.7 * (ratio_C[0] - ratio_C[1:])
        total += {
            "dmpo": -torch.nn.functional.logsigmoid(margin_K.mean()),
            "pairs": -torch.nn.functional.logsigmoid(margin_K).mean(),
            "dmpo-released": -torch.nn.functional.logsigmoid(margin_K).mean(),
            "pair-sum": -torch.nn.functional.logsigmoid(margin_K).sum(),
            "sdpo": torch.log(1 + torch.exp(-margin_K).sum()),
        }[name].item()
        total += weight * -float(policy_C[0]) / (len(TITLES[TARGETS[row]]) + 1)
    assert found == pytest.approx(total / 8, rel=1e-5)


def test_the_sft_term_of_valid_scores_averages_over_branching_positions() -> None:
    objective = PreferenceObjective(score="valid", sft_weight=1.0)
    module, batches = setup(tiny_model(), objective)
    plain, _ = setup(module.model, PreferenceObjective(score="valid"))
    batch = batches([1])
    target = TITLES[TARGETS[1]]
    branching = sum(len(children_of(TITLES, (*target, END)[:depth])) > 1 for depth in range(len(target) + 1))
    assert branching < len(target) + 1
    expected = -float(module.log_probabilities(**batch)[0]) / branching
    assert float(module(**batch)["loss"] - plain(**batch)["loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("score", ["valid", "full"])
@pytest.mark.parametrize("name", NAMES)
def test_sharing_row_budget_and_order_change_nothing(name: str, score: str) -> None:
    model, objective = tiny_model("qwen3"), PreferenceObjective(name=name, score=score)
    module, batches = setup(model, objective, share=False)
    expected = loss_and_gradients(module, [batches(ALL)])
    for rows, order in itertools.product((1, 30, 1000), (ALL, [3, 0, 6, 2, 7, 5, 1, 4])):
        _, shared = setup(model, objective, row_tokens=rows)
        assert_same(loss_and_gradients(module, [shared(order)]), expected)


@pytest.mark.parametrize("name", NAMES)
def test_eight_micro_batches_of_one_are_one_of_eight(name: str) -> None:
    module, batches = setup(tiny_model(), PreferenceObjective(name=name, sft_weight=0.5))
    whole = loss_and_gradients(module, [batches(ALL)])
    assert_same(loss_and_gradients(module, [batches([number]) for number in ALL]), whole)
    assert_same(loss_and_gradients(module, [batches(ALL[:3]), without_windows(batches([0])), batches(ALL[3:])]), whole)


@pytest.mark.parametrize("score", ["valid", "full"])
def test_prompts_and_beginnings_are_stored_once(score: str) -> None:
    _, batches = setup(tiny_model(), PreferenceObjective(score=score))
    before, after = batches([2])["token_counts"].tolist()
    prompt = len(batches.maker.prompts([2])[0])
    assert before > 4 * prompt and after < prompt + 4 * 5


@pytest.mark.parametrize("name", ["dmpo", "pairs", "sdpo", "pair-sum", "dpo"])
def test_all_are_dpo_with_one_negative(name: str) -> None:
    model = tiny_model()
    module, batches = setup(model, PreferenceObjective(name="dpo"), negatives=[row[:1] for row in NEGATIVES])
    expected = loss_and_gradients(module, [batches(ALL)])
    other = PreferenceModule(model, PreferenceObjective(name=name), batches.maker.prompter.trie).train()
    assert_same(loss_and_gradients(other, [batches(ALL)]), expected)


@pytest.mark.parametrize("name", ["dmpo", "pairs", "sdpo"])
def test_without_a_difference_to_the_reference(name: str) -> None:
    module, batches = setup(tiny_model(), PreferenceObjective(name=name))
    batches.reference_SC = module.log_probabilities(**batches(ALL)).detach().view(8, 4).numpy()
    loss = float(module(**batches(ALL))["loss"])
    assert loss == pytest.approx(np.log(4) if name == "sdpo" else np.log(2), rel=1e-6)
    logs = logged(module)
    assert logs["rewards/chosen"] == logs["rewards/rejected"] == logs["rewards/margins"] == 0
    assert 0 <= logs["accuracy"] <= 1


def logged(module: PreferenceModule) -> dict[str, float]:
    logs = {"loss": 1.0}
    (callback,) = module.callbacks()
    callback.on_log(None, None, None, logs=logs)  # type: ignore[arg-type]
    return logs


def test_what_is_logged_is_the_mean_of_the_examples() -> None:
    module, batches = setup(tiny_model(), PreferenceObjective(beta=0.4))
    for part in (ALL[:3], ALL[3:]):
        module(**batches(part))
    logs = logged(module)
    policy_SC = module.log_probabilities(**batches(ALL)).detach().view(8, 4).numpy()
    reward_SC = 0.4 * (policy_SC - REFERENCE)
    assert logs["rewards/chosen"] == pytest.approx(reward_SC[:, 0].mean(), rel=1e-5)
    assert logs["rewards/rejected"] == pytest.approx(reward_SC[:, 1:].mean(), rel=1e-5)
    assert logs["rewards/margins"] == pytest.approx((reward_SC[:, :1] - reward_SC[:, 1:]).mean(), rel=1e-5)
    assert logs["accuracy"] == pytest.approx((policy_SC[:, :1] > policy_SC[:, 1:]).mean())
    assert logged(module) == {"loss": 1.0}  # and it starts anew


def test_validation_logs_stay_as_they_are() -> None:
    module, batches = setup(tiny_model(), PreferenceObjective())
    module(**batches(ALL))
    logs = {"eval_ndcg@10": 0.5}
    module.means.on_log(None, None, None, logs=logs)  # type: ignore[arg-type]
    assert logs == {"eval_ndcg@10": 0.5}
    assert "accuracy" in logged(module)


def test_negatives_may_differ_in_number_and_in_their_positives() -> None:
    """The module takes any batch in which each negative names its positive and its example."""
    module, batches = setup(tiny_model(), PreferenceObjective(name="pairs", sft_weight=1.0))
    batch = batches([0, 1])
    named = {"positive_N": [0, 1, 4, 4, 4], "negative_N": [2, 3, 5, 6, 7], "example_N": [0, 0, 1, 1, 1]}
    batch |= {name: torch.tensor(values) for name, values in named.items()}
    policy_S = module.log_probabilities(**batch).detach()
    ratio_S, example_N = policy_S - batch["reference_S"], batch["example_N"]
    margin_N = margins(ratio_S[batch["positive_N"]], ratio_S[batch["negative_N"]], 0.1)
    tokens_N = batch["scored_S"][batch["positive_N"]]
    expected_B = preference_losses(margin_N, example_N, 2, "pairs")
    expected_B = expected_B + positive_losses(policy_S[batch["positive_N"]], tokens_N, example_N, 2)
    assert float(module(**batch)["loss"]) == pytest.approx(float(expected_B.mean()), rel=1e-6)


def test_dropout_is_off() -> None:
    model = tiny_model("gpt2")
    assert any(part.p > 0 for part in model.modules() if isinstance(part, torch.nn.Dropout))
    module, batches = setup(model, PreferenceObjective())
    assert module.training and not model.training
    one, two = (float(module(**batches(ALL))["loss"]) for _ in range(2))
    assert one == two


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_shares_as_padded_rows_do(architecture: str) -> None:
    model, objective = tiny_model(architecture), PreferenceObjective(name="sdpo")
    module, batches = setup(model, objective)
    _, rows = setup(model, objective, share=False)
    assert_same(loss_and_gradients(module, [batches(ALL)]), loss_and_gradients(module, [rows(ALL)]))


@pytest.mark.parametrize("score", ["valid", "full"])
def test_bfloat16_autocast_is_near(score: str) -> None:
    module, batches = setup(tiny_model(), PreferenceObjective(score=score))
    exact = float(module(**batches(ALL))["loss"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module(**batches(ALL))["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(exact, rel=0.05)


def test_names_and_formulas() -> None:
    formulas: dict[str, Preference] = {"dpo": "pairs", "dmpo-released": "pairs", "sdpo": "sdpo"}
    for name, formula in formulas.items():
        objective = PreferenceObjective(name=name)
        assert objective.kind == formula and objective.label == name
        assert objective.has_reference == (name != "dmpo-released")


@pytest.mark.parametrize(
    "fields", [{"name": "msl"}, {"beta": 0}, {"score": "half"}, {"sft_weight": -1}, {"temperature": 1.0}]
)
def test_wrong_objectives(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PreferenceObjective(**fields)
