"""The report in Chromium: it is drawn, it asks the network for nothing, and the browser has no complaint."""

from pathlib import Path

import numpy as np
import pytest

from catalign.data.dataset import load_dataset
from chromium import PROGRAM, visit
from made_runs import lists_with_target_at, made_run
from toy import works

pytest.importorskip("matplotlib", reason="the extra report is not installed")
Image = pytest.importorskip("PIL.Image", reason="Pillow, which matplotlib brings, is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]


def test_it_is_drawn_and_silent(toy_dataset: Path, tmp_path: Path) -> None:
    data = load_dataset(toy_dataset)
    for name, places, epochs in (("good", [1, 2, 1, 0], 3), ("poor", [4, 0, 0, 7], 5)):
        made_run(tmp_path / name, data, lists_with_target_at(data, places), recipe={"epochs": epochs})
    works("report", tmp_path / "good", tmp_path / "poor", "--output", tmp_path / "report.html")
    seen = visit(tmp_path / "report.html", tmp_path / "browser")
    assert seen.requests == [] and seen.complaints == []
    pixels = np.asarray(Image.open(seen.screenshot).convert("RGB")).reshape(-1, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x22, 0x22, 0x22)):  # two rows of the figure, and text
        assert (np.abs(pixels.astype(int) - colour).max(axis=1) < 12).sum() > 50, colour


def test_a_page_that_asks_and_complains_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text('<img src="http://example.invalid/x.png"><script>console.error("broken")</script>')
    seen = visit(page, tmp_path / "browser", height=300)
    assert seen.requests == ["http://example.invalid/x.png"]
    assert [line for line in seen.complaints if "broken" in line]
