"""User ids under a salt; what is carried into a dataset and what is not."""

import gzip
import hashlib
import hmac
import json
import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalign.data.dataset import load_dataset
from catalign.data.privacy import check_salt, fingerprint, hash_users, read_salt
from catalign.errors import UserError
from conftest import SHARED
from toy import mistake, works, write_tables

SALT, OTHER = b"a salt of sixteen bytes or more", b"another salt of sixteen bytes"
REVIEWS = SHARED / "data" / "amazon_raw" / "2018"


def test_an_id_becomes_its_authentication_code() -> None:
    hashed = hash_users(pl.Series("user_id", ["ann", None, "bob", "ann"]), SALT)
    code = hmac.new(SALT, b"user\0ann", hashlib.sha256).hexdigest()[:24]
    assert hashed.to_list() == [code, None, hashed[2], code]
    assert hashed.name == "user_id"


@given(st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=20))
def test_the_same_id_and_salt_give_the_same_hash_and_no_others(ids: list[str | None]) -> None:
    column = pl.Series("user_id", ids, dtype=pl.String)
    hashed = hash_users(column, SALT)
    assert hashed.null_count() == column.null_count()
    assert hashed.drop_nulls().n_unique() == column.drop_nulls().n_unique()
    assert hashed.equals(pl.concat([hash_users(column[:7], SALT), hash_users(column[7:], SALT)]))  # part by part
    assert not set(hashed.drop_nulls()) & set(hash_users(column, OTHER).drop_nulls())
    assert fingerprint(SALT) not in set(hashed)


def test_a_salt_is_read_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "salt").write_bytes(SALT + b"\n")
    monkeypatch.setenv("CATALIGN_SALT", OTHER.decode())
    assert read_salt(tmp_path / "salt") == SALT
    assert read_salt(None) == OTHER
    monkeypatch.setenv("CATALIGN_SALT", "short")
    with pytest.raises(UserError, match=r"CATALIGN_SALT: a salt of 5 bytes can be guessed; 16 are the least; make one"):
        read_salt(None)
    monkeypatch.delenv("CATALIGN_SALT")
    with pytest.raises(UserError, match="there is no salt"):
        read_salt(None)
    with pytest.raises(UserError, match=r"none: cannot be read \(No such file"):
        read_salt(tmp_path / "none")


def test_another_salt_is_recognised() -> None:
    check_salt(None, None, "ds")
    check_salt(fingerprint(SALT), SALT, "ds")
    with pytest.raises(UserError, match="hashed with another salt"):
        check_salt(fingerprint(SALT), OTHER, "ds")
    with pytest.raises(UserError, match="its user ids are hashed; pass the salt"):
        check_salt(fingerprint(SALT), None, "ds")
    with pytest.raises(UserError, match="its user ids are not hashed"):
        check_salt(None, SALT, "ds")


def written(folder: Path) -> bytes:
    """Everything in a dataset folder, Parquet files as text."""
    tables = b"".join(pl.read_parquet(path).write_ndjson().encode() for path in sorted(folder.rglob("*.parquet")))
    return tables + b"".join(path.read_bytes() for path in folder.rglob("*.json*"))


def test_no_raw_id_and_no_salt_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = write_tables(tmp_path)
    with (tmp_path / "log.csv").open("a") as log:
        log.write("secret1,i999,5\nsecret2,i001,never\nsecret3,i001,5,too,many\n,i001,5\n")
    works("data", "prepare", *options, "--output", tmp_path / "plain")
    assert b"secret1" in written(tmp_path / "plain") and b"secret3" in written(tmp_path / "plain")
    monkeypatch.setenv("CATALIGN_SALT", SALT.decode())
    works("data", "prepare", *options, "--hash-users", "--output", tmp_path / "hashed")
    everything = written(tmp_path / "hashed")
    assert not any(word in everything for word in (b"secret", b"u000", b"u059", SALT))
    plain, hashed = load_dataset(tmp_path / "plain"), load_dataset(tmp_path / "hashed")
    assert hashed.card.options["hashed_users"] == fingerprint(SALT)
    assert hashed.card.dropped == plain.card.dropped
    for split in ("train", "valid", "test"):
        windows = plain.windows(split)
        assert windows.with_columns(hash_users(windows["user_id"], SALT)).equals(hashed.windows(split))
    rejects = [json.loads(line) for line in (tmp_path / "hashed" / "rejects.jsonl").read_text().splitlines()]
    assert len(rejects) == 4
    assert all({"file", "row"} <= set(reject) and not {"user_id", "text"} & set(reject) for reject in rejects)


def test_published_windows_are_hashed_too(tmp_path: Path) -> None:
    (tmp_path / "salt").write_bytes(SALT)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "info.txt").write_text("Lamp\t0\nKettle\t1\n")
    for split in ("train", "valid", "test"):
        rows = "user_id,history_item_id,item_id,timestamp\nsecret1,[0],1,5\nsecret2,[0],7,5\n"
        (tmp_path / "data" / f"{split}.csv").write_text(rows)
    options = ["--hash-users", "--salt-file", tmp_path / "salt", "--output", tmp_path / "ds"]
    works("data", "prepare", tmp_path / "data", *options)
    assert b"secret" not in written(tmp_path / "ds")
    expected = hash_users(pl.Series(["secret1"]), SALT).to_list()
    assert load_dataset(tmp_path / "ds").windows("test")["user_id"].to_list() == expected


def test_mistakes_are_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CATALIGN_SALT", raising=False)
    options = ["data", "prepare", *write_tables(tmp_path), "--output", tmp_path / "ds"]
    assert "there is no salt to hash user ids with" in mistake(*options, "--hash-users")
    assert "--salt-file goes with --hash-users" in mistake(*options, "--salt-file", tmp_path / "salt")
    assert not (tmp_path / "ds").exists()


@pytest.mark.realdata
def test_reviews_leave_nothing_but_user_item_time_and_rating(tmp_path: Path) -> None:
    if not REVIEWS.exists():
        pytest.skip("../shared/data is not beside the project")
    log, items = REVIEWS / "Gift_Cards_5.json.gz", REVIEWS / "meta_Gift_Cards.json.gz"
    (tmp_path / "salt").write_bytes(SALT)
    works(
        "data", "prepare", "--interactions", log, "--items", items, "--user", "reviewerID", "--item", "asin",
        "--time", "unixReviewTime", "--rating", "overall", "--title", "title", "--metadata", "brand",
        "--hash-users", "--salt-file", tmp_path / "salt", "--output", tmp_path / "ds",
    )  # fmt: skip
    dataset = load_dataset(tmp_path / "ds")
    assert dataset.interactions.columns == ["user_id", "item", "timestamp", "rating", "split"]
    assert dataset.items.columns == ["item_id", "title", "brand"]
    everything = written(tmp_path / "ds").decode()
    with gzip.open(log, "rt") as lines:
        reviews = [json.loads(line) for line in lines]
    long = [review["reviewText"] for review in reviews if len(review.get("reviewText") or "") > 60]
    assert len(long) > 500
    assert not any(text in everything for text in long)
    assert not any(review["reviewerID"] in everything for review in reviews)


def test_a_salt_may_be_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    salt = bytes(range(128, 160))
    monkeypatch.setitem(os.environb, b"CATALIGN_SALT", salt)
    assert read_salt(None) == salt
