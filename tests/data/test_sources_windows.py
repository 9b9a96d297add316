"""Every published form of windows, written in small as it is published, and what becomes of broken ones."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_sources_tables import BROKEN

import source_files
from catalign.data.layouts import read_windows, recognise
from catalign.data.ledger import Ledger
from catalign.data.options import WindowOptions
from catalign.data.prepare import prepare_windows
from catalign.errors import UserError
from source_files import TITLES, WINDOWS

EVERY = pytest.mark.parametrize(("layout", "write"), source_files.CUT.values(), ids=source_files.CUT)
Write = Callable[[Path], None]
UNTIMED = ("minionerec", "llara", "instructions")
NAMELESS = ("llara", "instructions")


@EVERY
def test_every_form_gives_the_same_windows(tmp_path: Path, layout: str, write: Write) -> None:
    folder = tmp_path / "download" / "set"
    folder.mkdir(parents=True)
    write(folder)
    assert recognise(folder) == recognise(folder.parent) == layout
    dataset = prepare_windows(folder.parent, layout, WindowOptions(), tmp_path / "ds")
    titles = dataset.items["title"].to_list()
    assert sorted(titles) == sorted(TITLES.values())
    for split, published in WINDOWS.items():
        windows = dataset.windows(split)
        expected = [([TITLES[item] for item in history], TITLES[target]) for _, history, target, _ in published]
        shown = windows.select("history", "target").iter_rows()
        assert [([titles[item] for item in history], titles[target]) for history, target in shown] == expected
        users = (
            [f"{split}-{row}" for row in range(2, 12)] if layout == "llara" else [f"{split}-{n}" for n in range(1, 11)]
        )
        assert windows["user_id"].to_list() == (users if layout in NAMELESS else [user for user, *_ in published])
        times = [None] * 10 if layout in UNTIMED else [time * 1000 for *_, time in published]
        assert windows["timestamp"].to_list() == times
    assert dataset.card.rows_kept == dataset.card.rows_in
    assert any("users" in warning for warning in dataset.card.warnings) == (layout in NAMELESS)


def read_or_told(folder: Path, layout: str) -> None:
    """The folder is refused in one line, or all its rows are accounted for."""
    ledger = Ledger()
    try:
        published = read_windows(folder, layout, ledger)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert published.windows.height == ledger.kept("windows")
        assert published.items.height == ledger.kept("items")


@EVERY
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_is_told_or_its_rows_are_counted(tmp_path: Path, layout: str, write: Write, how: str) -> None:
    write(tmp_path)
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        path.write_bytes(BROKEN[how](whole))
        read_or_told(tmp_path, layout)
        path.write_bytes(whole)


@pytest.mark.parametrize("write", [source_files.d3_folders, source_files.minionerec])
def test_one_of_several_sets_is_chosen_by_name(tmp_path: Path, write: Write) -> None:
    write(tmp_path)
    layout = recognise(tmp_path)
    for path in list(tmp_path.rglob("Toys*")):
        path.with_name(path.name.replace("Toys", "Books")).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"train: holds several tables; choose one with --name \(books_5.*, toys_5"):
        read_windows(tmp_path, layout, Ledger())
    chosen = read_windows(tmp_path, layout, Ledger(), name="books")
    assert all(path.name.startswith("Books") for path in chosen.paths)
    with pytest.raises(UserError, match="no tables called 'music'"):
        read_windows(tmp_path, layout, Ledger(), name="music")


FRAGMENTS = st.sampled_from(
    [
        '"',
        '", "',
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\n",
        "\t",
        "::",
        "<a_1>",
        "A",
        "7",
        "é",
        "\\",
        '"input"',
        '"output"',
        "\0",
    ]
)


@EVERY
@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
def test_whatever_stands_in_a_file_rows_are_kept_or_counted(
    tmp_path: Path, layout: str, write: Write, data: st.DataObject
) -> None:
    write(tmp_path)
    path = data.draw(st.sampled_from(sorted(path for path in tmp_path.rglob("*") if path.is_file())))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:place] + "".join(data.draw(st.lists(FRAGMENTS, max_size=12))).encode() + whole[place:])
    read_or_told(tmp_path, layout)


def test_pickles_are_never_read(tmp_path: Path) -> None:
    source_files.llara(tmp_path)
    for path in tmp_path.glob("*_data.csv"):
        path.rename(path.with_suffix(".df"))
    assert recognise(tmp_path) == "llara"
    with pytest.raises(
        UserError, match=r"train_data\.df: is a pickle, which runs what is in it.*to_csv\('train_data\.csv'"
    ):
        read_windows(tmp_path, "llara", Ledger())


def test_rating_prompts_are_no_windows(tmp_path: Path) -> None:
    row = '{"instruction": "Will the user like it?", "input": "User Preference: \\"A\\"", "output": "Yes."}'
    for name in ("train", "test"):
        (tmp_path / f"{name}.json").write_text(f"[{row}]")
    assert recognise(tmp_path) == "instructions"
    with pytest.raises(UserError, match="is no file of windows; each row needs titles in double quotes"):
        read_windows(tmp_path, "instructions", Ledger())


def test_a_row_without_titles_is_counted(tmp_path: Path) -> None:
    source_files.instructions(tmp_path)
    path = tmp_path / "train.json"
    path.write_text(path.read_text().replace('"The user has played:', '"Nothing. ", "other": "', 1))
    ledger = Ledger()
    assert read_windows(tmp_path, "instructions", ledger).windows.height == 29
    assert ledger.dropped == {"windows": {"no titles in double quotes": 1}}


@pytest.mark.parametrize(
    ("write", "name", "message"),
    [
        (source_files.msl, "id2name4Rec.json", r"there is no id2name4Rec\.json"),
        (source_files.d3, "info.txt", r"there is no info\.txt"),
        (source_files.bigrec_games, "test.csv", r"there is no test\.csv"),
        (source_files.bigrec_games, "train.csv", r"there is no train\.csv"),
        (source_files.llara, "id2name.txt", r"there is no id2name\.txt"),
        (source_files.llara, "Test_data.csv", r"there is no test_data\.csv"),
        (source_files.instructions, "test_5000.json", "there is no file of test instructions"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, write: Write, name: str, message: str) -> None:
    write(tmp_path)
    layout = recognise(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=message):
        prepare_windows(tmp_path, layout, WindowOptions(), tmp_path / "ds")
    assert not (tmp_path / "ds").exists()
