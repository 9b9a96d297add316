"""Damaged files by the command line: imported with every loss counted, or refused in one line without a trace."""

import gzip
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import source_files
import toy
from catalign.data.dataset import load_dataset
from conftest import SHARED

FORMS = source_files.TABLES | source_files.CUT
DATA = SHARED / "data"


def flipped(data: bytes) -> bytes:
    """Eight bytes changed, the same ones with every run."""
    changed, generator = bytearray(data), random.Random(len(data))
    for _ in range(8 if data else 0):
        changed[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def on_text(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """A change of what is in a file, which stays packed if it was."""

    def changed(data: bytes) -> bytes:
        packed = data[:2] == b"\x1f\x8b"
        text = change(gzip.decompress(data) if packed else data)
        return gzip.compress(text, mtime=0) if packed else text

    return changed


MUTATIONS: dict[str, Callable[[bytes], bytes]] = {
    "bytes flipped": flipped,
    "text flipped": on_text(flipped),
    "last third gone": lambda data: data[: 2 * len(data) // 3],
    "column dropped": on_text(lambda text: b"\n".join(line.partition(b",")[2] for line in text.split(b"\n"))),
    "header twice": on_text(lambda text: text.partition(b"\n")[0] + b"\n" + text),
    "other delimiter": on_text(lambda text: text.replace(b",", b";")),
    "byte order mark": on_text(lambda text: b"\xef\xbb\xbf" + text),
    "CR LF": on_text(lambda text: text.replace(b"\n", b"\r\n")),
    "NUL bytes": on_text(lambda text: text[:90] + b"\0\0" + text[90:]),
    "mixed encodings": on_text(lambda text: text + "Amélie\n".encode("latin-1")),
    "open quotation": on_text(lambda text: text[: len(text) // 2] + b'"' + text[len(text) // 2 :]),
    "huge field": on_text(lambda text: text[:40] + b"x" * 5_000_000 + text[40:]),
    "deep": on_text(lambda text: text + b"[" * 50_000 + b"]" * 50_000 + b"\n"),
    "blanks": lambda _: b" \n \n",
    "empty": lambda _: b"",
    "gzip of a picture": lambda _: gzip.compress(b"\x89PNG\r\n\x1a\n" + bytes(range(256)), mtime=0),
    "wrong kind": lambda _: b"PAR1" + bytes(64) + b"PAR1",
}


def attempt(folder: Path, output: Path, *options: object) -> None:
    """Prepare; it ends well with its rows accounted for, or with one line and no trace."""
    ended = toy.catalign("data", "prepare", folder, "--output", output, *options)
    if ended.code == 0:
        card = load_dataset(output).card
        for table, rows in card.rows_in.items():
            assert rows == card.rows_kept[table] + sum(card.dropped.get(table, {}).values())
        shutil.rmtree(output)
    else:
        assert ended.code == 2 and ended.err.startswith("catalign: ") and ended.err.count("\n") == 1, ended
    assert [path.name for path in output.parent.iterdir()] == [folder.name]  # nothing half-written


def every(folder: Path, output: Path, shift: int, step: int, *options: object) -> None:
    """Damage the files of a folder in turn, in every `step`-th way."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for number, change in list(enumerate(MUTATIONS.values()))[shift % step :: step]:
        path = files[(number + shift) % len(files)]
        whole = path.read_bytes()
        path.write_bytes(change(whole))
        attempt(folder, output, *options)
        path.write_bytes(whole)


@pytest.mark.parametrize("form", FORMS)
def test_every_damage_to_every_form(tmp_path: Path, form: str) -> None:
    (tmp_path / "set").mkdir()
    FORMS[form][1](tmp_path / "set")
    every(tmp_path / "set", tmp_path / "ds", list(FORMS).index(form), 1)


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not beside the project")
@pytest.mark.parametrize("place", ["amazon_raw/2018", "movielens_latest_small", "amazon_video_games"])
def test_real_files_damaged(tmp_path: Path, place: str) -> None:
    shutil.copytree(DATA / place, tmp_path / "set", copy_function=shutil.copyfile)
    options = ("--name", "Gift_Cards") if place.startswith("amazon_raw") else ()
    every(tmp_path / "set", tmp_path / "ds", len(place), 4, *options)
