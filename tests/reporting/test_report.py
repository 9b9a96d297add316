"""The page of `catalign report`: what stands in it, for one run and for many, and that it harms nobody."""

import base64
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalign.data.dataset import Dataset, load_dataset
from catalign.evaluation.comparison import compare
from made_runs import lists_with_target_at, made_run
from toy import TITLES, mistake, works, write_tables

pytest.importorskip("matplotlib", reason="the extra report is not installed")
pytest.importorskip("jinja2", reason="the extra report is not installed")

from catalign.reporting.drawing import looks_of, spread
from catalign.reporting.report import finding

EVIL = "<script>alert('x')</script> & <b>lamp</b> $x_1^2$ {{ 7 * 7 }} 灯"


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def write_log(run: Path, *, epochs: int = 3, **series: list[float]) -> None:
    """Write a log as the Trainer does: losses with what else is given, a validation at the end of each epoch."""
    lines: list[dict[str, Any]] = []
    for epoch in range(epochs):
        more = {name: values[epoch] for name, values in series.items()}
        for half in (0.5, 1.0):
            at = {"step": len(lines) + 1, "seconds": 10.0 * (epoch + half), "epoch": epoch + half}
            lines.append({**at, "loss": 3.0 / (epoch + half), **more})
        lines.append({**at, "eval_ndcg@10": 0.1 * (epoch + 1), "eval_hr@10": 0.2})
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def add_costs(run: Path, **training: Any) -> None:
    file = run / "provenance.json"
    provenance = json.loads(file.read_text())
    provenance["training"] |= {"seconds": 90.0, "peak_memory_gb": 1.5, "epochs_run": 3.0, **training}
    file.write_text(json.dumps(provenance | {"command": "catalign train --dataset ds", "source": "abc123def456"}))


def add_run(folder: Path, data: Dataset, places: list[int], **recipe: Any) -> Path:
    run = made_run(folder, data, lists_with_target_at(data, places), recipe=recipe)
    add_costs(run)
    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset `ds`, one of whose titles is hostile, and eight runs `run-0` to `run-7`."""
    folder = tmp_path_factory.mktemp("report")
    tables = write_tables(folder, titles=[*TITLES[:-1], EVIL])
    works("data", "prepare", *tables, "--min-history", 2, "--no-clean", "--output", folder / "ds")
    data = load_dataset(folder / "ds")
    for number in range(8):
        run = add_run(folder / f"run-{number}", data, [number, 0, 1, 3], epochs=number + 1)
        write_log(run, **({"lambda": [1.0, 0.6, 0.2], "distance": [9.0, 6.0, 5.0]} if number % 2 else {}))
    write_log(folder / "run-0", temperature=[1.5, 1.2, 0.9])
    return folder


@pytest.fixture(scope="module")
def page(place: Path) -> str:
    """The page of all runs."""
    runs = [place / f"run-{number}" for number in range(8)]
    said = works("report", *runs, "--output", place / "all.html", "--samples", 24)
    assert said.startswith(f"{place / 'all.html'}: ")
    return (place / "all.html").read_text(encoding="utf-8")


def test_it_shows_what_compare_shows(page: str, place: Path) -> None:
    runs = [place / f"run-{number}" for number in range(8)]
    found = compare(runs, metrics=["ndcg@10", "hr@10"], floor=True)
    for row in found.rows:
        assert f'<th scope="row">{row.label}</th>' in page
        assert f"{row.metrics['ndcg@10'].mean:.4f}"[1:] in page
    for caution in found.cautions:
        assert caution.text.split(":")[0] in page
    for part in ("result", "learning", "slices", "lists", "calibration", "cost", "samples", "made"):
        assert f'<section id="{part}">' in page and f'href="#{part}"' in page
    for words in ("catalign train --dataset ds", "abc123def456", "catalign report ", "epochs: 8"):
        assert words in page


def test_every_figure_is_inside_and_is_told_in_words(page: str) -> None:
    images = Elements(page).of("img")
    kinds = [str(image["alt"]).partition(":")[0] for image in images]
    assert [kind for kind in kinds if " by epoch" in kind] == [
        "Training loss by epoch", "temperature by epoch", "weight of the teacher's answers (lambda) by epoch",
        "distance between answers and truth by epoch",
    ]  # fmt: skip
    for image in images:
        assert len(str(image["alt"])) > 20
        head, _, coded = str(image["src"]).partition(",")
        assert head == "data:image/svg+xml;base64"
        assert base64.b64decode(coded).lstrip().startswith(b"<?xml")


def test_it_names_no_address_and_holds_no_script(page: str) -> None:
    elements = Elements(page)
    assert not elements.of("script") and not elements.of("iframe")
    for tag, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:", "#")), (tag, target)
    policy = next(meta["content"] for meta in elements.of("meta") if "http-equiv" in meta)
    assert policy is not None and policy.startswith("default-src 'none'")
    assert "@import" not in page and "url(" not in page


def test_titles_are_text(page: str) -> None:
    assert "{{ 7 * 7 }}" in page, "the title is shown as it is"
    assert "&lt;script&gt;alert(" in page and "<script" not in page and "<b>" not in page


def test_one_run_is_enough(place: Path, tmp_path: Path) -> None:
    works("report", place / "run-2", "--no-floor", "--samples", 0, "--output", tmp_path / "out" / "one.html")
    page = (tmp_path / "out" / "one.html").read_text(encoding="utf-8")
    assert "“run-2”: NDCG@10 " in page and 'id="samples"' not in page and 'id="learning"' in page


def test_seeds_share_a_row_and_a_colour(place: Path, tmp_path: Path) -> None:
    data = load_dataset(place / "ds")
    for seed in (0, 1):
        run = made_run(tmp_path / f"msl-seed{seed}", data, lists_with_target_at(data, [1, 0, 2]), seed=seed)
        add_costs(run)
        write_log(run)
    works("report", tmp_path / "msl-seed0", tmp_path / "msl-seed1", "--output", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert len(re.findall(r'<th scope="row">msl</th>', page)) == 2 + 2  # result, lists, and a cost for each seed
    assert "msl, seed 0" in page and "msl, seed 1" in page


def test_samples_are_the_same_for_all_rows(place: Path, page: str) -> None:
    data, run = load_dataset(place / "ds"), place / "run-1"
    articles = page.split('<article class="sample">')[1:]
    assert len(articles) == min(24, data.windows("test")["user_id"].n_unique())
    window = int(re.findall(r"Window ([\d,]+) of test", articles[0])[0].replace(",", ""))
    target = data.items["title"][data.windows("test")["target"][window]]
    assert target in articles[0] or "&lt;script" in articles[0]
    of_run = articles[0].split(">run-1</h4>")[1].partition("</div>")[0]
    at = [1, 0, 1, 3][window % 4]
    assert ('class="hit"' in of_run) == (at > 0), run


@pytest.mark.parametrize(("protocol", "more"), [("candidates", ["--candidates", 5]), ("pairs", [])])
def test_other_protocols(toy_run: Path, tmp_path: Path, protocol: str, more: list[object]) -> None:
    works("evaluate", toy_run, "--protocol", protocol, "--windows", 12, "--output", tmp_path / "p", *more)
    works("report", tmp_path / "p", "--dataset", toy_dataset_of(toy_run), "--output", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert 'id="result"' in page and 'id="calibration"' not in page
    assert ('id="samples"' in page) == (protocol == "candidates")


def toy_dataset_of(run: Path) -> str:
    return re.findall(r"^dataset: (.*)$", (run / "recipe.yaml").read_text(), flags=re.MULTILINE)[0]


def test_the_finding_says_no_more_than_the_tests(place: Path, tmp_path: Path) -> None:
    data = load_dataset(place / "ds")
    best = made_run(tmp_path / "best", data, lists_with_target_at(data, [1]), recipe={"epochs": 2})
    poor = made_run(tmp_path / "poor", data, lists_with_target_at(data, [0]), recipe={"epochs": 3})
    like = made_run(tmp_path / "like", data, lists_with_target_at(data, [1] * 11 + [2]), recipe={"epochs": 4})
    assert finding(compare([best, poor])).endswith("It is ahead of the other row (p < .05 after Holm).")
    assert finding(compare([best, like])).endswith("cannot be told apart from “like” (p ≥ .05 after Holm).")
    assert finding(compare([best, poor], baseline="poor")).startswith("“best” has the highest NDCG@10, 1.0000")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none"], "none: no such folder"),
        (["run-0", "run-0"], "run-0/evaluations/test-all: is given twice"),
        (["run-0", "--by", "colour"], "no such slices: colour"),
        (["run-0", "--output", "ds/items.parquet/r.html"], "a file is in the way"),
        (["broken"], "log.jsonl: line 2 is no JSON object; remove that line"),
    ],
)
def test_mistakes_are_one_line(
    place: Path, arguments: list[object], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(place)
    broken = add_run(place / "broken", load_dataset(place / "ds"), [1]) if arguments == ["broken"] else None
    if broken is not None:
        (broken / "log.jsonl").write_text('{"loss": 1.0, "epoch": 1, "seconds": 1}\n{"loss"\n')
    output = [] if "--output" in arguments else ["--output", tmp_path / "r.html"]
    assert words in mistake("report", *arguments, *output)
    assert not (tmp_path / "r.html").exists()


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    for name in [name for name in sys.modules if name.startswith(("catalign.reporting", "matplotlib"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = mistake("report", place / "run-0", "--output", place / "r.html")
    assert said == "catalign report: matplotlib is not installed; pip install 'catalign[report]'"


def test_names_keep_their_distance() -> None:
    places = spread(np.array([0.0, 0.01, 0.5, 0.99, 1.0]), 0.1)
    assert np.diff(places).min() > 0.1 - 1e-9 and min(places) >= 0 and max(places) <= 1
    assert places[2] == pytest.approx(0.5)
    assert np.diff(spread(np.linspace(0, 1, 30), 0.1)).min() > 0.1 - 1e-9  # more than fit


def test_eight_rows_have_eight_colours() -> None:
    looks = looks_of(["popularity"], [f"run {number}" for number in range(8)])
    assert len({look.colour for look in looks.values()}) == 9
