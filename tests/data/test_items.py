"""The rules for missing, repeated and duplicate titles."""

import polars as pl
import pytest

from catalign.data.items import settle_items, title_counts, with_numbers
from catalign.data.ledger import Ledger
from catalign.data.options import TitleOptions
from catalign.errors import UserError


def raw(*rows: tuple[str | None, str | None]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema={"item_id": pl.String, "title": pl.String}, orient="row")
    return frame.with_columns(file=pl.lit("items.csv"), row=pl.int_range(2, frame.height + 2))


def test_an_item_without_a_title_goes_but_is_known() -> None:
    ledger = Ledger()
    table = settle_items(raw(("a", "Apple"), ("b", " "), ("c", "<p></p>"), (None, "Pear")), TitleOptions(), ledger)
    assert table.frame.select("item_id", "title").rows() == [("a", "Apple")]
    assert table.known.rows() == [("a", "a"), ("b", None), ("c", None)]
    assert ledger.dropped == {"items": {"no item id": 1, "no title": 2}}
    assert [reject["row"] for reject in ledger.rejects] == [5, 3, 4]
    assert (table.changed, table.missing) == (0, 2)


def test_or_is_shown_by_its_id() -> None:
    table = settle_items(raw(("a", "Apple"), ("b", None)), TitleOptions(missing_titles="id"), Ledger())
    assert table.frame.select("item_id", "title").rows() == [("a", "Apple"), ("b", "b")]


def test_a_repeated_id_keeps_its_first_row_with_a_title() -> None:
    ledger = Ledger()
    table = settle_items(raw(("a", None), ("b", "Bean"), ("a", "Apple"), ("a", "Avocado")), TitleOptions(), ledger)
    assert table.frame.select("item_id", "title", "row").rows() == [("b", "Bean", 3), ("a", "Apple", 4)]
    assert ledger.dropped == {"items": {"repeated item id": 2}}


def test_items_that_share_a_title_stay_apart_or_become_one() -> None:
    rows = raw(("a", "Plum"), ("b", "Fig"), ("c", " Plum "), ("d", "Plum"))
    kept = settle_items(rows, TitleOptions(), Ledger())
    assert kept.frame["item_id"].to_list() == ["a", "b", "c", "d"]
    counts = title_counts(kept, kept.frame)
    assert (counts.items_sharing, counts.titles_shared, counts.changed) == (3, 1, 1)
    merged = settle_items(rows, TitleOptions(duplicate_titles="merge"), Ledger())
    assert merged.frame["item_id"].to_list() == ["a", "b"]
    assert merged.known.rows() == [("a", "a"), ("b", "b"), ("c", "a"), ("d", "a")]


def test_cleaning_can_be_turned_off() -> None:
    table = settle_items(raw(("a", " A &amp; B ")), TitleOptions(clean=False), Ledger())
    assert table.frame["title"].to_list() == [" A &amp; B "]
    assert table.changed == 0


def test_no_item_left_is_told() -> None:
    with pytest.raises(UserError, match=r"no item is left \(2 no title\)"):
        settle_items(raw(("a", None), ("b", "")), TitleOptions(), Ledger())


def test_metadata_that_are_numbers_become_numbers_and_nothing_else_does() -> None:
    items = pl.DataFrame(
        {
            "item_id": ["1", "2", "3"], "title": ["10", "11", "12"], "price": ["1.50", " ", "-20"],
            "year": ["1999", "2001", None], "code": ["007", "12", "3"], "kind": ["a", "1", "2"],
            "long": ["9" * 17, "1", "2"], "none": [None, "", None], "tags": [["1"], [], ["2"]],
        },
        schema_overrides={"none": pl.String},
    )  # fmt: skip
    typed = with_numbers(items)
    assert typed["price"].to_list() == [1.5, None, -20.0]
    assert typed["year"].to_list() == [1999, 2001, None] and typed["year"].dtype == pl.Int64
    rest = [name for name in items.columns if name not in ("price", "year")]
    assert typed.select(rest).equals(items.select(rest))
