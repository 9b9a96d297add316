"""The prefix forest: what it holds, and that a model sees in it exactly the separate sequences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.model.forest import Forest, ancestor_mask, pack_forest, pack_rows
from catalign.model.language_model import LanguageModel
from tiny import ARCHITECTURES, VOCABULARY, tiny_model

Lists = list[list[int]]

sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=14)


@st.composite
def families(draw: st.DrawFn) -> Lists:
    """Sequences that share much: a common header, then growing prefixes of a few long ones."""
    header = draw(st.lists(st.integers(0, 60_000), max_size=4))
    long = draw(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=3))
    cuts = draw(st.lists(st.tuples(st.integers(0, len(long) - 1), st.integers(1, 12)), min_size=1, max_size=12))
    return [header + long[which][:length] for which, length in cuts]


any_sequences = st.one_of(sequences, families())
budgets = st.integers(1, 40)


def pack(lists: Lists, budget: int) -> Forest:
    return pack_forest([np.array(tokens, dtype=np.int32) for tokens in lists], budget)


def distinct_prefixes(lists: Lists) -> int:
    return len({tuple(tokens[: length + 1]) for tokens in lists for length in range(len(tokens))})


@given(any_sequences, budgets)
def test_every_sequence_is_found_again_and_sees_itself_alone(lists: Lists, budget: int) -> None:
    forest = pack(lists, budget)
    assert forest.end_RN is not None
    visible_R1NN = ancestor_mask(forest.end_RN)
    for number, tokens in enumerate(lists):
        row, nodes = forest.row_S[number], forest.node_ST[number]
        assert (nodes[len(tokens) :] == -1).all()
        nodes = nodes[: len(tokens)]
        assert forest.token_RN[row, nodes].tolist() == tokens
        assert forest.depth_RN[row, nodes].tolist() == list(range(len(tokens)))
        for position, node in enumerate(nodes):
            assert visible_R1NN[row, 0, node].nonzero().flatten().tolist() == nodes[: position + 1].tolist()


@given(any_sequences, budgets)
def test_nodes_are_the_distinct_prefixes_of_a_row(lists: Lists, budget: int) -> None:
    forest = pack(lists, budget)
    assert forest.tokens_in == sum(map(len, lists))
    used = 0
    for row in range(len(forest.token_RN)):
        members = [tokens for number, tokens in enumerate(lists) if forest.row_S[number] == row]
        assert members
        nodes = distinct_prefixes(members)
        used += nodes
        assert nodes <= budget or len({tuple(tokens) for tokens in members if len(tokens) > budget}) == 1
        assert nodes <= max(budget, *map(len, members))
        # Padding attends to itself, so no row of the softmax is empty.
        padding = torch.arange(nodes, forest.token_RN.shape[1])
        assert forest.end_RN is not None
        assert (forest.end_RN[row, padding] == padding + 1).all()
        assert (forest.token_RN[row, padding] == 0).all()
    assert forest.tokens_out == used
    if distinct_prefixes(lists) <= budget:
        assert len(forest.token_RN) == 1


@given(any_sequences, budgets, st.randoms(use_true_random=False))
def test_order_and_history_of_calls_change_nothing(lists: Lists, budget: int, random: object) -> None:
    order = list(range(len(lists)))
    random.shuffle(order)  # type: ignore[attr-defined]
    first = pack(lists, budget)
    again = pack([lists[number] for number in order], budget)
    assert torch.equal(first.token_RN, again.token_RN)
    assert first.end_RN is not None and again.end_RN is not None
    assert torch.equal(first.end_RN, again.end_RN)
    assert torch.equal(first.depth_RN, again.depth_RN)
    assert (first.row_S[order] == again.row_S).all()
    assert (first.node_ST[order] == again.node_ST).all()


@given(any_sequences)
def test_plain_rows(lists: Lists) -> None:
    forest = pack_rows([np.array(tokens) for tokens in lists])
    assert forest.end_RN is None
    assert forest.tokens_in == forest.tokens_out == sum(map(len, lists))
    assert forest.row_S.tolist() == list(range(len(lists)))
    for number, tokens in enumerate(lists):
        nodes = forest.node_ST[number]
        assert nodes[: len(tokens)].tolist() == list(range(len(tokens)))
        assert (nodes[len(tokens) :] == -1).all()
        assert forest.token_RN[number].tolist() == tokens + [0] * (len(nodes) - len(tokens))


@pytest.mark.parametrize("lists", [[], [[]], [[1], []]])
def test_empty_sequences_are_refused(lists: Lists) -> None:
    with pytest.raises(ValueError, match="no empty one"):
        pack(lists, 10)
    with pytest.raises(ValueError, match="no empty one"):
        pack_rows([np.array(tokens, dtype=np.int32) for tokens in lists])


def shared_sequences(seed: int) -> Lists:
    """Two headers, several users with growing histories, several endings; 22 tokens at most."""
    random = np.random.default_rng(seed)
    lists: Lists = []
    for header in ([0, 5, 6], [0, 5, 7, 8]):
        for _ in range(3):
            user = header + random.integers(3, VOCABULARY, 14).tolist()
            for cut in (5, 9, 14, len(user)):
                lists += [user[:cut] + random.integers(3, VOCABULARY, length).tolist() for length in (0, 1, 4)]
    return [lists[number] for number in random.permutation(len(lists))]


def separate_hidden(model: LanguageModel, tokens: list[int]) -> torch.Tensor:
    """Hidden states [T, H] from the plain Hugging Face model, the sequence on its own."""
    output = model.base(input_ids=torch.tensor([tokens]), output_hidden_states=True)
    hidden: torch.Tensor = output.hidden_states[-1][0]
    return hidden


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_hidden_states_equal_those_of_separate_sequences(architecture: str) -> None:
    model, lists = tiny_model(architecture), shared_sequences(1)
    number_P = np.repeat(np.arange(len(lists)), list(map(len, lists)))
    position_P = np.concatenate([np.arange(len(tokens)) for tokens in lists])
    if architecture == "opt":  # the projection out of the decoder comes after the recorded hidden states
        expected_PH = torch.cat([model.decoder(input_ids=torch.tensor([tokens]))[0][0] for tokens in lists])
    else:
        expected_PH = torch.cat([separate_hidden(model, tokens) for tokens in lists])
    for forest in (
        pack(lists, 10_000),
        pack(lists, 64),
        pack(lists, 1),
        pack_rows([np.array(tokens) for tokens in lists]),
    ):
        node_P = torch.from_numpy(forest.flat_nodes(number_P, position_P))
        hidden_PH = model.forest_hidden(forest, node_P)
        torch.testing.assert_close(hidden_PH, expected_PH, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    lists=any_sequences.map(lambda lists: [[token % VOCABULARY for token in tokens] for tokens in lists]),
    budget=budgets,
)
@torch.no_grad()
def test_last_hidden_states_of_any_forest(lists: Lists, budget: int) -> None:
    model = tiny_model("llama")
    forest = pack(lists, budget)
    last = np.array([len(tokens) - 1 for tokens in lists])
    hidden_SH = model.forest_hidden(forest, torch.from_numpy(forest.flat_nodes(np.arange(len(lists)), last)))
    expected_SH = torch.stack([separate_hidden(model, tokens)[-1] for tokens in lists])
    torch.testing.assert_close(hidden_SH, expected_SH, rtol=1e-5, atol=1e-5)
