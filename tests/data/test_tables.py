"""Reading one table, whatever is wrong with it."""

import gzip
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalign.data.ledger import Ledger
from catalign.data.options import Table
from catalign.data.tables import column_names, read_table
from catalign.errors import UserError

COLUMNS = {"user_id": "user", "item_id": "item"}


def read(path: Path, ledger: Ledger | None = None, **options: str) -> pl.DataFrame:
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
