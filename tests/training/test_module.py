"""The loss of a batch against plain, dense computations from the whole model's logits."""

import copy
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from catalign.model.language_model import LanguageModel
from catalign.model.loading import Lora, add_lora
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN, Template
from catalign.training.batches import BatchMaker, Windows, without_windows
from catalign.training.module import Objective, TrainingModule
from tiny import ARCHITECTURES, END, VOCABULARY, children_of, tiny_catalogue, tiny_model, tiny_trie

TITLES = [(5,), (5, 6), (5, 6, 7, 7), (8, 9), (8, 9, 10, 11), (12, 12, 12), (5,), (13, 14)]
HISTORIES = [[0], [0, 3], [0, 3, 4], [5, 1], [5, 1, 2], [7], [7, 7, 6], [2]]
TARGETS = [3, 4, 2, 2, 6, 7, 0, 1]
ALL = list(range(len(TARGETS)))
CUED = Template(name="cued", opening="w20 w21", item="w22 {title}", closing="w19", answer="w18 {title}")
OBJECTIVES = [
    Objective(name="lml"),
    Objective(name="lml", temperature=0.5),
    Objective(name="msl"),
    Objective(name="msl", temperature=2.0, denominator="all"),
    Objective(name="msl", temperature="adaptive"),
    Objective(name="msl", temperature=1.5, bear_weight=0.7, bear_beams=2, bear_temperature=1.3),
    Objective(name="msl", temperature="adaptive", bear_weight=2, bear_beams=3),
]


def label(value: object) -> str | None:
    return f"{value.label}-{value.denominator}" if isinstance(value, Objective) else None


def setup(
    model: LanguageModel, objective: Objective, *, template: Template = PLAIN, rows: int = 1000, share: bool = True
) -> tuple[TrainingModule, BatchMaker]:
    prompter = Prompter(tiny_catalogue(TITLES), model.tokenizer, template, context=model.context)
    histories = [np.array(history, dtype=np.uint32) for history in HISTORIES]
    windows = Windows(
        np.zeros(len(TARGETS), dtype=np.int64),
        histories,
        np.array(TARGETS),
        np.array([len(history) for history in histories]),
    )
    batches = BatchMaker(windows, prompter, scores=objective.scores, row_tokens=rows, share=share)
    return TrainingModule(model, objective, prompter.trie), batches


def gradients(module: TrainingModule) -> dict[str, torch.Tensor]:
    return {name: weight.grad.clone() for name, weight in module.named_parameters() if weight.grad is not None}


def loss_and_gradients(
    module: TrainingModule, batch: dict[str, torch.Tensor], **options: Any
) -> tuple[float, dict[str, torch.Tensor]]:
    module.zero_grad()
    loss = module(**batch, **options)["loss"]
    loss.backward()
    return float(loss), gradients(module)


def assert_same(ours: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert ours[0] == pytest.approx(other[0], rel=1e-5)
    assert ours[1].keys() == other[1].keys() and ours[1]
    for name, gradient in ours[1].items():
        scale = float(other[1][name].abs().max())
        torch.testing.assert_close(
            gradient.double(),
            other[1][name].double(),
            rtol=1e-4,
            atol=max(1e-5 * scale, 1e-6),
            msg=lambda m, n=name: f"{n}: {m}",
        )


def bear_weight(objective: Objective, logits_V: torch.Tensor, token: int, children: int) -> float:
    """BEAR's weight of a token, from logits over the temperature, -inf where a token is not valid."""
    if not objective.bear_weight or children < objective.bear_beams:
        return 1.0
    margin = float(logits_V[token] - logits_V.sort(descending=True).values[objective.bear_beams - 1])
    return 1 + objective.bear_weight / (1 + math.exp(-margin / objective.bear_temperature))


def dense_loss(module: TrainingModule, objective: Objective, template: Template) -> torch.Tensor:
    """The same loss, window by window from the whole model's logits, every position and token of the vocabulary.

    The model is taken to float64 and masked with -inf.
    """
    model = copy.deepcopy(module.model).double()
    prompter = Prompter(tiny_catalogue(TITLES), model.tokenizer, template, context=64)
    cue = [18] if template is CUED else []
    answers = [(*cue, *title) for title in TITLES]
    tau = objective.first_temperature if objective.temperature == "adaptive" else float(objective.temperature)
    total, branching, positions = torch.zeros((), dtype=torch.float64), 0, 0
    for history, target in zip(HISTORIES, TARGETS, strict=True):
        prompt, answer = prompter.prompt(history).tolist(), (*answers[target], END)
        logits_TV = model.base(input_ids=torch.tensor([[*prompt, *answer]])).logits[0]
        for depth, token in enumerate(answer):
            logits_V = logits_TV[len(prompt) - 1 + depth] / tau
            children = children_of(answers, answer[:depth])
            positions += 1
            branching += len(children) > 1
            if objective.name == "msl":
                mask_V = torch.full((VOCABULARY,), -torch.inf, dtype=torch.float64)
                mask_V[children] = 0
                logits_V = logits_V + mask_V
            total = total - torch.log_softmax(logits_V, 0)[token] * bear_weight(
                objective, logits_V, token, len(children)
            )
    count = branching if objective.name == "msl" and objective.denominator == "branching" else positions
    loss = total / count * (tau if objective.temperature == "adaptive" else 1)
    loss.backward()
    module.zero_grad()
    for (_, mine), (_, theirs) in zip(module.model.named_parameters(), model.named_parameters(), strict=True):
        if theirs.grad is not None:
            mine.grad = theirs.grad.float()
    return loss.detach()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=label)
@pytest.mark.parametrize("template", [PLAIN, CUED], ids=lambda template: template.name)
def test_loss_and_gradients_are_those_of_a_dense_computation(objective: Objective, template: Template) -> None:
    module, batches = setup(tiny_model("llama"), objective, template=template)
    expected = float(dense_loss(module, objective, template)), gradients(module)
    assert_same(loss_and_gradients(module, batches(ALL)), expected)


@pytest.mark.parametrize("objective", [OBJECTIVES[1], OBJECTIVES[3]], ids=label)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture(architecture: str, objective: Objective) -> None:
    """Head bias, capped logits, learned positions, tied and untied heads."""
    module, batches = setup(tiny_model(architecture), objective)
    expected = float(dense_loss(module, objective, PLAIN)), gradients(module)
    assert_same(loss_and_gradients(module, batches(ALL)), expected)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=label)
def test_sharing_row_budget_and_order_change_nothing(objective: Objective) -> None:
    model = tiny_model("qwen3")
    module, batches = setup(model, objective, share=False)
    expected = loss_and_gradients(module, batches(ALL))
    for rows in (1, 12, 20, 1000):
        for order in (ALL, ALL[::-1], [3, 0, 6, 2, 7, 5, 1, 4]):
            _, shared = setup(model, objective, rows=rows)
            assert_same(loss_and_gradients(module, shared(order)), expected)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=label)
def test_eight_micro_batches_of_one_are_one_of_eight(objective: Objective) -> None:
    module, batches = setup(tiny_model("llama"), objective)
    whole = loss_and_gradients(module, batches(ALL))
    parts = [*(batches([number]) for number in ALL), without_windows(batches(ALL[:1]))]  # and an idle process
    items = sum(module.count_items(part) for part in parts)
    assert items == module.count_items(batches(ALL))
    module.zero_grad()
    total = 0.0
    for part in parts:
        loss = module(**part, num_items_in_batch=torch.tensor(items))["loss"]
        loss.backward()
        total += float(loss)
    assert_same((total, gradients(module)), whole)


@pytest.mark.parametrize("objective", [OBJECTIVES[0], OBJECTIVES[2]], ids=label)
def test_an_adapter_alone_gets_gradients(objective: Objective) -> None:
    model = add_lora(tiny_model("llama"), Lora(rank=2, dropout=0), seed=0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.2)
    module, batches = setup(model, objective)
    found = loss_and_gradients(module, batches(ALL))
    assert all("lora_" in name for name in found[1])
    assert_same(found, (float(dense_loss(module, objective, PLAIN)), gradients(module)))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 22 * 22)), min_size=1, max_size=5))
def test_msl_is_lml_where_every_token_is_valid(examples: list[tuple[int, int]]) -> None:
    """Titles of two tokens, all pairs. No title is empty or may hold the end token, so its logit is made -1e9."""
    tokens = [token for token in range(VOCABULARY) if token != END]
    trie = tiny_trie([(one, two) for one in tokens for two in tokens])
    model = tiny_model("phi")
    with torch.no_grad():
        assert model.head_bias_V is not None
        model.head_bias_V[END] = -1e9
    prompter: Any = SimpleNamespace(trie=trie, prompt=lambda history, seen: np.array([0, *history], dtype=np.int32))
    histories = [np.array([history], dtype=np.uint32) for history, _ in examples]
    targets = np.array([target for _, target in examples])
    seen = np.array([len(history) for history in histories])
    windows = Windows(np.zeros(len(examples), dtype=np.int64), histories, targets, seen)
    masked = TrainingModule(model, Objective(name="msl"), trie)
    ours = loss_and_gradients(
        masked, BatchMaker(windows, prompter, scores="valid", row_tokens=64)(ALL[: len(examples)])
    )

    batch = BatchMaker(windows, prompter, scores="vocabulary", row_tokens=64)(ALL[: len(examples)])
    not_end = batch["gold_P"] != END
    batch |= {name: batch[name][not_end] for name in ("node_P", "gold_P", "first_P")}
    full = TrainingModule(model, Objective(name="lml"), trie)
    assert_same(loss_and_gradients(full, batch), ours)


def test_the_adaptive_temperature_sees_the_first_branching_positions() -> None:
    objective = Objective(name="msl", temperature="adaptive")
    module, batches = setup(tiny_model("llama"), objective, template=CUED)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    assert module.adaptive is not None
    module.adaptive.observe = lambda logits_E, gold_P: seen.append((logits_E, gold_P))  # type: ignore[method-assign]
    module.eval()(**batches(ALL))
    assert not seen  # validation leaves the temperature alone
    module.train()(**batches(ALL))
    ((logits_E, gold_P),) = seen

    prompter = Prompter(tiny_catalogue(TITLES), module.model.tokenizer, CUED, context=64)
    expected, golds = [], []
    for history, target in zip(HISTORIES, TARGETS, strict=True):
        # w18 is forced, so the first branching position is after it.
        tokens = torch.tensor([[*prompter.prompt(history).tolist(), 18]])
        children = children_of([(18, *title) for title in TITLES], [18])
        golds.append(len(expected) + children.index(TITLES[target][0]))
        expected += module.model.base(input_ids=tokens).logits[0, -1, children].tolist()
    torch.testing.assert_close(logits_E, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert gold_P.tolist() == golds


@pytest.mark.parametrize("objective", OBJECTIVES, ids=label)
def test_bfloat16_autocast_is_near(objective: Objective) -> None:
    module, batches = setup(tiny_model("llama"), objective)
    exact, _ = loss_and_gradients(module, batches(ALL))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module(**batches(ALL))["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("objective", [OBJECTIVES[2], *OBJECTIVES[4:]], ids=label)
def test_a_catalogue_of_one_title_teaches_nothing(objective: Objective) -> None:
    model = tiny_model("llama")
    prompter = Prompter(tiny_catalogue([(5, 6)]), model.tokenizer, PLAIN, context=64)
    nothing = np.zeros(2, dtype=np.int64)
    windows = Windows(nothing, [np.array([0], dtype=np.uint32)] * 2, nothing, nothing + 1)
    module = TrainingModule(model, objective, prompter.trie).train()
    loss, found = loss_and_gradients(module, BatchMaker(windows, prompter, scores="valid", row_tokens=64)([0, 1]))
    assert loss == 0
    assert all((gradient == 0).all() for gradient in found.values())


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "lml", "temperature": "adaptive"},
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": "hot"},
        {"name": "dpo"},
        {"eta": 1},
        {"momentum": 0},
        {"temprature": 1.0},
        {"name": "lml", "bear_weight": 1},
        {"bear_weight": -1},
        {"bear_beams": 0},
        {"bear_temperature": 0},
    ],
)
def test_wrong_objectives(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Objective(**fields)


def test_labels() -> None:
    assert [objective.label for objective in OBJECTIVES] == [
        "lml", "lml tau=0.5", "msl", "msl tau=2", "msl+ats", "msl+bear tau=1.5", "msl+ats+bear",
    ]  # fmt: skip
