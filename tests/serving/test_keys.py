"""Key files: hashes, roles, refusals."""

from pathlib import Path

import pytest

from catalign.errors import UserError
from catalign.serving.keys import find_key, new_key, read_keys


def test_a_new_key_is_let_in_by_its_line_and_the_file_does_not_hold_it(tmp_path: Path) -> None:
    (shop, shop_line), (staff, staff_line) = new_key("shop"), new_key("staff")
    (tmp_path / "keys").write_text(f"# who may\n\n{shop_line}\n{staff_line} items\n")
    keys = read_keys(tmp_path / "keys")
    assert shop not in (tmp_path / "keys").read_text()
    found, other = find_key(keys, shop), find_key(keys, staff)
    assert found is not None and (found.name, found.changes_items) == ("shop", False)
    assert other is not None and (other.name, other.changes_items) == ("staff", True)
    assert find_key(keys, shop + "x") is None and find_key(keys, "") is None and find_key(keys, "\ud800") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "holds no key"), ("# nobody", "holds no key"), ("shop secret", "line 1: is not NAME SHA256"),
     (f"shop {'0' * 64} admin", "line 1"), ("\xff", "line 1")],
)  # fmt: skip
def test_other_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(UserError, match=said):
        read_keys(tmp_path / "keys")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_keys(tmp_path / "none")
