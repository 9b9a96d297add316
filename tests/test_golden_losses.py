"""No loss moves unnoticed: see `golden_losses.py`."""

import json
from pathlib import Path

import pytest

import golden_losses
from golden_losses import NAMES, TOLERANCE, largest_difference, read


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    return golden_losses.train_all(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("name", NAMES)
def test_the_losses_are_the_kept_ones(losses: dict[str, list[float]], name: str) -> None:
    assert len(read(name)) == 8
    assert losses[name] == pytest.approx(read(name), rel=TOLERANCE), "if it must be so: make golden, and say why"


def test_objectives_differ_by_more_than_the_tolerance() -> None:
    for name in NAMES:
        assert all(largest_difference(read(name), read(other)) > 10 * TOLERANCE for other in NAMES if other != name)


def test_what_is_written_anew_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(golden_losses, "FOLDER", tmp_path)
    (tmp_path / "lml.json").write_text("[2.0, 1.0]")
    (tmp_path / "msl.json").write_text("[2.0, 1.0]")
    now = {"lml": [2.00001, 1.0], "msl": [2.0, 1.5], "soft": [3.0]}
    monkeypatch.setattr(golden_losses, "train_all", lambda _: now)
    golden_losses.main()
    told = capsys.readouterr().out
    assert "lml      as before" in told and "step  2: 1.000000 -> 1.500000" in told and "soft     new" in told
    assert read("lml") == [2.0, 1.0]  # what moved within the tolerance stays
    assert read("msl") == json.loads((tmp_path / "msl.json").read_text()) == [2.0, 1.5]
