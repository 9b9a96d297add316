"""Losses of prompts with item tokens: a forest trains as padded rows do, and as a dense computation has it."""

import numpy as np
import pytest
import torch

from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN, Template
from catalign.training.batches import BatchMaker, Windows
from catalign.training.distance import frozen_copy
from catalign.training.module import Objective, TrainingModule
from tiny import END, VOCABULARY, children_of, model_with_items, tiny_catalogue

TITLES = [(5,), (5, 6), (5, 6, 7, 7), (8, 9), (8, 9, 10, 11), (12, 12, 12), (5,), (13, 14)]
KNOWN = [0, 1, 3, 4, 6]  # the others have no embedding
HISTORIES = [[0], [0, 3], [0, 3, 4], [5, 1], [5, 1, 2], [7], [7, 7, 6], [6]]
TARGETS = [3, 4, 2, 2, 6, 7, 0, 1]
ALL = list(range(len(TARGETS)))
CUED = Template(name="cued", opening="w20 w21", item="w22 {title}", closing="w19", answer="w18 {title}")
Parts = tuple[TrainingModule, BatchMaker]


def setup(objective: Objective, template: Template, *, share: bool = True, architecture: str = "llama") -> Parts:
    model, catalogue = model_with_items(KNOWN, architecture), tiny_catalogue(TITLES)
    prompter = Prompter(
        catalogue, model.tokenizer, template, context=model.context, item_tokens=model.item_tokens(catalogue)
    )
    histories = [np.array(history, dtype=np.uint32) for history in HISTORIES]
    seen = np.array([len(history) for history in histories])
    windows = Windows(np.zeros(len(TARGETS), dtype=np.int64), histories, np.array(TARGETS), seen)
    batches = BatchMaker(windows, prompter, scores=objective.scores, row_tokens=64, share=share)
    return TrainingModule(model, objective, prompter.trie), batches


def losses_and_gradients(parts: Parts) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    module, batches = parts
    batch = batches(ALL)
    module(**batch)["loss"].backward()
    gradients = {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}
    return module.token_losses(**batch).detach(), gradients


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "opt"])
@pytest.mark.parametrize("template", [PLAIN, CUED], ids=["plain", "cued"])
@pytest.mark.parametrize("name", ["lml", "msl"])
def test_a_forest_trains_as_padded_rows_do(name: str, template: Template, architecture: str) -> None:
    objective = Objective.model_validate({"name": name})
    shared = losses_and_gradients(setup(objective, template, architecture=architecture))
    rows = losses_and_gradients(setup(objective, template, architecture=architecture, share=False))
    torch.testing.assert_close(shared[0], rows[0], rtol=1e-4, atol=1e-5)
    assert shared[1].keys() == rows[1].keys()
    assert {name for name in shared[1] if "projector" in name}
    for name, gradient in rows[1].items():
        torch.testing.assert_close(shared[1][name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()) + 1e-6)


@pytest.mark.parametrize("name", ["lml", "msl"])
@torch.no_grad()
def test_the_loss_is_that_of_the_whole_model_on_vectors(name: str) -> None:
    """One sequence at a time, its vectors put together by hand, logits of the whole model."""
    module, batches = setup(Objective.model_validate({"name": name}), PLAIN)
    items = module.model.item_embedding
    assert items is not None
    expected = []
    for history, target in zip(HISTORIES, TARGETS, strict=True):
        prompt = batches.prompter.prompt(history).tolist()
        title = [*TITLES[target], END]
        vectors = [
            items.projector(items.vector_IW[token - VOCABULARY])
            if token >= VOCABULARY
            else module.model.base.get_input_embeddings().weight[token]
            for token in [*prompt, *title]
        ]
        logit_TV = module.model.base(inputs_embeds=torch.stack(vectors)[None]).logits[0]
        for depth, token in enumerate(title):
            logit_V = logit_TV[len(prompt) - 1 + depth]
            against = children_of(TITLES, title[:depth]) if name == "msl" else range(VOCABULARY)
            if len(against) > 1:
                expected.append(logit_V[list(against)].logsumexp(0) - logit_V[token])
    torch.testing.assert_close(module.token_losses(**batches(ALL)), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_merging_saves_as_much_as_without() -> None:
    """A target closed by its end token is the beginning of the history item that it becomes."""
    _, batches = setup(Objective(), PLAIN)
    tokens_in, tokens_out = batches([0, 1, 2])["token_counts"].tolist()
    longest = len(batches.prompter.prompt(HISTORIES[2])) + 1  # of the target's title, what is read
    assert tokens_in > tokens_out and tokens_out <= longest + 2


def test_the_frozen_copy_is_a_plain_text_model_and_freezes_nothing() -> None:
    module, _ = setup(Objective(), PLAIN)
    frozen = frozen_copy(module.model)
    assert frozen.item_embedding is None and not any(weight.requires_grad for weight in frozen.parameters())
    assert all(weight.requires_grad for weight in module.parameters())
