"""Reading one table, whatever is wrong with it."""

import gzip
import io
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalign.data.ledger import Ledger
from catalign.data.options import Table
from catalign.data.streams import Ended
from catalign.data.tables import column_names, read_chunks, read_table
from catalign.errors import UserError

COLUMNS = {"user_id": "user", "item_id": "item"}


def read(path: Path, ledger: Ledger | None = None, **options: Any) -> pl.DataFrame:
    return read_table(Table.of(path, **options), COLUMNS, table_name="interactions", ledger=ledger or Ledger())


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.csv", b"user,item,time\nann,007,1\nbob,8,2\n"),
        ("log.csv", b"\xef\xbb\xbfuser,item\r\nann,007\r\nbob,8"),
        ("log.csv", b'"user","item"\n"ann","007"\n\n"bob","8"\n'),
        ("log.tsv", b"item\tuser\n007\tann\n8\tbob\n"),
        ("log.csv", b"user;item\nann;007\nbob;8\n"),
        ("log.csv.gz", b"user,item\nann,007\nbob,8\n"),
        ("log.jsonl", b'{"user": "ann", "item": "007"}\n{"item": 8, "user": "bob"}\n'),
        ("log.json.gz", b'{"user": "ann", "item": "007"}\r\n\r\n{"item": 8, "user": "bob", "x": [1]}\r\n'),
        ("log.json", b"{'user': 'ann', 'item': '007'}\n{'user': \"bob\", 'item': 8, 'none': None}\n"),
    ],
)
def test_every_kind_of_text_table_reads_the_same(tmp_path: Path, name: str, content: bytes) -> None:
    frame = read(write(tmp_path, name, content))
    assert frame.select("user_id", "item_id").rows() == [("ann", "007"), ("bob", "8")]
    assert frame["file"].to_list() == [name, name]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    pl.DataFrame({"item": [7, 8], "user": ["ann", "bob"]}).write_parquet(tmp_path / "log.parquet")
    frame = read(tmp_path / "log.parquet")
    assert frame["item_id"].to_list() == [7, 8]
    assert frame["row"].to_list() == [1, 2]


def test_a_column_may_be_called_like_ours_and_be_read_twice(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", b"row,file\nann,8\n")
    frame = read_table(Table.of(path), {"a": "row", "b": "row", "c": "file"}, table_name="t", ledger=Ledger())
    assert frame.select("a", "b", "c", "row").rows() == [("ann", "ann", "8", 2)]


def test_rows_with_another_number_of_fields_are_counted_and_the_others_keep_their_row_numbers(tmp_path: Path) -> None:
    ledger = Ledger()
    path = write(tmp_path, "log.csv", b'user,item\nann,1\nbob\ncat,"2\n2"\ndan,3,4\neve,5\n')
    frame = read(path, ledger)
    assert frame.select("user_id", "row").rows() == [("ann", 2), ("cat", 4), ("eve", 6)]
    assert ledger.rows_in == {"interactions": 5}
    assert ledger.dropped == {"interactions": {"not 2 fields, as the header has": 2}}
    assert [(reject["row"], reject["text"]) for reject in ledger.rejects] == [(3, "bob"), (5, "dan,3,4")]


def test_lines_that_are_not_json_are_counted(tmp_path: Path) -> None:
    ledger = Ledger()
    lines = b'{"user": "ann", "item": 1}\n{"user": "bob", \n[1, 2]\n\n{"user": "cat"}\n'
    frame = read(write(tmp_path, "log.jsonl", lines), ledger)
    assert frame.rows() == [("ann", "1", "log.jsonl", 1), ("cat", None, "log.jsonl", 5)]
    assert ledger.dropped == {"interactions": {"not JSON": 2}}
    assert [reject["row"] for reject in ledger.rejects] == [2, 3]


def test_a_missing_column_is_named_with_the_nearest_and_all_others(tmp_path: Path) -> None:
    for name, content in (("log.csv", b"User,itemId\n1,2\n"), ("log.jsonl", b'{"User": 1, "itemId": 2}\n')):
        with pytest.raises(UserError, match=r"no column 'user'; did you mean 'User'\? the columns are: User, itemId"):
            read(write(tmp_path, name, content))


def test_other_encodings_are_told_and_read_when_named(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "user,item\nann,1\nzoë,2\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"log\.csv, line 3: the text is not utf-8 .*--encoding latin-1"):
        read(path)
    assert read(path, encoding="latin-1")["user_id"].to_list() == ["ann", "zoë"]
    wide = write(tmp_path, "wide.csv", "user,item\nann,1\nzoë,2\n".encode("utf-16"))
    assert read(wide, encoding="utf-16")["user_id"].to_list() == ["ann", "zoë"]
    with pytest.raises(UserError, match="no encoding 'latin-99'"):
        read(path, encoding="latin-99")
    lines = write(tmp_path, "log.jsonl", b'{"user": "ann", "item": 1}\n{"user": "zo\xeb", "item": 1}\n')
    with pytest.raises(UserError, match=r"log\.jsonl, line 2: the text is not utf-8"):
        read(lines)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", b"", "is empty"),
        ("log.jsonl", b"\n\n", "is empty"),
        ("log.csv", b"user,item,user\n1,2,3\n", "the column 'user' is there twice"),
        ("log.csv", b'user,item\nann,1\nbob,"2\ncat,3\n', r"row 3: a quotation mark is opened and never closed"),
        ("log.jsonl", b"user,item\n", "line 1: .*write one JSON object per line"),
        ("log.json", b'[{"user": 1, "item": 2}]', "write one JSON object per line"),
        ("log.parquet", b"user,item\n", "is not a Parquet file"),
    ],
)
def test_a_file_that_is_no_table_is_told_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path, name, content))


@pytest.mark.parametrize(
    ("name", "first", "line"),
    [("log.csv.gz", "user,item", "{},{}"), ("log.jsonl.gz", "", '{{"user": {}, "item": {}}}')],
)
def test_a_cut_gzip_file_is_told(tmp_path: Path, name: str, first: str, line: str) -> None:
    lines = [first, *(line.format(row, row**9) for row in range(999))]
    whole = gzip.compress("\n".join(lines).encode())
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"not a whole gzip file|cannot be read"):
        read(tmp_path / name)
    (tmp_path / name).write_bytes(b"user,item\n1,2\n")
    with pytest.raises(UserError, match="not a whole gzip file"):
        read(tmp_path / name)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "log.csv")


def test_the_names_of_the_columns_of_every_kind(tmp_path: Path) -> None:
    pl.DataFrame({"b": [1], "a": [2]}).write_parquet(tmp_path / "t.parquet")
    assert column_names(Table.of(tmp_path / "t.parquet")) == ["b", "a"]
    assert column_names(Table.of(write(tmp_path, "t.csv.gz", b"b,a\n"))) == ["b", "a"]
    assert column_names(Table.of(write(tmp_path, "t.jsonl", b'{"b": 1}\n{"a": 2, "b": 3}\n'))) == ["b", "a"]


def many(name: str, rows: int) -> bytes:
    """A table with a broken row here and there, and one whose text goes over two lines."""
    if name.startswith("log.json"):
        lines = [f'{{"user": "u{row}", "item": {row}}}' if row % 50 else "broken" for row in range(1, rows + 1)]
        return "\n".join(lines).encode()
    lines = [
        f'"u{row}\n",{row}' if row % 7 == 0 else f"u{row},{row}" if row % 50 else "broken" for row in range(1, rows)
    ]
    return "\n".join(["user,item", *lines]).encode()


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.jsonl", "log.jsonl.gz"])
@pytest.mark.parametrize(("rows", "block"), [(1, 300), (7, 1 << 10), (100, 5_000), (1_000_000, 1 << 24)])
def test_chunks_are_the_whole_table_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, rows: int, block: int
) -> None:
    path = write(tmp_path, name, many(name, 500))
    whole_ledger, ledger = Ledger(), Ledger()
    whole = read(path, whole_ledger)
    monkeypatch.setattr("catalign.data.csv_tables.BLOCK_BYTES", block)
    monkeypatch.setattr("catalign.data.streams.BLOCK_BYTES", block)
    chunks = list(read_chunks(Table.of(path), COLUMNS, table_name="interactions", ledger=ledger, rows=rows))
    assert [chunk.height for chunk in chunks[:-1]] == [rows] * (len(chunks) - 1)
    assert 0 < chunks[-1].height <= rows
    assert pl.concat(chunks).equals(whole)
    assert (ledger.rows_in, ledger.dropped) == (whole_ledger.rows_in, whole_ledger.dropped)
    assert ledger.rejects == whole_ledger.rejects
    assert whole["row"].to_list() == sorted(whole["row"]) and whole.height > 400


def test_chunks_of_parquet_are_the_whole_table(tmp_path: Path) -> None:
    frame = pl.DataFrame({"item": range(1_000), "user": [f"u{row}" for row in range(1_000)]})
    frame.write_parquet(tmp_path / "log.parquet", row_group_size=64)
    table = Table.of(tmp_path / "log.parquet")
    chunks = list(read_chunks(table, COLUMNS, table_name="t", ledger=Ledger(), rows=300))
    assert [chunk.height for chunk in chunks] == [300, 300, 300, 100]
    assert pl.concat(chunks)["row"].to_list() == list(range(1, 1_001))
    assert pl.concat(chunks)["item_id"].to_list() == frame["item"].to_list()
    cut = (tmp_path / "log.parquet").read_bytes()
    (tmp_path / "log.parquet").write_bytes(cut[:100] + b"\0" * 200 + cut[300:])
    with pytest.raises(UserError, match="Parquet file"):
        read(tmp_path / "log.parquet")


def test_an_empty_table_still_has_its_columns(tmp_path: Path) -> None:
    pl.DataFrame({"user": [], "item": []}, schema={"user": pl.String, "item": pl.Int64}).write_parquet(
        tmp_path / "t.pq"
    )
    for path in (write(tmp_path, "t.csv", b"user,item\n"), tmp_path / "t.pq"):
        frame = read(path)
        assert frame.is_empty()
        assert frame.columns == ["user_id", "item_id", "file", "row"]


def test_a_pattern_stands_for_its_files_in_sorted_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write(tmp_path, f"part-{number:02}.csv", f"user,item\nu{number},{number}\n".encode())
    pl.DataFrame({"user": ["u3"], "item": [3]}).write_parquet(tmp_path / "part-11.parquet")
    frame = read(tmp_path / "part-*")
    assert frame.select("user_id", "item_id", "file", "row").rows() == [
        ("u1", "1", "part-01.csv", 2), ("u2", "2", "part-02.csv", 2), ("u10", "10", "part-10.csv", 2),
        ("u3", "3", "part-11.parquet", 1),
    ]  # fmt: skip
    assert str(Table.of(tmp_path / "part-*")) == f"{tmp_path / 'part-01.csv'} and 3 more"
    with pytest.raises(UserError, match="no file fits this pattern"):
        Table.of(tmp_path / "none-*.csv")
    literal = write(tmp_path, "a[1].csv", b"user,item\n1,2\n")
    assert read(literal).height == 1
    with pytest.raises(UserError, match=r"is a folder; name a file in it, or several as"):
        read(tmp_path)


def test_the_second_file_of_a_table_must_have_the_columns_too(tmp_path: Path) -> None:
    write(tmp_path, "1.csv", b"user,item\na,1\n")
    write(tmp_path, "2.csv", b"user,thing\na,1\n")
    with pytest.raises(UserError, match=r"2\.csv: there is no column 'item'"):
        read(tmp_path / "*.csv")


def test_delimiters_of_several_characters_and_files_without_a_header(tmp_path: Path) -> None:
    how = {"delimiter": "::", "header": ["user", "item"]}
    ledger = Ledger()
    frame = read(write(tmp_path, "log.dat", b'ann::"7\nbob::8: x\ncat\n:d::e:\n'), ledger, **how)
    assert frame.select("user_id", "item_id", "row").rows() == [("ann", '"7', 1), ("bob", "8: x", 2), (":d", "e:", 4)]
    assert ledger.dropped == {"interactions": {"not 2 fields, as the header has": 1}}
    assert column_names(Table.of(tmp_path / "log.dat", **how)) == ["user", "item"]
    with pytest.raises(UserError, match="has 3 fields in its first row where 2 are expected"):
        read(write(tmp_path, "log.dat", b"a::b::c\n"), **how)
    with pytest.raises(UserError, match=r"log\.dat: is empty$"):
        read(write(tmp_path, "log.dat", b""), **how)


def test_quotation_marks_mean_nothing_where_fields_are_not_quoted(tmp_path: Path) -> None:
    path = write(tmp_path, "log.tsv", b'user\titem\n"Weird Al\t7\nbob\t"8" x\n')
    frame = read(path, quoted=False)
    assert frame.select("user_id", "item_id").rows() == [('"Weird Al', "7"), ("bob", '"8" x')]


@given(st.text("ab:", max_size=30).map(str.encode), st.sampled_from([b"::", b":::", b"a:b"]), st.integers(1, 9))
def test_a_delimiter_is_replaced_wherever_a_block_ends(text: bytes, old: bytes, size: int) -> None:
    stream = Ended(io.BytesIO(text), b"!", old, b"|")
    read_parts = list(iter(lambda: stream.read(size), b""))
    assert b"".join(read_parts) == text.replace(old, b"|") + b"!"


def test_gzip_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", gzip.compress(b"user,item\nann,1\n"))
    assert read(path).select("user_id", "item_id").rows() == [("ann", "1")]


def test_endings_are_read_in_any_case(tmp_path: Path) -> None:
    assert read(write(tmp_path, "LOG.JSONL", b'{"user": "ann", "item": 1}\n')).height == 1


def test_a_line_that_never_ends_is_refused_before_it_is_all_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catalign.data.streams.LONGEST_LINE", 10_000)
    monkeypatch.setattr("catalign.data.streams.BLOCK_BYTES", 1 << 10)
    monkeypatch.setattr("catalign.data.csv_tables.BLOCK_BYTES", 1 << 10)
    for name, content in (
        ("log.csv", b"user,item," * 10_000),
        ("log.jsonl", b'{"user": "ann", "item": "' + b"1" * 100_000),
        ("log.csv", b"user,item\n" + b"x" * 100_000),
        ("log.csv", b'user,item\nann,"1\n' + b"bob,2\n" * 10_000),
        ("log.jsonl", b'{"user": 1, "item": 2}\n' * 200 + b"x" * 100_000),
    ):
        with pytest.raises(UserError, match=r"a line has more than 10,000|a row is longer than 1,024 bytes"):
            read(write(tmp_path, name, content))


def test_ids_stay_as_they_are_written(tmp_path: Path) -> None:
    for name, content in (("l.csv", b"user,item\n007,1e5\n0,NaN\n"), ("l.jsonl", b'{"user":"007","item":"1e5"}\n')):
        assert read(write(tmp_path, name, content)).row(0)[:2] == ("007", "1e5")


def test_python_literals_of_both_versions_are_parsed_and_never_run(tmp_path: Path) -> None:
    lines = [
        b"{u'user': u'ann', u'item': 1}",
        b"{'user': 'bob', 'item': __import__('os').system('touch " + str(tmp_path / "ran").encode() + b"')}",
        b"{'user': 'cat', 'item': " + b"(" * 5_000 + b")" * 5_000 + b"}",
        b"{'user': 'dan', 'item': b'bytes'}",
        b'{"user": "eve", "item": "\\u00e9"}',
    ]
    ledger = Ledger()
    frame = read(write(tmp_path, "log.json", b"\n".join(lines)), ledger)
    assert frame.select("user_id", "item_id").rows() == [("ann", "1"), ("eve", "é")]
    assert ledger.dropped == {"interactions": {"not JSON": 3}}
    assert not (tmp_path / "ran").exists()


FRAGMENTS = st.sampled_from(
    [b"user", b"item", b",", b"\n", b"\r\n", b'"', b"{", b"}", b":", b"'", b"\xff", b"\x00", b"7"]
)


@given(st.sampled_from(["csv", "tsv", "jsonl", "parquet", "csv.gz"]), st.lists(FRAGMENTS, max_size=40).map(b"".join))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_a_file_holds_it_is_read_or_told(tmp_path: Path, ending: str, content: bytes) -> None:
    heading = b"" if ending == "jsonl" else b"user,item\n" if content[:1] != b"7" else b"user\titem\n"
    ledger = Ledger()
    try:
        frame = read(write(tmp_path, f"log.{ending}", heading + content), ledger)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert frame.height == ledger.kept("interactions")


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.pq"])
def test_a_column_that_a_file_may_lack_is_null_there(tmp_path: Path, name: str) -> None:
    frame = pl.DataFrame({"user": ["u1", "u2"], "item": ["a", "b"]})
    path = tmp_path / name
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "pq": frame.write_parquet}[name.partition(".")[2]](path)
    asked = {"user_id": "user", "note": "remark"}
    (chunk,) = read_chunks(Table.of(path), asked, table_name="t", ledger=Ledger(), optional=["note"])
    assert chunk["user_id"].to_list() == ["u1", "u2"] and chunk["note"].to_list() == [None, None]
    assert chunk["row"].to_list() == ([2, 3] if name == "log.csv" else [1, 2])
    with pytest.raises(UserError, match="there is no column 'remark'"):
        list(read_chunks(Table.of(path), asked, table_name="t", ledger=Ledger()))


def test_a_key_of_json_lines_may_come_late(tmp_path: Path) -> None:
    lines = ['{"user": "u"}'] * 1_500 + ['{"user": "v", "remark": "late"}']
    path = write(tmp_path, "log.jsonl", "\n".join(lines).encode())
    asked = {"user_id": "user", "note": "remark"}
    (chunk,) = read_chunks(Table.of(path), asked, table_name="t", ledger=Ledger(), optional=["note"])
    assert chunk["note"].drop_nulls().to_list() == ["late"]
