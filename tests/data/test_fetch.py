"""Downloads from a server that breaks off, forgets, changes its mind and lies; archives that are not what they seem."""

import hashlib
import io
import json
import socket
import stat
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import toy
from catalign.data import download as downloads
from catalign.data import fetch as fetching
from catalign.data import public_sets
from catalign.data.download import download
from catalign.data.fetch import RECORD, fetch, unpack
from catalign.data.public_sets import FAMILIES, SETS, PublicFile, PublicSet, find_set
from catalign.errors import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)


@dataclass
class Site:
    """A server with one file, and how it behaves.

    Attributes:
        content, etag, modified: the file.
        ranges: answers to Range.
        heeds_if_range: sends the whole file when the version asked for is gone.
        cuts: bytes after which the next answers break off, one each.
        refusals: codes of the next answers.
        adds: what the stated length is wrong by.
        ranges_asked: what each request asked for.
    """

    content: bytes = CONTENT
    etag: str | None = '"one"'
    modified: str | None = None
    ranges: bool = True
    heeds_if_range: bool = True
    cuts: list[int] = field(default_factory=list)
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    adds: int = 0
    ranges_asked: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.ranges_asked.append(request.headers.get("Range"))
        if self.refusals:
            code, headers = self.refusals.pop(0)
            request.send_response(code)
            for key, value in {"Content-Length": "0", **headers}.items():
                request.send_header(key, value)
            request.end_headers()
            return
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        same = request.headers.get("If-Range") in (None, self.etag, self.modified) or not self.heeds_if_range
        partial = self.ranges and same and start > 0
        body = self.content[start:] if partial else self.content
        if partial and not body:
            request.send_response(416)
        else:
            request.send_response(206 if partial else 200)
        if partial:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        request.send_header("Content-Length", str(len(body) + self.adds))
        for key, value in {"ETag": self.etag, "Last-Modified": self.modified}.items():
            if value is not None:
                request.send_header(key, value)
        request.end_headers()
        request.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}/set.zip"
        yield site
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long a download would have waited."""
    waited: list[float] = []
    monkeypatch.setattr(downloads.time, "sleep", waited.append)
    return waited


def refusal(work: Any) -> str:
    with pytest.raises(UserError) as refused:
        work()
    return str(refused.value)


def test_a_download_that_breaks_off_goes_on_where_it_stopped(site: Site, tmp_path: Path, pauses: list[float]) -> None:
    site.cuts = [100_000, 50_000, 0]
    told: list[tuple[int, int | None]] = []
    got = download(site.url, tmp_path / "set.zip", told=lambda done, total: told.append((done, total)))
    assert (tmp_path / "set.zip").read_bytes() == CONTENT
    assert site.ranges_asked == [None, "bytes=100000-", "bytes=150000-", "bytes=150000-"]
    assert (got.bytes, got.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert pauses == [1, 1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(0, len(CONTENT)), max_size=5), ranges=st.booleans(), etag=st.sampled_from(['"a"', None])
)
def test_whatever_breaks_off_the_file_is_whole(
    site: Site, tmp_path: Path, cuts: list[int], ranges: bool, etag: str | None
) -> None:
    site.cuts, site.ranges, site.etag = list(cuts), ranges, etag
    download(site.url, tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


def test_the_next_call_goes_on_with_a_part(site: Site, tmp_path: Path) -> None:
    site.cuts = [100_000, *[0] * 6]
    said = refusal(lambda: download(site.url, tmp_path / "set.zip"))
    broke = "broke off after 100,000 of 300,000 bytes"
    assert said == f"{site.url}: cannot be downloaded ({broke}); run again later: what came is kept"
    assert not (tmp_path / "set.zip").exists()
    site.cuts, site.ranges_asked = [], []
    download(site.url, tmp_path / "set.zip")
    assert site.ranges_asked == ["bytes=100000-"]
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("by_date", [True, False])
@pytest.mark.parametrize("size", [300_000, 200_000, 90_000])
def test_a_file_that_changed_between_two_tries_is_not_glued(
    site: Site, tmp_path: Path, heeds_if_range: bool, by_date: bool, size: int
) -> None:
    site.heeds_if_range = heeds_if_range
    if by_date:
        site.etag, site.modified = None, "Mon, 01 Jan 2024 00:00:00 GMT"
    site.cuts = [100_000, *[0] * 6]
    refusal(lambda: download(site.url, tmp_path / "set.zip"))
    site.cuts, site.content = [], np.random.default_rng(1).bytes(size)
    site.etag, site.modified = (None, "Tue, 02 Jan 2024 00:00:00 GMT") if by_date else ('"two"', None)
    download(site.url, tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == site.content


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_version_a_part_begins_again(site: Site, tmp_path: Path, etag: str | None) -> None:
    site.etag, site.cuts = etag, [100_000]
    download(site.url, tmp_path / "set.zip")
    assert site.ranges_asked == [None, None]
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("note", ["", "{", '{"url": 1}', "[]"])
def test_a_part_that_nothing_is_known_of_begins_again(site: Site, tmp_path: Path, note: str) -> None:
    (tmp_path / "set.zip.part").write_bytes(b"something else")
    (tmp_path / "set.zip.part.json").write_text(note)
    download(site.url, tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


def test_a_server_in_trouble_is_asked_again(site: Site, tmp_path: Path, pauses: list[float]) -> None:
    site.refusals = [(503, {}), (429, {"Retry-After": "7"}), (500, {}), (503, {"Retry-After": "9999"})]
    download(site.url, tmp_path / "set.zip")
    assert pauses == [1, 7, 4, 60]
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


def test_what_another_try_does_not_mend(
    site: Site, tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.refusals = [(404, {})]
    said = refusal(lambda: download(site.url, tmp_path / "set.zip"))
    assert said.startswith(f"{site.url}: the server answers 404 Not Found; the publisher may have moved it")
    site.refusals = [(503, {})] * 6
    assert "cannot be downloaded (the server answers 503" in refusal(lambda: download(site.url, tmp_path / "set.zip"))
    assert pauses == [1, 2, 4, 8, 16]
    gone = "http://127.0.0.1:1/set.zip"
    assert "Connection refused" in refusal(lambda: download(gone, tmp_path / "set.zip"))
    nowhere = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    monkeypatch.setattr(socket, "getaddrinfo", mock.Mock(side_effect=nowhere))
    said = refusal(lambda: download("http://nowhere.invalid/set.zip", tmp_path / "set.zip"))
    assert "the server cannot be reached ([Errno -2] Name or service not known); check the network" in said
    assert not list(tmp_path.iterdir())


def test_a_server_that_promises_more_than_it_has(site: Site, tmp_path: Path) -> None:
    site.adds = 10
    said = refusal(lambda: download(site.url, tmp_path / "set.zip"))
    assert "broke off after 300,000 of 300,010 bytes" in said or "another part" in said
    assert not (tmp_path / "set.zip").exists()


def test_a_full_disk(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    assert "the disk is too full for 0.0 GB" in refusal(lambda: download(site.url, tmp_path / "set.zip"))


def zipped(files: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def the_set(site: Site, **stated: Any) -> PublicSet:
    return PublicSet("toy", (PublicFile(site.url, **stated),), "a toy", "1 kB", "free", "http://toy")


def test_fetch_unpacks_records_and_then_leaves_things_alone(site: Site, tmp_path: Path) -> None:
    site.content = zipped({"toy/": "", "toy/log.csv": "user,item\n", "toy/more/README": "hello"})
    fetched = fetch(the_set(site), tmp_path / "toy")
    assert (tmp_path / "toy" / "log.csv").read_text() == "user,item\n"
    assert (tmp_path / "toy" / "more" / "README").read_text() == "hello"
    assert {path.name for path in (tmp_path / "toy").iterdir()} == {"log.csv", "more", RECORD}
    sha256 = hashlib.sha256(site.content).hexdigest()
    assert fetched.notes == [f"set.zip: the publisher states no hash; recorded SHA-256 {sha256}"]
    assert json.loads((tmp_path / "toy" / RECORD).read_text())["files"][0]["sha256"] == sha256
    asked = len(site.ranges_asked)
    assert fetch(the_set(site), tmp_path / "toy").already
    assert len(site.ranges_asked) == asked
    site.content, site.etag = zipped({"toy/log.csv": "other\n"}), '"two"'
    again = fetch(the_set(site), tmp_path / "toy", again=True)
    assert not again.already and "set.zip is another file than the one of 20" in again.notes[0]
    assert (tmp_path / "toy" / "log.csv").read_text() == "other\n"


def test_a_set_of_two_files_goes_on_with_the_second(site: Site, tmp_path: Path) -> None:
    base = site.url.removesuffix("set.zip")
    two = PublicSet("two", (PublicFile(base + "a.gz"), PublicFile(base + "b.gz")), "", "", "", "")
    site.cuts = [len(CONTENT), *[0] * 6]
    refusal(lambda: fetch(two, tmp_path / "two"))
    site.cuts, site.ranges_asked = [], []
    assert len(fetch(two, tmp_path / "two").files) == 2
    assert site.ranges_asked == [None]
    assert (tmp_path / "two" / "a.gz").read_bytes() == (tmp_path / "two" / "b.gz").read_bytes() == CONTENT


def test_a_file_that_is_not_what_the_publisher_states(site: Site, tmp_path: Path) -> None:
    md5 = hashlib.md5(CONTENT).hexdigest()
    said = refusal(lambda: fetch(the_set(site, md5="0" * 32), tmp_path / "toy"))
    assert f"has the MD5 {md5}, where the publisher states {'0' * 32}; run again" in said
    said = refusal(lambda: fetch(the_set(site, bytes=7), tmp_path / "toy"))
    assert "has 300,000 bytes, where the publisher states 7" in said
    assert not list((tmp_path / "toy").iterdir())
    site.adds = -100_000  # promises less than it has: the file is cut, and nobody but the hash can tell
    assert "has the MD5" in refusal(lambda: fetch(the_set(site, md5=md5), tmp_path / "toy"))


def test_a_folder_with_something_else(site: Site, tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("dear diary")
    assert f"{tmp_path}: is not empty (diary.txt)" in refusal(lambda: fetch(the_set(site), tmp_path))
    (tmp_path / "diary.txt").unlink()
    site.content = zipped({"log.csv": ""})
    fetch(the_set(site), tmp_path)
    other = PublicSet("other", (), "", "", "", "")
    assert f"{tmp_path}: holds toy" in refusal(lambda: fetch(other, tmp_path))


def link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize("name", ["../out.csv", "/etc/out.csv", "a/../../out.csv", "a\\..\\out.csv", "C:/out.csv"])
def test_paths_that_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "set.zip").write_bytes(zipped({"fine.csv": "1", name: "2"}))
    assert "leads out of its folder" in refusal(lambda: unpack(tmp_path / "set.zip", tmp_path / "in"))
    assert not list((tmp_path / "in").iterdir())
    assert not (tmp_path / "out.csv").exists()


def test_archives_that_are_not_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "set.zip"
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link("passwords"), "/etc/passwd")
    assert "something that is no file" in refusal(lambda: unpack(path, tmp_path / "in"))
    path.write_bytes(zipped({"a": b"0" * 600_000, "b": b"0" * 600_000}))
    assert path.stat().st_size < 5_000
    assert "unpacks to more bytes" in refusal(lambda: unpack(path, tmp_path / "in", limit=1_000_000))
    with monkeypatch.context() as fewer:
        fewer.setattr(fetching, "UNPACKED_FILES", 1)
        assert "holds 2 files" in refusal(lambda: unpack(path, tmp_path / "in"))
    whole = zipped({"a": "text" * 100, "b": CONTENT})
    for broken in (b"no zip", whole[:-30], whole[:200] + b"\0" * 5000 + whole[5200:]):
        path.write_bytes(broken)
        assert "is not a whole zip file" in refusal(lambda: unpack(path, tmp_path / "in"))
        assert not path.exists()  # the next fetch downloads it again
    assert not list((tmp_path / "in").iterdir())


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), change=st.binary(min_size=1, max_size=8))
def test_a_damaged_archive_is_told_or_harmless(tmp_path: Path, place: int, change: bytes) -> None:
    whole = bytearray(zipped({"toy/a.csv": "1,2\n" * 50, "toy/b.csv": "3,4\n" * 50}))
    place %= len(whole)
    whole[place : place + len(change)] = change
    (tmp_path / "in").mkdir(exist_ok=True)
    (tmp_path / "set.zip").write_bytes(whole)
    try:
        unpack(tmp_path / "set.zip", tmp_path / "in")
    except UserError as error:
        assert "\n" not in str(error)
    assert {path.name for path in tmp_path.iterdir()} <= {"in", "set.zip"}


def test_the_catalogue_of_sets() -> None:
    for name, found in {**SETS, "amazon-2023:Gift_Cards": find_set("amazon-2023:gift_cards")}.items():
        assert found.name == name and found.terms and found.page.startswith("https://")
        assert all(file.url.startswith("https://") and "{" not in file.url for file in found.files)
    assert [file.name for file in find_set("amazon-2018:Video_Games").files] == [
        "Video_Games_5.json.gz", "meta_Video_Games.json.gz",
    ]  # fmt: skip
    assert {name: len(family.categories) for name, family in FAMILIES.items()} == {"amazon-2018": 29, "amazon-2023": 34}


def test_the_command(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(public_sets.SETS, "toy", the_set(site))
    listed = json.loads(toy.works("data", "fetch", "--json"))
    assert {"movielens-1m", "steam", "amazon-2023:CATEGORY"} <= {row["name"] for row in listed}
    assert "non-commercial" in toy.works("data", "fetch")
    site.content = zipped({"toy/ratings.csv": "userId,movieId,rating,timestamp\n", "toy/movies.csv": "movieId,title\n"})
    ended = toy.catalign("data", "fetch", "toy")
    assert ended.out == "toy: 1 files, 0.0 MB downloaded\n"
    assert "terms: free (http://toy)" in ended.err and "next: catalign data prepare toy --output" in ended.err
    assert "was there already" in toy.works("data", "fetch", "toy")
    assert toy.mistake("data", "fetch", "netflix").startswith(
        "there is no public data set 'netflix'; choose from movie"
    )
    assert "amazon-2018: comes in categories; write amazon-2018:CATEGORY" in toy.mistake("data", "fetch", "amazon-2018")
    assert "has no category 'Pets'" in toy.mistake("data", "fetch", "amazon-2023:Pets")
    site.refusals = [(404, {})]
    assert "404" in toy.mistake("data", "fetch", "toy", "--output", "other")
    assert not (tmp_path / "other").exists()
