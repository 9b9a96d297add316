"""The trie against reference values, brute force over the titles, and damaged files."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalign.catalogue import TitleTrie
from catalign.errors import UserError

END = 1
REFERENCE = Path(__file__).parents[3] / "shared" / "vectors" / "reference.json"

# Few tokens and short titles, so that shared prefixes, prefix titles and duplicates are common.
title_lists = st.lists(
    st.lists(st.sampled_from([0, 2, 3, 9]), min_size=1, max_size=5).map(lambda tokens: (*tokens, END)),
    min_size=1,
    max_size=12,
)


def build(titles: list[tuple[int, ...]], popularity: list[int] | None = None) -> TitleTrie:
    return TitleTrie.from_lists(titles, end_token=END, popularity=popularity)


def prefix_of(trie: TitleTrie, node: int) -> tuple[int, ...]:
    tokens: list[int] = []
    while node != 0:
        tokens.append(int(trie.token[node]))
        node = int(trie.parent[node])
    return tuple(reversed(tokens))


def same(one: TitleTrie, other: TitleTrie) -> bool:
    names = one.__dataclass_fields__
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names) and all(
        np.asarray(getattr(one, name)).dtype == np.asarray(getattr(other, name)).dtype for name in names
    )


def test_a_catalogue_by_hand() -> None:
    #        0 -- 5 -- 1        item 0
    #         \    \-- 7 -- 1   items 1 and 3
    #          8 -- 1           item 2
    trie = build([(5, 1), (5, 7, 1), (8, 1), (5, 7, 1)], popularity=[0, 2, 0, 3])
    assert trie.child_start.tolist() == [1, 3, 5, 6, 6, 7, 7, 7]
    assert trie.token.tolist() == [-1, 5, 8, 1, 7, 1, 1]
    assert trie.parent.tolist() == [-1, 0, 0, 1, 1, 2, 4]
    assert trie.depth.tolist() == [0, 1, 1, 2, 2, 2, 3]
    assert trie.alphabet.tolist() == [1, 5, 7, 8]
    assert trie.symbol.tolist() == [-1, 1, 3, 0, 2, 0, 0]
    assert trie.title_leaf.tolist() == [3, 5, 6]
    assert trie.item_title.tolist() == [0, 2, 1, 2]
    assert trie.items_below.tolist() == [4, 3, 1, 1, 2, 1, 2]
    assert trie.items_of(2).tolist() == [3, 1]  # the more popular first
    assert trie.children(1).tolist() == [3, 4]
    assert trie.decided_after([0, 1, 2]).tolist() == [2, 2, 1]
    assert np.flatnonzero(trie.restrict([True, False, False, False])).tolist() == [0, 1, 3]
    statistics = trie.statistics()
    assert (statistics.items, statistics.titles, statistics.shared_leaves, statistics.nodes) == (4, 3, 1, 7)
    assert statistics.mean_length == pytest.approx(7 / 3)
    assert statistics.mean_decided_after == pytest.approx(5 / 3)
    assert statistics.first_choices == 2
    assert statistics.forced_share == pytest.approx(2 / 7)  # the ends of items 1 and 2


@pytest.mark.realdata
def test_reference_values() -> None:
    if not REFERENCE.exists():
        pytest.skip("../shared/vectors is not beside the project")
    reference = json.loads(REFERENCE.read_text())
    trie = TitleTrie.from_lists(reference["titles"], end_token=reference["end"])
    expected = reference["trie"]
    assert trie.nodes == expected["nodes"]
    assert trie.token[trie.children(0)].tolist() == expected["root_children"]
    nodes, offsets = trie.paths(range(trie.items))
    branching = np.add.reduceat(trie.branching[trie.parent[nodes]], offsets[:-1], dtype=np.int64)
    assert branching.tolist() == expected["branching_positions"]
    assert trie.decided_after(range(trie.items)).tolist() == expected["decided_after"]


@pytest.mark.realdata
@pytest.mark.parametrize("mode", ["valid", "full"])
def test_reference_search_by_edges(mode: str) -> None:
    """Every node's tokens ask the table model for logits; summed edge scores of a path are the item's score."""
    if not REFERENCE.exists():
        pytest.skip("../shared/vectors is not beside the project")
    reference = json.loads(REFERENCE.read_text())
    trie = TitleTrie.from_lists(reference["titles"], end_token=reference["end"])
    edge_score = np.zeros(trie.nodes)
    for node in np.flatnonzero(np.diff(trie.child_start)):
        prefix = ",".join(map(str, prefix_of(trie, int(node))))
        logits = np.array(reference["search"]["next_token_logits"][prefix])
        children = trie.children(int(node))
        normalised = logits[trie.token[children]] if mode == "valid" else logits
        edge_score[children] = logits[trie.token[children]] - np.log(np.exp(normalised).sum())
    nodes, offsets = trie.paths(range(trie.items))
    scores = np.add.reduceat(edge_score[nodes], offsets[:-1])
    np.testing.assert_allclose(scores, reference["search"]["scores"][mode], atol=1e-10)
    assert np.argsort(-scores).tolist() == reference["search"]["ranking"][mode]


@given(title_lists)
def test_nodes_are_exactly_the_prefixes(titles: list[tuple[int, ...]]) -> None:
    trie = build(titles)
    prefixes = {title[:length] for title in titles for length in range(len(title) + 1)}
    found = [prefix_of(trie, node) for node in range(trie.nodes)]
    assert set(found) == prefixes
    assert found == sorted(found, key=lambda prefix: (len(prefix), prefix))  # breadth first, siblings by token
    assert trie.depth.tolist() == [len(prefix) for prefix in found]
    for node in range(trie.nodes):
        assert (trie.parent[trie.children(node)] == node).all()
    assert trie.alphabet[trie.symbol[1:]].tolist() == trie.token[1:].tolist()
    assert trie.symbol[0] == -1


@given(title_lists, st.data())
def test_paths_round_trip(titles: list[tuple[int, ...]], data: st.DataObject) -> None:
    trie = build(titles)
    items = data.draw(st.lists(st.integers(0, len(titles) - 1), max_size=20))
    nodes, offsets = trie.paths(items)
    assert len(offsets) == len(items) + 1
    for item, first, end in zip(items, offsets[:-1], offsets[1:], strict=True):
        assert tuple(trie.token[nodes[first:end]].tolist()) == titles[item]
        assert nodes[end - 1] == trie.title_leaf[trie.item_title[item]]


@given(title_lists, st.data())
def test_items_share_a_leaf_when_their_titles_are_equal(titles: list[tuple[int, ...]], data: st.DataObject) -> None:
    popularity = data.draw(st.lists(st.integers(0, 3), min_size=len(titles), max_size=len(titles)))
    trie = build(titles, popularity)
    assert trie.titles == len(set(titles))
    for item, title in enumerate(titles):
        sharing = [other for other in range(len(titles)) if titles[other] == title]
        by_popularity = sorted(sharing, key=lambda other: (-popularity[other], other))
        assert trie.items_of(int(trie.item_title[item])).tolist() == by_popularity
    assert trie.leaf_title[trie.title_leaf].tolist() == list(range(trie.titles))
    assert (trie.leaf_title >= 0).sum() == trie.titles


@given(title_lists, st.data())
def test_restrict_is_brute_force(titles: list[tuple[int, ...]], data: st.DataObject) -> None:
    trie = build(titles)
    allowed = data.draw(st.lists(st.booleans(), min_size=len(titles), max_size=len(titles)))
    counts = trie.count_items(allowed)
    for node, kept in enumerate(trie.restrict(allowed)):
        prefix = prefix_of(trie, node)
        below = [title[: len(prefix)] == prefix for title in titles]
        assert trie.items_below[node] == sum(below)
        assert counts[node] == sum(under and may for under, may in zip(below, allowed, strict=True))
        assert kept == (counts[node] > 0)


@given(title_lists)
def test_decided_after_is_brute_force(titles: list[tuple[int, ...]]) -> None:
    trie = build(titles)
    distinct = set(titles)
    decided = trie.decided_after(range(len(titles)))
    for item, title in enumerate(titles):
        remaining = [sum(other[:length] == title[:length] for other in distinct) for length in range(len(title) + 1)]
        assert decided[item] == remaining.index(1)


def test_a_title_that_begins_another_keeps_its_own_end() -> None:
    trie = build([(4, 1), (4, 4, 1), (4, 4, 4, 1)])
    assert trie.titles == 3
    assert trie.decided_after([0, 1, 2]).tolist() == [2, 3, 3]


def test_a_catalogue_of_one_title_is_decided_at_once() -> None:
    trie = build([(4, 5, 1), (4, 5, 1)])
    assert trie.decided_after([0, 1]).tolist() == [0, 0]
    assert trie.statistics().forced_share == 1


@pytest.mark.parametrize(
    ("titles", "said"),
    [
        ([], "no items"),
        ([(3, 1), (), (3, 1)], "item 1: the title is empty"),
        ([()], "item 0: the title is empty"),
        ([(3, 1), (3, 1), (1,)], "item 2: the title is empty"),
        ([(3, 1), (3, 4)], "item 1: the title does not end"),
        ([(3, 1), (3, 1, 4, 1), (1, 1)], r"item 1: the title holds the end token 1 before its end \(and 1 more\)"),
        ([(3, 1), (3, -4, 1)], "item 1: a token below 0"),
    ],
)
def test_titles_that_make_no_trie(titles: list[tuple[int, ...]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build(titles)


@given(titles=title_lists)
def test_save_and_load_are_identity(tmp_path_factory: pytest.TempPathFactory, titles: list[tuple[int, ...]]) -> None:
    folder = tmp_path_factory.mktemp("trie")
    trie = build(titles, popularity=list(range(len(titles))))
    trie.save(folder)
    assert same(TitleTrie.load(folder), trie)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("child_start", lambda array: array[:-1]),
        ("child_start", lambda array: array.astype(np.int32)),
        ("child_start", lambda array: np.r_[array[:2], 0, array[3:]]),
        ("child_start", lambda array: np.r_[1, 1, array[2:]]),  # the root without children: a cycle below it
        ("token", lambda array: np.r_[array[0], array[2], array[1], array[3:]]),
        ("token", lambda array: np.where(array == END, 6, array)),
        ("title_items", lambda array: np.zeros_like(array)),
        ("title_items", lambda array: array[:-1]),
        ("title_items_start", lambda array: np.r_[array[:1], array[:1], array[2:]]),
        ("end_token", lambda array: np.array([1, 1])),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, damage) -> None:  # type: ignore[no-untyped-def]
    build([(5, 1), (5, 7, 1), (8, 1), (5, 7, 1)]).save(tmp_path)
    path = tmp_path / "trie.npz"
    with np.load(path) as file:
        saved = dict(file)
    saved[name] = damage(saved[name]) if name == "child_start" else damage(saved[name]).astype(saved[name].dtype)
    np.savez(path, **saved)
    with pytest.raises(UserError, match="is not a saved trie"):
        TitleTrie.load(tmp_path)


def test_files_that_are_no_trie_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        TitleTrie.load(tmp_path)
    (tmp_path / "trie.npz").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(UserError, match="is not a saved trie"):
        TitleTrie.load(tmp_path)
    np.savez(tmp_path / "trie.npz", child_start=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="is not a saved trie"):
        TitleTrie.load(tmp_path)
