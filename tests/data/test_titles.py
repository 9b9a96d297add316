"""Title strategies: formats, lengths, marks that tell items of one title apart."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.data.items import finish_titles, settle_items
from catalign.data.ledger import Ledger
from catalign.data.options import TitleOptions
from catalign.data.titles import (
    TitleFormat,
    distinguish,
    load_tokenizer,
    plain_text,
    shorten_to_tokens,
    shorten_to_words,
    token_counter,
)
from catalign.errors import UserError
from catalign.model.embedded import build_tokenizer

GAMES = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d"],
        "title": ["Halo", "Halo", "Tetris", "Doom"],
        "brand": ["Bungie", "Bungie", None, " <b>id</b> Software "],
        "year": [2001, 2004, 1989, None],
    }
)


def written(text: str, *, clean: bool = True) -> list[str]:
    return TitleFormat(text).write(GAMES, clean=clean)[0].to_list()


def test_the_title_alone_is_the_default() -> None:
    assert written("{title}") == GAMES["title"].to_list()
    assert TitleOptions().title_format == "{title}"


def test_an_item_without_a_field_has_no_dangling_words() -> None:
    titles, alone = TitleFormat("{title} by {brand}").write(GAMES, clean=True)
    assert titles.to_list() == ["Halo by Bungie", "Halo by Bungie", "Tetris", "Doom by id Software"]
    assert alone == 1
    assert written("{title}[ by {brand}][ ({year})]") == [
        "Halo by Bungie (2001)", "Halo by Bungie (2004)", "Tetris (1989)", "Doom by id Software",
    ]  # fmt: skip
    assert written("{item_id}: {title}")[2] == "c: Tetris"
    assert written("[{year} ]{title}[ by {brand} in {year}]")[2:] == ["1989 Tetris", "Doom"]


def test_doubled_brackets_stand_for_themselves() -> None:
    assert written("[[{title}]] {{{year}}}")[0] == "[Halo] {2001}"


def test_metadata_is_cleaned_like_titles() -> None:
    assert written("{title} by {brand}", clean=False)[3] == "Doom by  <b>id</b> Software "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{title", "bracket { at character 1 has no partner; write {{"),
        ("{title}]", "bracket ] at character 8"),
        ("{title}[ by [{brand}]]", "bracket [ at character 13 has no partner"),
        ("{title}[ by {brand}", "a square bracket is not closed"),
        ("{brand}", "does not hold {title} outside square brackets"),
        ("{brand}[ {title}]", "does not hold {title} outside square brackets"),
        ("", "does not hold {title}"),
    ],
)
def test_a_format_that_cannot_be_read_is_told(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        TitleOptions(title_format=text)
    assert said in str(caught.value)


@given(
    st.text(alphabet="{}[]ab ") | st.lists(st.sampled_from(["{title}", "{brand}", "[", "]", "{{", " by "])).map("".join)
)
def test_any_format_is_read_or_told(text: str) -> None:
    try:
        chosen = TitleFormat(text)
    except UserError:
        return
    if set(chosen.fields) <= set(GAMES.columns):
        titles, _ = chosen.write(GAMES, clean=True)
        assert all(title in written for title, written in zip(GAMES["title"], titles, strict=True))


def test_a_field_that_is_not_there_is_told() -> None:
    with pytest.raises(
        UserError, match=r"no field 'maker'; choose from item_id, title, brand, year, or keep .*--metadata"
    ):
        written("{title} by {maker}")
    objects = GAMES.with_columns(tags=pl.struct("brand"))
    with pytest.raises(UserError, match="'tags' holds objects"):
        TitleFormat("{title} {tags}").write(objects, clean=True)


def test_lists_are_shown_as_their_members() -> None:
    tags = pl.Series("tags", ['["PC", "R&amp;D"]', "[]", '["one"]', "[1993] plain"])
    assert plain_text(tags, clean=True).to_list() == ["PC, R&D", None, "one", "[1993] plain"]
    assert plain_text(pl.Series("tags", [["PC", "Xbox"], [], None, [None]]), clean=False).to_list() == [
        "PC, Xbox", None, None, None,
    ]  # fmt: skip
    years = GAMES.with_columns(years=pl.Series([[2001, 2002], [2003], [], None]))
    assert TitleFormat("{title}[ ({years})]").write(years, clean=True)[0][0] == "Halo (2001, 2002)"


@pytest.mark.parametrize(
    ("title", "most", "short"),
    [
        ("The Legend of Zelda", 3, "The Legend of"),
        ("The Legend of Zelda", 4, "The Legend of Zelda"),
        ("Zelda: The Wind Waker", 1, "Zelda"),
        ("Halo - Combat Evolved", 2, "Halo"),
        ("- - -", 2, "- -"),
        ("Halo  (Xbox 360)", 2, "Halo  (Xbox"),
    ],
)
def test_titles_are_cut_between_words(title: str, most: int, short: str) -> None:
    assert shorten_to_words(pl.Series("name", [title]), most).to_list() == [short]


def count_letters(texts: list[str]) -> np.ndarray:
    return np.array([len(text) for text in texts], dtype=np.int64)


def test_titles_are_cut_to_tokens_between_words() -> None:
    titles = pl.Series("title", ["one two three", "one", "extraordinary thing", "one two"])
    assert shorten_to_tokens(titles, 7, count_letters).to_list() == ["one two", "one", "extraordinary", "one two"]
    assert shorten_to_tokens(titles, 100, count_letters).to_list() == titles.to_list()


@given(
    st.lists(st.text(alphabet="ab ,-(é", min_size=1).filter(str.strip), min_size=1, max_size=8),
    st.integers(min_value=1, max_value=9),
)
def test_a_cut_title_is_the_longest_beginning_that_fits(titles: list[str], most: int) -> None:
    short = shorten_to_tokens(pl.Series("title", titles), most, count_letters).to_list()
    for title, cut in zip(titles, short, strict=True):
        words = title.split()
        assert title.startswith(cut) or title.strip().startswith(cut.strip())
        assert len(cut) <= most or len(cut.split()) == 1
        assert cut.split()
        if cut != title and len(cut.split()) < len(words):
            longer = shorten_to_words(pl.Series("title", [title]), len(cut.split()) + 1)[0]
            assert len(longer) > most or longer == cut


def test_the_tokens_of_a_real_tokenizer_are_counted(tmp_path: Path) -> None:
    titles = ["red lamp of the north", "blue kettle", "red kettle of the south <end>"]
    build_tokenizer(titles, 300).save_pretrained(tmp_path)
    count = token_counter(load_tokenizer(str(tmp_path)))
    options = TitleOptions(title_tokens=int(count(["red lamp of"])[0]), tokenizer=str(tmp_path))
    raw = pl.DataFrame({"item_id": ["a", "b", "c"], "title": titles, "file": "items.csv", "row": [2, 3, 4]})
    table = settle_items(raw, options, Ledger())
    assert table.frame["title"][0] == "red lamp of"
    assert (count(table.frame["title"].to_list()) <= count(["red lamp of"])[0]).all()
    assert table.shortened == sum(now != was for now, was in zip(table.frame["title"], titles, strict=True))


def test_a_tokenizer_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no tokenizer"):
        load_tokenizer(str(tmp_path))
    with pytest.raises(UserError, match="cannot be loaded as a tokenizer"):
        load_tokenizer("no/such-model")
    with pytest.raises(UserError, match="--title-tokens and --tokenizer go together"):
        TitleOptions(title_tokens=3)
    with pytest.raises(UserError, match="two measures of one thing"):
        TitleOptions(title_tokens=3, tokenizer="x", title_words=3)


def test_items_of_one_title_are_told_apart_by_the_first_column_that_differs() -> None:
    items = pl.DataFrame(
        {
            "item_id": ["1", "2", "3", "4", "5", "6", "7", "8"],
            "title": ["Halo", "Halo", "Halo", "Doom", "Doom", "Doom", "Pong", "Chess"],
            "platform": ["Xbox", "Xbox", "PC", None, None, "PC", "PC", "PC"],
            "blurb": ["x" * 61, "y" * 61, "z" * 61, *"abcde"],
            "year": [2001, 2004, 2001, 1993, 1993, 1993, 1972, None],
        }
    )
    marked, counts = distinguish(items, clean=True)
    assert marked["title"].to_list() == [
        "Halo (Xbox, 2001)", "Halo (Xbox, 2004)", "Halo (PC)", "Doom (a)", "Doom (b)", "Doom (PC)", "Pong", "Chess",
    ]  # fmt: skip
    assert counts == {"platform": 4, "blurb": 2, "year": 2}
    assert marked.drop("title").equals(items.drop("title"))


def test_the_item_id_is_the_last_resort() -> None:
    items = pl.DataFrame({"item_id": ["1", "2", "3"], "title": ["Halo", "Halo", "Halo (2)"], "brand": ["x", "x", "x"]})
    marked, counts = distinguish(items, clean=True)
    assert marked["title"].n_unique() == 3
    assert marked["title"][0] == "Halo (1)"
    assert counts == {"item id": 4}  # the second meets a title that is there, so both get their ids


def test_settled_items_keep_their_titles() -> None:
    items = GAMES.with_columns(title=pl.lit("Halo"), settled=pl.Series([True, False, False, False]))
    marked, _ = distinguish(items.drop("settled"), clean=True, settled=items["settled"])
    assert marked["title"].to_list() == ["Halo", "Halo (Bungie)", "Halo (1989)", "Halo (id Software)"]


texts = st.one_of(st.none(), st.sampled_from(["", "x", "y", "(1)", "x) (1"]))


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["t", "t (1)", "t (x)", "t (1) (2)", "u"]), texts, texts), min_size=1, max_size=7
    ),
    st.permutations(["1", "2", "1) (2", "x", "(1", "0", "x, 1"]),
)
def test_distinguished_titles_are_unique(rows: list[tuple[str, str | None, str | None]], ids: list[str]) -> None:
    frame = pl.DataFrame(rows, schema={"title": pl.String, "a": pl.String, "b": pl.String}, orient="row")
    items = pl.DataFrame({"item_id": ids[: len(rows)]}).hstack(frame)
    marked, counts = distinguish(items, clean=True)
    assert marked["title"].n_unique() == len(rows)
    same = marked["title"] == items["title"]
    assert bool(counts) == (not same.all())
    assert sum(counts.values()) >= int((~same).sum())


def test_cutting_comes_before_telling_apart() -> None:
    raw = GAMES.with_columns(
        title=pl.Series(["Halo One", "Halo Two", "Tetris", "Doom"]), file=pl.lit("f"), row=pl.lit(1)
    )
    options = TitleOptions(title_words=1, duplicate_titles="distinguish")
    table = settle_items(raw, options, Ledger())
    items, counts = finish_titles(table, table.frame, options)
    assert items["title"].to_list() == ["Halo (2001)", "Halo (2004)", "Tetris", "Doom"]
    assert (counts.shortened, counts.distinguished, counts.items_sharing) == (2, {"year": 2}, 0)


def test_merging_sees_the_written_titles() -> None:
    raw = GAMES.with_columns(file=pl.lit("f"), row=pl.lit(1))
    by_year = TitleOptions(title_format="{title} ({year})", duplicate_titles="merge")
    assert settle_items(raw, by_year, Ledger()).frame.height == 4
    by_brand = TitleOptions(title_format="{title} by {brand}", duplicate_titles="merge")
    table = settle_items(raw, by_brand, Ledger())
    assert table.frame["item_id"].to_list() == ["a", "c", "d"]
    assert table.known.filter(pl.col("source_id") == "b")["item_id"].to_list() == ["a"]
    assert table.alone == 1
