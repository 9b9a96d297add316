"""Titles and times."""

from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.data.cleaning import as_milliseconds, as_number, clean_titles, id_text


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Tom &amp; Jerry &#39;s &quot;Best&quot;", 'Tom & Jerry \'s "Best"'),
        ("Rock &amp;amp; Roll", "Rock & Roll"),
        ("AT&T &unknown; R&D;", "AT&T &unknown; R&D;"),
        ("<b>Bold</b> <i class='x'>and</i><br/>new", "Bold and new"),
        ("&lt;b&gt;Bold&lt;/b&gt;", "Bold"),
        ("I <3 You", "I <3 You"),
        ("Dune <Limited> 2 < 3", "Dune <Limited> 2 < 3"),
        ("Chess<script type='a'>var b = '<p>';</script> Set", "Chess Set"),
        ('<span class="a-size-medium a-color-secondary"', None),
        ("  a\t\nb\u00a0 c\u200b d \u0007", "a b c d"),
        ("Cafe\u0301", "Café"),
        ("   ", None),
        ("", None),
        (None, None),
    ],
)
def test_titles_become_what_a_person_would_write(raw: str | None, clean: str | None) -> None:
    assert clean_titles(pl.Series([raw], dtype=pl.String)).to_list() == [clean]


def test_cleaning_keeps_the_order_and_its_argument() -> None:
    titles = pl.Series(["b &amp; c", None, "a", "&lt;p&gt;"])
    assert clean_titles(titles).to_list() == ["b & c", None, "a", None]
    assert titles.to_list() == ["b &amp; c", None, "a", "&lt;p&gt;"]
    assert clean_titles(pl.Series([], dtype=pl.String)).to_list() == []


@settings(deadline=None)
@given(st.lists(st.text()))
def test_cleaning_is_done_after_one_pass_or_only_unwraps_further(titles: list[str]) -> None:
    once = clean_titles(pl.Series(titles, dtype=pl.String))
    assert once.len() == len(titles)
    for title in once.drop_nulls().to_list():
        assert title == " ".join(title.split())
        assert title


MOMENT = int(datetime(2018, 3, 1, 12, 30, 5, tzinfo=UTC).timestamp()) * 1000


@pytest.mark.parametrize(
    "column",
    [
        [str(MOMENT // 1000)],
        [f"{MOMENT / 1000:.1f}"],
        [str(MOMENT)],
        ["1.519907405e12"],
        [str(MOMENT * 1000)],
        [str(MOMENT * 1_000_000)],
        [MOMENT // 1000],
        [float(MOMENT)],
        ["2018-03-01T12:30:05"],
        ["2018-03-01 12:30:05"],
        [" 2018-03-01T12:30:05Z "],
        ["2018-03-01T12:30:05.000+00:00"],
        ["2018-03-01 14:30:05+02:00"],
        ["2018-03-01T07:30:05-0500"],
        ["2018-03-01 12:30:05 UTC"],
        [datetime(2018, 3, 1, 12, 30, 5)],
        [datetime(2018, 3, 1, 12, 30, 5, tzinfo=UTC)],
    ],
)
def test_a_moment_in_any_form(column: list[object]) -> None:
    assert as_milliseconds(pl.Series(column)).to_list() == [MOMENT]


def test_days_minutes_and_fractions() -> None:
    midnight = int(datetime(2018, 3, 1, tzinfo=UTC).timestamp()) * 1000
    times = as_milliseconds(pl.Series(["2018-03-01", "2018-03-01 00:01", "2018-03-01T00:00:00.25Z"]))
    assert times.to_list() == [midnight, midnight + 60_000, midnight + 250]
    assert as_milliseconds(pl.Series([date(2018, 3, 1)])).to_list() == [midnight]


def test_what_is_no_time_is_null_and_numbers_and_text_may_mix() -> None:
    column = pl.Series(["yesterday", "2018-02-31", "", None, "1519907405", "2018-03-01T12:30:05", "03/01/2018", "nan"])
    assert as_milliseconds(column).to_list() == [None, None, None, None, MOMENT, MOMENT, None, None]
    assert as_milliseconds(pl.Series([None, None])).to_list() == [None, None]


def test_one_wild_value_does_not_change_the_unit_of_the_column() -> None:
    seconds = [MOMENT // 1000] * 9
    assert as_milliseconds(pl.Series([*seconds, MOMENT])).to_list()[:9] == [MOMENT] * 9


@settings(deadline=None)
@given(st.datetimes(min_value=datetime(1975, 1, 1), max_value=datetime(2100, 1, 1)))
def test_iso_text_agrees_with_python(moment: datetime) -> None:
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)
    (milliseconds,) = as_milliseconds(pl.Series([moment.isoformat()]))
    assert milliseconds == round(moment.timestamp() * 1000)


def test_numbers() -> None:
    column = pl.Series([" 4.5", "1e2", "four", "", None, "nan", "inf"], dtype=pl.String)
    values = column.to_frame("x").select(as_number(pl.col("x")))["x"].to_list()
    assert values == [4.5, 100.0, None, None, None, None, None]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pl.Series("id", [1.0, None, 20.0, 2.5, -3.0]), ["1", None, "20", "2.5", "-3"]),
        (pl.Series("id", [1, None, 20]), ["1", None, "20"]),
        (pl.Series("id", ["1.0", " ", "007"]), ["1.0", None, "007"]),
    ],
    ids=["floats", "integers", "text"],
)
def test_ids_are_the_same_text_in_every_file(column: pl.Series, expected: list[str | None]) -> None:
    assert id_text(column).to_list() == expected
