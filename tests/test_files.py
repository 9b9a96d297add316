"""Files and folders appear whole or not at all."""

import errno
from pathlib import Path

import pytest

from catalign.errors import UserError
from catalign.files import (
    disk_error,
    load_yaml,
    read_json,
    read_yaml,
    sha256_of,
    whole_file,
    whole_folder,
    write_json,
)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_folder_appears_when_its_block_ends(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "deep" / "new") as partial:
        (partial / "a").write_text("1")
        assert not (tmp_path / "deep" / "new").exists()
    assert names(tmp_path) == {"deep", "deep/new", "deep/new/a"}
    assert (tmp_path / "deep" / "new").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, UserError("no")])
def test_a_folder_whose_block_fails_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a").write_text("kept")
    before = names(tmp_path)
    for place, overwrite in (("new", False), ("old", True)):
        with (
            pytest.raises(BaseException),  # noqa: B017  # whichever it is
            whole_folder(tmp_path / place, overwrite=overwrite) as partial,
        ):
            (partial / "b").write_text("lost")
            raise error
    assert names(tmp_path) == before and (tmp_path / "old" / "a").read_text() == "kept"


def test_a_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a").write_text("1")
    with pytest.raises(UserError, match="old: already exists; choose"), whole_folder(tmp_path / "old"):
        pytest.fail("the block ran")
    with whole_folder(tmp_path / "old", overwrite=True) as partial:
        (partial / "b").write_text("2")
    assert names(tmp_path) == {"old", "old/b"}


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "a.json", {"title": "Ü"})
    with pytest.raises(ValueError), whole_file(tmp_path / "deep" / "a.json") as partial:
        partial.write_text("half")
        raise ValueError
    assert names(tmp_path) == {"deep", "deep/a.json"}
    assert read_json(tmp_path / "deep" / "a.json") == {"title": "Ü"}
    assert "Ü" in (tmp_path / "deep" / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EACCES, "cannot be written; check the folder's permissions"),
        (errno.EROFS, "cannot be written"),
        (errno.ENOTDIR, "a file is in the way; choose another folder"),
    ],
)
def test_what_the_disk_says_becomes_a_line(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(UserError, match=words), whole_folder(tmp_path / "new"):
        raise OSError(number, "what the system says")
    with pytest.raises(UserError, match=words), whole_file(tmp_path / "new"):
        raise OSError(number, "what the system says")
    assert names(tmp_path) == set()


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    with pytest.raises(UserError, match="a file is in the way"), whole_file(tmp_path / "file" / "table"):
        pass
    assert names(tmp_path) == {"file"}


def test_other_errors_of_the_system_stay_what_they_are() -> None:
    error = OSError(errno.EINVAL, "strange")
    assert disk_error(error, Path("x")) is error


def test_json_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json: no such file"):
        read_json(tmp_path / "a.json")
    for content in (b"{", b"\xff"):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.json: is not JSON"):
            read_json(tmp_path / "a.json")


def test_a_hash_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.5e3", 1500.0),
        ("-.5E+2", -50.0),
        ("1.e1", 10.0),
        ("10", 10),
        ("2024-01-01", "2024-01-01"),
        ("1e", "1e"),
        ("e4", "e4"),
        ("{a: 1, b: {a: 2}}", {"a": 1, "b": {"a": 2}}),
    ],
)
def test_yaml_is_read_as_people_mean_it(text: str, value: object) -> None:
    read = load_yaml(text)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a: 1\nb:\n  c: 1\n  c: 2\n", "is not YAML (c stands twice in line 3 and below)"),
        (b"a: [", "is not YAML"),
        (b"!!int x", "is not YAML"),
        (b"!!python/object/apply:os.getcwd []", "is not YAML"),
        (b"[" * 3000, "is not YAML"),
        (b"\xff\xfe", "is not YAML"),
    ],
)
def test_what_is_no_yaml(tmp_path: Path, text: bytes, words: str) -> None:
    (tmp_path / "a.yaml").write_bytes(text)
    with pytest.raises(UserError) as caught:
        read_yaml(tmp_path / "a.yaml", "recipe")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_yaml_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such recipe"):
        read_yaml(tmp_path / "none.yaml", "recipe")
    with pytest.raises(UserError, match=r"cannot be read; give a recipe \(YAML\)"):
        read_yaml(tmp_path, "recipe")
