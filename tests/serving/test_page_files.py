"""The page as files: what they are served with, what they ask of others, their colours; and the calls made for them."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from shop import JSON, client_of, make_run
from starlette.testclient import TestClient

from catalign.serving.columns import LONGEST_VALUE, MOST_VALUES, columns_of, values_of
from catalign.serving.keys import new_key, read_keys
from catalign.serving.playground import FOLDER, MEDIA_TYPES
from catalign.serving.service import Service
from catalign.training.run import Run
from toy import TITLES

FILES = sorted(path.name for path in FOLDER.iterdir())


@pytest.fixture(scope="module")
def run(toy_model: Path, toy_dataset: Path) -> Run:
    return make_run(toy_model, toy_dataset)


@pytest.fixture(scope="module")
def shop(run: Run) -> Iterator[tuple[TestClient, Service]]:
    with client_of({"msl": run}) as opened:
        yield opened


# Files


def test_every_file_is_served_under_a_strict_policy(shop: tuple[TestClient, Service]) -> None:
    client = shop[0]
    for path in ["/", *(f"/page/{name}" for name in FILES)]:
        answer = client.get(path)
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert answer.status_code == 200 and answer.content
        assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["require-trusted-types-for"] == "'script'" and policy["frame-ancestors"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["content-type"] == MEDIA_TYPES["." + path.rpartition(".")[2] if "." in path else ".html"]
        known = {"if-none-match": answer.headers["etag"]}
        assert client.get(path, headers=known).status_code == 304
        assert client.head(path).status_code == 200


@pytest.mark.parametrize("path", ["/page/", "/page/app.py", "/page/../app.py", "/page/..%2fapp.py", "/page/%2e%2e"])
def test_nothing_else_is_served(shop: tuple[TestClient, Service], path: str) -> None:
    answer = shop[0].get(path)
    assert answer.status_code == 404 and answer.headers["content-type"] == "application/problem+json"


def test_answers_of_the_service_have_their_own_headers(shop: tuple[TestClient, Service]) -> None:
    """The policy of the page is the page's; the page is no part of the OpenAPI document."""
    assert "content-security-policy" not in shop[0].get("/healthz").headers
    paths = shop[0].get("/openapi.json").json()["paths"]
    assert not [path for path in paths if path == "/" or path.startswith("/page")]


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_another_place_or_makes_markup_of_text(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[^\s\"']+", text)) - {"http://www.w3.org/2000/svg"}
    assert not addresses and "//cdn" not in text and "@import" not in text
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage", "cookie"):
        assert word not in text
    if name.endswith(".html"):
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", text)
        assert set(re.findall(r'page/([\w.]+)"', text)) <= set(FILES)
    for imported in re.findall(r'from "\./([\w.]+)"', text):
        assert imported in FILES


# Colours


def palette(scheme: str) -> dict[str, str]:
    """The variables of a scheme: those of the dark one stand in the media query."""
    text = (FOLDER / "page.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", part)) for part in text.split("@media", 2)[:2])
    return light if scheme == "light" else dark


def contrast(one: str, other: str) -> float:
    """WCAG 2.2: (L1 + 0.05) / (L2 + 0.05) of the relative luminances."""

    def luminance(colour: str) -> float:
        digits = colour.lstrip("#")
        digits = digits if len(digits) == 6 else "".join(digit * 2 for digit in digits)
        channels = np.array([int(digits[at : at + 2], 16) for at in (0, 2, 4)]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#fff", "#000000") == pytest.approx(21) and contrast("#777777", "#fff") == pytest.approx(
        4.48, abs=0.01
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_palette_has_contrast_aa(scheme: str) -> None:
    """Text 4.5 to 1, and 3 to 1 for what shows a control, its focus or a quantity."""
    colours = palette(scheme)
    assert colours.keys() == palette("light").keys()
    grounds = ("ground", "panel", "tint", "warn")
    text = [(ink, ground) for ink in ("ink", "soft", "act", "up", "down") for ground in grounds]
    text += [("on-act", "act"), ("ink", "found")]
    shapes = [(shape, ground) for shape in ("edge", "act", "up", "down", "warn-edge") for ground in grounds]
    poor = {
        (one, other): round(contrast(colours[one], colours[other]), 2)
        for pairs, least in ((text, 4.5), (shapes, 3.0))
        for one, other in pairs
        if contrast(colours[one], colours[other]) < least
    }
    assert not poor


# What the page asks


def test_about_tells_the_runs_and_what_filters_can_name(shop: tuple[TestClient, Service]) -> None:
    about: JSON = shop[0].get("/v1/about").json()
    assert about["variants"] == {"msl": 1.0} and about["items"] == about["available"] == 24 and about["max_k"] == 100
    colour, price, tags = about["columns"]
    assert colour["name"] == "colour" and colour["kind"] == "text" and not colour["several"]
    assert colour["distinct"] == 8 and {"value": "red", "items": 3} in colour["values"]
    assert (price["kind"], price["min"], price["max"], price["values"]) == ("number", 2.5, 57.5, [])
    assert tags["several"] and {value["value"]: value["items"] for value in tags["values"]} == {
        "even": 12,
        "odd": 12,
        "gift": 12,
    }


def test_about_counts_what_is_available(run: Run) -> None:
    with client_of({"msl": run}) as (client, _):
        client.post("/v1/items", json={"available": {"i000": False}})
        about = client.get("/v1/about").json()
    assert about["available"] == 23 and about["catalogue_version"] == 2
    assert {"value": "red", "items": 2} in about["columns"][0]["values"]


def test_a_catalogue_without_metadata_has_no_columns(run: Run) -> None:
    bare = replace(run, catalogue=replace(run.catalogue, metadata=None))
    with client_of({"msl": bare}) as (client, _):
        assert client.get("/v1/about").json()["columns"] == []
        assert client.get("/v1/items", params={"id": "i001"}).json()["items"][0]["metadata"] == {}


def test_items_by_id_keep_their_order_and_unknown_ones_are_not_there(shop: tuple[TestClient, Service]) -> None:
    asked = [("id", "i005"), ("id", "nobody"), ("id", "i001"), ("id", TITLES[2])]  # a title is no id
    found = shop[0].get("/v1/items", params=asked).json()["items"]
    assert [item["item_id"] for item in found] == ["i005", "i001"]
    assert found[0]["metadata"] == {"colour": TITLES[5].split()[0], "price": 12.5, "tags": ["odd", "gift"]}
    assert shop[0].get("/v1/items", params={"id": "i000"}).json()["items"][0]["metadata"].keys() == {"colour", "tags"}
    answer = shop[0].get("/v1/items", params=[("id", "i001")] * 101)
    assert answer.status_code == 422 and answer.headers["content-type"] == "application/problem+json"


def test_columns_of_every_type() -> None:
    metadata = pl.DataFrame(
        {
            "colour": pl.Series(["red", "red", "blue", None], dtype=pl.Categorical),
            "size": [1.5, float("nan"), float("inf"), -2.0],
            "new": [True, False, False, None],
            "sizes": [[1, 1], [3], [], None],
            "story": ["x" * (LONGEST_VALUE + 1), "short", None, None],
            "seen": pl.Series([0, 1, 2, 3]).cast(pl.Date),
            "parts": pl.Series([{"a": 1}] * 4),
        }
    )
    open_I = np.array([True, True, True, False])
    columns = {column.name: column for column in columns_of(metadata, open_I)}
    assert list(columns) == ["colour", "size", "new", "sizes", "story"]  # dates and objects cannot be filtered
    assert [(value.value, value.items) for value in columns["colour"].values] == [("red", 2), ("blue", 1)]
    assert (columns["size"].min, columns["size"].max) == (1.5, 1.5)
    assert [(value.value, value.items) for value in columns["new"].values] == [(False, 2), (True, 1)]
    assert (columns["sizes"].min, columns["sizes"].max, columns["sizes"].several) == (1, 3, True)
    assert columns["story"].distinct == 2 and [value.value for value in columns["story"].values] == ["short"]
    assert values_of(metadata, [3, 1]) == [
        {"size": -2.0},
        {"colour": "red", "new": False, "sizes": [3], "story": "short"},
    ]
    nothing = columns_of(metadata, np.zeros(4, dtype=np.bool_))
    assert [column.distinct for column in nothing] == [0] * 5 and nothing[1].min is None


def test_only_the_most_common_values_are_listed() -> None:
    metadata = pl.DataFrame({"maker": [f"maker {number:03d}" for number in range(MOST_VALUES + 50)] + ["maker 140"]})
    (column,) = columns_of(metadata, np.ones(metadata.height, dtype=np.bool_))
    assert column.distinct == MOST_VALUES + 50 and len(column.values) == MOST_VALUES
    assert column.values[0].value == "maker 140" and column.values[0].items == 2


def test_the_page_needs_no_key_and_its_calls_do(run: Run, tmp_path: Path) -> None:
    key, line = new_key("shop")
    (tmp_path / "keys").write_text(f"{line}\n")
    with client_of({"msl": run}, read_keys(tmp_path / "keys")) as (client, _):
        assert all(client.get(path).status_code == 200 for path in ["/", *(f"/page/{name}" for name in FILES)])
        refused: Any = client.get("/v1/about")
        assert refused.status_code == 401 and refused.json()["type"] == "urn:catalign:problem:unauthorized"
        assert client.get("/v1/about", headers={"authorization": f"Bearer {key}"}).status_code == 200
