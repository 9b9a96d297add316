"""Looking items up, saving, and what a table must hold to be a catalogue."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalign.catalogue import Catalogue
from catalign.errors import UserError

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
catalogues = st.lists(st.tuples(text, text, st.integers(0, 5)), min_size=1, max_size=10, unique_by=lambda row: row[0])


def shop() -> Catalogue:
    return Catalogue.from_lists(
        ["a", "b", "c", "d", "e"],
        ["Halo 3", "Gran Turismo 5", "Halo 3", "Halo: Reach", "a"],
        popularity=[1, 9, 4, 2, 0],
    )


def test_an_item_is_found_by_its_id_or_its_title() -> None:
    catalogue = shop()
    assert catalogue.index_of("b") == 1
    assert catalogue.index_of("Gran Turismo 5") == 1
    assert catalogue.index_of("Halo 3") == 2  # the most popular of the two
    assert catalogue.index_of("a") == 0  # an id before a title


def test_equally_popular_items_of_one_title_go_by_index() -> None:
    assert Catalogue.from_lists("abc", ["x", "y", "x"]).index_of("x") == 0


def test_an_unknown_title_gets_the_nearest_ones() -> None:
    with pytest.raises(UserError) as raised:
        shop().index_of("gran turismo V")
    assert '"gran turismo V"' in str(raised.value)
    assert 'did you mean "Gran Turismo 5"' in str(raised.value)


def test_nearest_titles_are_distinct_and_ignore_case() -> None:
    assert shop().nearest_titles("HALO 4") == ["Halo 3", "Halo: Reach"]
    assert shop().nearest_titles("zzzz") == []
    assert shop().nearest_titles("  ") == []


def test_nearest_titles_among_many() -> None:
    titles = [f"Product number {number} of many" for number in range(20_000)] + ["Astérix & Obelix"]
    catalogue = Catalogue.from_lists(map(str, range(len(titles))), titles)
    assert catalogue.nearest_titles("asterix and obelix")[0] == "Astérix & Obelix"


def test_the_digest_depends_on_ids_titles_and_order() -> None:
    base = Catalogue.from_lists(["1", "2"], ["a", "b"])
    assert base.digest == Catalogue.from_lists(["1", "2"], ["a", "b"], popularity=[5, 5]).digest
    others = [(["1", "3"], ["a", "b"]), (["1", "2"], ["a", "c"]), (["2", "1"], ["b", "a"]), (["1", "2"], ["b", "a"])]
    assert base.digest not in {Catalogue.from_lists(ids, titles).digest for ids, titles in others}


@given(catalogues)
def test_save_and_load_are_identity(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int]]) -> None:
    folder = tmp_path_factory.mktemp("catalogue")
    ids, titles, popularity = zip(*rows, strict=True)
    catalogue = Catalogue.from_lists(ids, titles, popularity)
    catalogue.save(folder)
    loaded = Catalogue.load(folder)
    assert loaded.item_ids == list(ids)
    assert loaded.titles == list(titles)
    assert loaded.popularity.tolist() == list(popularity)
    assert loaded.popularity.dtype == np.int64
    assert loaded.digest == catalogue.digest
    assert loaded.metadata is None


def test_metadata_is_kept(tmp_path: Path) -> None:
    frame = pl.DataFrame({"item_id": ["1", "2"], "brand": ["x", None], "title": ["a", "b"], "price": [1.5, 2.0]})
    catalogue = Catalogue.from_frame(frame, popularity=[3, 4])
    catalogue.save(tmp_path)
    loaded = Catalogue.load(tmp_path)
    assert loaded.metadata is not None
    assert loaded.metadata.equals(frame.select("brand", "price"))
    assert loaded.to_frame().columns == ["item_id", "title", "training_count", "brand", "price"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"item_id": ["1"]}, 'no text column "title"'),
        ({"item_id": [1], "title": ["a"]}, 'no text column "item_id"'),
        ({"item_id": ["1", "2"], "title": ["a", None]}, "1 without title, the first in row 1"),
        ({"item_id": ["1", "1"], "title": ["a", "b"]}, 'the item id "1" occurs more than once'),
        ({"item_id": ["1"], "title": ["a"], "training_count": [1]}, "training_count"),
    ],
)
def test_tables_that_are_no_catalogue(columns: dict[str, list[object]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Catalogue.from_frame(pl.DataFrame(columns))


def test_no_items() -> None:
    with pytest.raises(UserError, match="has no items"):
        Catalogue.from_lists([], [])


def test_folders_that_hold_no_catalogue(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Catalogue.load(tmp_path)
    path = tmp_path / "catalogue.parquet"
    path.write_bytes(b"not Parquet at all")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        Catalogue.load(tmp_path)
    pl.DataFrame({"item_id": ["1"], "title": ["a"]}).write_parquet(path)
    with pytest.raises(UserError, match="training_count"):
        Catalogue.load(tmp_path)


@given(st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=10), st.integers(1, 4))
def test_the_trie_closes_every_encoded_title(titles: list[str], at_once: int) -> None:
    catalogue = Catalogue.from_lists(map(str, range(len(titles))), titles, popularity=range(len(titles)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("catalign.catalogue.catalogue.ENCODED_AT_ONCE", at_once)
        trie = catalogue.build_trie(lambda batch: [[ord(letter) for letter in title] for title in batch], end_token=2)
    nodes, offsets = trie.paths(range(len(titles)))
    for item, title in enumerate(titles):
        path = trie.token[nodes[offsets[item] : offsets[item + 1]]].tolist()
        assert path == [*map(ord, title), 2]
        assert trie.items_of(int(trie.item_title[item]))[0] == catalogue.index_of(title)


def test_a_title_without_tokens_is_named() -> None:
    with pytest.raises(UserError, match="item 1: the title is empty"):
        Catalogue.from_lists(["i", "j"], ["a", ""]).build_trie(lambda batch: [[ord(x) for x in t] for t in batch], 2)


@given(st.lists(st.tuples(st.sampled_from("xyzab"), st.integers(0, 3)), min_size=1, max_size=6))
def test_many_are_found_as_each_alone(items: list[tuple[str, int]]) -> None:
    titles, counts = [title for title, _ in items], [count for _, count in items]
    catalogue = Catalogue.from_lists("abcdef"[: len(items)], titles, counts)
    asked = [*"abcdefxyz", "", None, "x", "nothing"]
    found = catalogue.find_all(pl.Series(asked, dtype=pl.String)).to_list()
    assert found == [None if text is None else catalogue.find(text) for text in asked]
