"""The row length is the one with the least counted work."""

import numpy as np

from catalign.model.embedded import build_model
from catalign.model.language_model import LanguageModel
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN
from catalign.training.batches import BatchMaker, Windows
from catalign.training.rows import ATTENTION, LENGTHS, choose_row_tokens
from tiny import VOCABULARY, tiny_catalogue, tiny_model

TITLES = [(first, second, third, 7, 8) for first in range(3, 9) for second in range(3, 9) for third in range(3, 9)]


def maker_of(model: LanguageModel, histories: list[list[int]]) -> BatchMaker:
    prompter = Prompter(tiny_catalogue(TITLES), model.tokenizer, PLAIN, context=5_000)
    rows = [np.array(history, dtype=np.uint32) for history in histories]
    windows = Windows(np.arange(len(rows)), rows, np.zeros(len(rows), dtype=np.int64), np.full(len(rows), 1))
    return BatchMaker(windows, prompter, scores="vocabulary", row_tokens=64)


def work(maker: BatchMaker, numbers: list[int], model: LanguageModel, length: int) -> float:
    """Multiplications and additions, layer by layer."""
    maker.row_tokens = length
    rows, nodes = maker(numbers)["token_RN"].shape
    config = model.base.config
    head, inner, groups = config.hidden_size // 4, config.intermediate_size, config.num_key_value_heads
    weights = config.hidden_size * (2 * config.hidden_size + 2 * groups * head + 3 * inner)
    each = 2 * weights + 4 * config.hidden_size * nodes * ATTENTION
    return float(rows * nodes * config.num_hidden_layers * each)


def test_it_is_the_least_of_all_lengths() -> None:
    model = tiny_model("llama")
    generator = np.random.default_rng(0)
    maker = maker_of(model, [generator.integers(0, 200, 30).tolist() for _ in range(40)])
    numbers = list(range(40))
    found = choose_row_tokens(maker, [numbers], model)
    works = {length: work(maker, numbers, model, length) for length in LENGTHS}
    assert works[found] == min(works.values()) and found < max(LENGTHS)


def test_what_shares_more_gets_longer_rows() -> None:
    model = LanguageModel(build_model("tiny", VOCABULARY, 0), tiny_model("llama").tokenizer)
    beginning = list(range(60))
    same = maker_of(model, [[*beginning, number] for number in range(60, 100)])
    different = maker_of(model, [[(item * 7 + number) % 200 for item in beginning] for number in range(40)])
    numbers = list(range(40))
    assert choose_row_tokens(same, [numbers], model) > choose_row_tokens(different, [numbers], model)
