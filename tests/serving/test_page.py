"""The playground in Chromium: a person searches, clicks, filters, asks why, compares; by mouse, keys and on a phone.

Every test ends with what the browser saw: no request left the service, and its console has no complaint but those about
the errors that a test made.
"""

import json
import math
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl
import pytest
import uvicorn
from shop import JSON, make_run

from catalign.serving.app import create_app
from catalign.serving.batcher import QueueFull
from catalign.serving.keys import Key, new_key, read_keys
from catalign.serving.live import NewItem, Update
from catalign.serving.service import Service
from catalign.serving.settings import ServiceSettings
from catalign.serving.variants import Variant
from catalign.training.run import Run
from chromium import PROGRAM
from toy import COLOURS, TITLES, make_model

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
expect = playwright.expect
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]

Page = Any  # playwright's; the module may be absent
PATIENCE = 60_000  # milliseconds; a machine may be busy
MARKUP = "<svg onload=alert(1)> & <x-lamp>"
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
DESKTOP = {"viewport": {"width": 1360, "height": 900}}


@dataclass
class Served:
    """A service on a port of this machine."""

    address: str
    service: Service

    def at(self, *history: str, **said: Any) -> str:
        """The address of a question."""
        parts = [("item", item) for item in history] + list(said.items())
        return self.address + "#" + "&".join(f"{name.replace('_', '-')}={quote(str(value))}" for name, value in parts)


@contextmanager
def served(runs: dict[str, Run], keys: list[Key] | None = None, **settings: Any) -> Iterator[Served]:
    variants = [Variant(name, 1 / len(runs), run) for name, run in runs.items()]
    service = Service(variants, ServiceSettings(**{"max_wait_ms": 0.0, "timeout_s": 60.0, **settings}))
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(service, keys), log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}/", service)
    finally:
        server.should_exit = True
        thread.join(60)
        listening.close()


@pytest.fixture(scope="module")
def runs(toy_model: Path, toy_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Two runs that disagree; the items also have a maker each, too many for boxes."""
    other = make_model(toy_dataset, tmp_path_factory.mktemp("other") / "lm", seed=5)
    made = {"msl": make_run(toy_model, toy_dataset), "dmpo": make_run(other, toy_dataset)}
    for name, run in made.items():
        assert run.catalogue.metadata is not None
        maker = pl.Series("maker", [f"Maker {number:02d} & Sons" for number in range(len(TITLES))])
        catalogue = replace(run.catalogue, metadata=run.catalogue.metadata.with_columns(maker, new=pl.lit(True)))
        made[name] = replace(run, catalogue=catalogue)
    return made


@pytest.fixture(scope="module")
def shop(runs: dict[str, Run]) -> Iterator[Served]:
    """Both runs; one item has markup for a title, one is not available."""
    with served(runs) as opened:
        added = [NewItem("markup", MARKUP)]
        opened.service.live.update(Update(add=added, available={"i007": False}))
        yield opened


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@dataclass
class Seen:
    """What a page asked for and what the browser complained about."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Page]]:
    """Opens an address in a context of its own; `refusals` says that answers with errors are expected."""
    contexts, watched = [], []

    def opened(address: str, *, refusals: bool = False, **options: Any) -> Page:
        context = browser.new_context(**{**DESKTOP, **options})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page, seen = context.new_page(), Seen()
        seen.watch(page)
        watched.append((address, seen, refusals))
        page.goto(address)
        return page

    expect.set_options(timeout=PATIENCE)
    yield opened
    for context in contexts:
        context.close()
    for address, seen, refusals in watched:
        origin = address.split("#")[0]
        assert seen.requests and not [url for url in seen.requests if not url.startswith(origin)]
        told = [line for line in seen.complaints if not (refusals and "Failed to load resource" in line)]
        assert not told


def search(page: Page, text: str, name: str = "Add an item by its title") -> None:
    """Type a title and take it by Enter."""
    box = page.get_by_role("combobox", name=name)
    box.click()
    box.press_sequentially(text)
    options(page).first.wait_for()
    box.press("Enter")


def options(page: Page) -> Any:
    """The suggestions; the choices of an HTML select have the same role."""
    return page.locator("[role=option]")


def history(page: Page) -> Any:
    return page.locator("ol.history .title")


def results(page: Page, run: str = "msl") -> Any:
    return page.get_by_role("region", name=run).locator(".results > li")


def shown(page: Page, run: str = "msl") -> list[str]:
    found: list[str] = results(page, run).locator(".row .title").all_text_contents()
    return found


def ask(page: Page, path: str, **body: Any) -> JSON:
    """Ask the service what the page must show."""
    answer = page.request.post(path, data=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.ok, answer.text()
    result: JSON = answer.json()
    return result


def titles(answer: JSON) -> list[str]:
    return [item["title"] for item in answer["items"]]


# Searching and clicking


def test_search_click_and_see_what_the_service_recommends(shop: Served, visit: Any) -> None:
    page = visit(shop.address)
    expect(page.locator("#lists")).to_contain_text("Nothing to go by yet")
    expect(page.locator(".offers button")).to_have_count(6)
    box = page.get_by_role("combobox", name="Add an item by its title")
    box.fill("LAMP")
    expect(options(page)).to_have_count(9)  # eight lamps and the one of markup
    expect(options(page).first.locator("mark")).to_have_text("lamp")
    options(page).filter(has_text="blue lamp").click()
    expect(history(page)).to_have_text(["blue lamp"])
    search(page, "red kettle")
    expect(history(page)).to_have_text(["blue lamp", "red kettle"])
    expect(results(page)).to_have_count(10)
    answer = ask(page, shop.address + "v1/recommend", history=["blue lamp", "red kettle"], k=10, variant="msl")
    assert shown(page) == titles(answer)
    shares = results(page).locator(".probability").all_text_contents()
    told = [float(share.removeprefix("probability ").rstrip("%")) / 100 for share in shares]
    assert told == pytest.approx([item["probability"] for item in answer["items"]], rel=0.01)
    expect(page.locator(".status")).to_contain_text("10 items in")
    expect(page.locator(".status")).to_contain_text("ms")


def test_the_history_is_reordered_and_emptied(shop: Served, visit: Any) -> None:
    page = visit(shop.at("i001", "i002", "i003"))
    expect(history(page)).to_have_text(TITLES[1:4])
    page.get_by_role("button", name=f"Move {TITLES[1]} later").click()
    expect(history(page)).to_have_text([TITLES[2], TITLES[1], TITLES[3]])
    page.get_by_role("button", name=f"Remove {TITLES[2]}").click()
    expect(history(page)).to_have_text([TITLES[1], TITLES[3]])
    first = results(page).first
    title = first.locator(".row .title").text_content()
    first.get_by_role("button", name="Add").click()
    expect(history(page)).to_have_text([TITLES[1], TITLES[3], title])
    expect(results(page).locator(".title", has_text=title)).to_have_count(0)
    page.get_by_label("Leave out what the person has").uncheck()
    page.get_by_label("How many").fill("23")
    expect(results(page)).to_have_count(23)
    assert title in shown(page)
    page.get_by_role("button", name="Empty the list").click()
    expect(page.locator("#lists")).to_contain_text("Nothing to go by yet")
    page.go_back()
    expect(history(page)).to_have_count(3)


# Filters


def test_filters_of_every_kind(shop: Served, visit: Any) -> None:
    page = visit(shop.at("i001"))
    page.locator("summary", has_text="colour").click()
    page.get_by_role("checkbox", name="red").check()
    expect(results(page)).to_have_count(3)
    page.get_by_role("checkbox", name="blue").check()
    expect(results(page)).to_have_count(6)
    assert {title.split()[0] for title in shown(page)} == {"red", "blue"}
    page.locator("summary", has_text="price").click()
    page.get_by_label("to", exact=True).fill("30")
    page.get_by_label("to", exact=True).blur()
    expected = ask(page, shop.address + "v1/recommend", history=["i001"], variant="msl",
                   filters={"colour": ["red", "blue"], "price": {"max": 30}})  # fmt: skip
    expect(results(page)).to_have_count(len(expected["items"]))
    assert shown(page) == titles(expected)
    assert expected["note"] and expected["note"][1:] in page.locator("#lists .notice").text_content()
    page.get_by_role("button", name="Clear the filters").click()
    expect(results(page)).to_have_count(10)
    page.locator("summary", has_text="maker").click()
    search(page, "maker 06", "Values of maker")
    expect(results(page)).to_have_count(1)
    assert shown(page) == [TITLES[6]]
    page.get_by_role("button", name="Remove Maker 06").click()
    expect(results(page)).to_have_count(10)


def test_filters_that_leave_nothing_are_told_and_cleared(shop: Served, visit: Any) -> None:
    page = visit(shop.at("i001", filters=json.dumps({"colour": ["red"], "price": {"min": 1000}})))
    expect(page.locator("#lists .notice")).to_contain_text("No available item passes the filters.")
    assert shown(page) == []
    page.locator("#lists").get_by_role("button", name="Clear the filters").click()
    expect(results(page)).to_have_count(10)
    assert "filters" not in page.url


# Explanations


def test_why_shows_what_each_item_of_the_history_moved(shop: Served, visit: Any) -> None:
    page = visit(shop.at("i001", "i012", "i020"))
    results(page).nth(1).get_by_role("button", name="Why?").click()
    expect(page.locator(".moves li")).to_have_count(3)
    item = shown(page)[1]
    told = ask(page, shop.address + "v1/explain", history=["i001", "i012", "i020"], item=item, variant="msl")
    assert page.locator(".moves .title").all_text_contents() == [part["title"] for part in told["contributions"]]
    check_moves(page, [part["moved"] for part in told["contributions"]])
    expect(page.locator(".why")).to_contain_text(f"{item} has a probability of")

    search(page, TITLES[9], "Why not another one?")
    expect(page.locator(".why")).to_contain_text(TITLES[9])
    told = ask(page, shop.address + "v1/explain", history=["i001", "i012", "i020"], item=item, instead_of=TITLES[9],
               variant="msl")  # fmt: skip
    check_moves(page, [part["contrast"] for part in told["contributions"]])
    likelier = "as likely as" if told["margin"] > 0 else "less likely than"
    expect(page.locator(".why p").first).to_contain_text(f"{likelier} {TITLES[9]}")
    page.get_by_role("button", name="Why this one alone").click()
    expect(page.locator(".why")).to_contain_text("has a probability of")
    results(page).nth(1).get_by_role("button", name="Why?").click()
    expect(page.locator(".why")).to_have_count(0)


def check_moves(page: Page, moved: list[float]) -> None:
    """Bars go the right way, the longest one belongs to the largest number, and words say by how much."""
    bars = page.locator(".moves .bar")
    ways = [classes.split()[-1] for classes in bars.evaluate_all("bars => bars.map((bar) => bar.className)")]
    lengths = bars.evaluate_all("bars => bars.map((bar) => Number(bar.style.getPropertyValue('--length')))")
    words = page.locator(".moves .words").all_text_contents()
    for way, word, by in zip(ways, words, moved, strict=True):
        if way != "none":
            assert way == ("up" if by > 0 else "down")
            assert float(word.split("×")[0]) == pytest.approx(math.exp(abs(by)), rel=0.06)
        else:
            assert abs(by) < 0.06
    assert int(np.argmax(lengths)) == int(np.argmax(np.abs(moved)))


# Two runs


def test_two_runs_side_by_side_with_what_moved(shop: Served, visit: Any) -> None:
    page = visit(shop.at("i001", "i012"))
    page.get_by_label("Beside it").select_option("dmpo")
    expect(results(page, "dmpo")).to_have_count(10)
    told = {
        run: titles(ask(page, shop.address + "v1/recommend", history=["i001", "i012"], variant=run))
        for run in ("msl", "dmpo")
    }
    assert {run: shown(page, run) for run in told} == told
    assert told["msl"] != told["dmpo"]
    rows = results(page, "dmpo").all()
    for rank, (row, title) in enumerate(zip(rows, told["dmpo"], strict=True)):
        mark = row.locator(".mark").text_content()
        if title not in told["msl"]:
            assert mark.startswith("only here")
        else:
            by = told["msl"].index(title) - rank
            places = "place" if abs(by) == 1 else "places"
            told_by = (
                f"{'▲' if by > 0 else '▼'} {abs(by)} {abs(by)} {places} {'higher' if by > 0 else 'lower'} than in msl"
            )
            assert mark == (told_by if by else "= the same place as in msl")
    alone = [title for title in told["msl"] if title not in told["dmpo"]]
    expect(results(page).locator(".mark")).to_have_count(len(alone))
    expect(page.locator(".lead")).to_contain_text(f"{10 - len(alone)} of 10 items are in both lists")
    results(page, "dmpo").first.get_by_role("button", name="Why?").click()
    expect(page.locator(".why .moves li")).to_have_count(2)
    assert "why-run=dmpo" in page.url


def test_a_link_shows_the_same_to_somebody_else(shop: Served, visit: Any) -> None:
    filters = json.dumps({"colour": [*COLOURS[:6]]})
    item = ["i001", "i012"]
    said = {"k": 7, "keep": 1, "filters": filters, "run": "dmpo", "beside": "msl"}
    page = visit(shop.at(*item, **said))
    expect(results(page, "dmpo")).to_have_count(7)
    results(page, "dmpo").nth(2).get_by_role("button", name="Why?").click()
    expect(page.locator(".moves li")).to_have_count(2)
    again = visit(page.url)
    expect(again.locator(".moves li")).to_have_count(2)
    assert (shown(again, "dmpo"), shown(again)) == (shown(page, "dmpo"), shown(page))
    assert again.locator(".why").inner_text().split("\n")[0] == page.locator(".why").inner_text().split("\n")[0]
    expect(again.get_by_label("How many")).to_have_value("7")
    expect(again.get_by_label("Leave out what the person has")).not_to_be_checked()
    expect(again.get_by_label("Run", exact=True)).to_have_value("dmpo")
    expect(again.get_by_role("checkbox", name=COLOURS[0])).to_be_checked()


def test_a_broken_link_is_an_empty_question(shop: Served, visit: Any) -> None:
    page = visit(shop.address)
    for fragment in ("filters=[", "filters=null&k=x", 'filters={"colour":{"min":"a"}}&why=', "%%%", "item="):
        page.goto(f"{shop.address}#{fragment}")
        page.reload()
        expect(page.locator("#lists")).to_contain_text("Nothing to go by yet")
        expect(page.get_by_label("How many")).to_have_value("10")


# Titles are data


def test_a_title_with_markup_stays_text(shop: Served, visit: Any) -> None:
    page = visit(shop.at("markup", "i001", keep=1, k=24))
    expect(history(page).first).to_have_text(MARKUP)
    expect(results(page)).to_have_count(24)
    row = results(page).filter(has_text=MARKUP)
    row.get_by_role("button", name="Why?").click()
    expect(page.locator(".moves .title").first).to_have_text(MARKUP)
    box = page.get_by_role("combobox", name="Add an item by its title")
    box.fill("<svg")
    expect(options(page)).to_have_text(MARKUP)
    assert page.locator("svg, x-lamp").count() == 0


# What goes wrong


def test_unknown_items_and_runs_of_a_link_are_told(shop: Served, visit: Any) -> None:
    page = visit(shop.at("nobody", "i001"))
    expect(page.locator("ol.history li").first).to_contain_text("not in the catalogue")
    expect(page.locator("#lists .notice")).to_contain_text(
        "Left aside, because the catalogue does not have them: nobody."
    )
    expect(results(page)).to_have_count(10)
    page = visit(shop.at("nobody"), refusals=True)
    expect(page.locator("#lists .trouble")).to_contain_text("the catalogue has none of its items", ignore_case=True)
    page = visit(shop.at("i001", run="gone"), refusals=True)
    expect(page.locator("#lists .trouble")).to_contain_text("No such variant; there are msl, dmpo.")
    page.get_by_label("Run", exact=True).select_option("msl")
    expect(results(page)).to_have_count(10)
    page = visit(shop.at("i001", k=1000), refusals=True)
    expect(page.locator("#lists .trouble")).to_contain_text("k: at most 100")


def test_a_busy_service_and_a_lost_one_are_told(shop: Served, visit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    page = visit(shop.address, refusals=True)
    page.locator(".offers button").first.wait_for()

    async def full(*_: Any, **__: Any) -> None:
        raise QueueFull

    with monkeypatch.context() as patch:
        patch.setattr(shop.service, "recommend", full)
        page.locator(".offers button").first.click()
        trouble = page.locator("#lists .trouble")
        expect(trouble).to_contain_text(
            "The service is busy: too many requests are waiting. It asks to come back in 1 s."
        )
    trouble.get_by_role("button", name="Try again").click()
    expect(results(page)).to_have_count(10)
    with monkeypatch.context() as patch:
        patch.setattr(shop.service, "explain", full)
        results(page).first.get_by_role("button", name="Why?").click()
        expect(page.locator(".why .trouble")).to_contain_text("The service is busy")
    page.locator(".why").get_by_role("button", name="Try again").click()
    expect(page.locator(".why")).to_contain_text("has a probability of")
    page.context.set_offline(True)
    results(page).first.get_by_role("button", name="Add").click()
    expect(trouble).to_contain_text("The service cannot be reached.")
    page.context.set_offline(False)
    trouble.get_by_role("button", name="Try again").click()
    expect(results(page)).to_have_count(10)


def test_a_catalogue_that_changes_meanwhile_is_noticed(runs: dict[str, Run], visit: Any) -> None:
    with served({"msl": runs["msl"]}) as alone:
        page = visit(alone.at("i001", "i002"))
        expect(page.locator("#about")).to_contain_text("24 items · catalogue version 1")
        expect(page.get_by_label("Beside it")).to_have_count(0)  # there is one run
        alone.service.live.update(Update(retire=["i002"]))
        page.get_by_label("How many").fill("5")
        expect(page.locator("#about")).to_contain_text("23 items · catalogue version 2")
        expect(page.locator("ol.history li").nth(1)).to_contain_text("not in the catalogue")
        assert page.get_by_label("How many").input_value() == "5"
        page.close()  # before the service goes: it still asks


def test_a_key_is_asked_for_and_stays_in_memory(runs: dict[str, Run], visit: Any, tmp_path: Path) -> None:
    key, line = new_key("shop")
    (tmp_path / "keys").write_text(f"{line}\n")
    with served({"msl": runs["msl"]}, read_keys(tmp_path / "keys")) as closed:
        page = visit(closed.at("i001"), refusals=True)
        expect(page.get_by_label("API key")).to_be_focused()
        page.get_by_label("API key").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#door")).to_contain_text("does not know this key")
        page.get_by_label("API key").fill(key)
        page.keyboard.press("Enter")
        expect(results(page)).to_have_count(10)
        kept = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
        assert key not in page.url and kept == '[{},{},""]'
        page.get_by_text("Ask the same from a command line").click()
        expect(page.locator("pre")).to_contain_text("authorization: Bearer KEY")
        page.get_by_role("button", name="Forget the key").click()
        expect(page.get_by_label("API key")).to_have_value("")
        expect(page.locator("#shop")).to_be_hidden()


# By keys, on a phone, in the dark


def focused(page: Page) -> JSON:
    """What has the focus, its name, and whether one sees that it has."""
    found: JSON = page.evaluate(
        """() => {
          const element = document.activeElement;
          const { outlineStyle, outlineWidth } = getComputedStyle(element);
          const box = element.getBoundingClientRect();
          return {
            tag: element.tagName, text: element.ariaLabel ?? element.labels?.[0]?.innerText ?? element.innerText,
            seen: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 && box.width > 0 && box.height > 0,
          };
        }"""
    )
    return found


def test_everything_by_the_keyboard_alone(shop: Served, visit: Any) -> None:
    page = visit(shop.address)
    page.locator(".offers button").first.wait_for()

    def tab_to(text: str, most: int = 80) -> None:
        for _ in range(most):
            page.keyboard.press("Tab")
            place = focused(page)
            assert place["seen"] or place["tag"] == "BODY", place
            if text in place["text"]:
                return
        raise AssertionError(f"the keyboard does not reach {text}")

    tab_to("Skip to the recommendations", 1)
    tab_to("Add an item by its title", 1)
    box = page.get_by_role("combobox", name="Add an item by its title")
    page.keyboard.type("scarf")
    options(page).first.wait_for()
    expect(box).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowDown")
    active = page.locator("[aria-selected=true]")
    assert box.get_attribute("aria-activedescendant") == active.get_attribute("id")
    second = active.locator(".title").text_content()
    page.keyboard.press("Enter")
    expect(history(page)).to_have_text([second])
    page.keyboard.type("scarf")
    options(page).first.wait_for()
    page.keyboard.press("Escape")
    expect(box).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("Escape")
    expect(box).to_have_value("")
    page.keyboard.type("red kettle")
    page.keyboard.press("Enter")  # before the suggestions are there
    expect(history(page)).to_have_text([second, "red kettle"])

    tab_to(f"Move {second} later")
    page.keyboard.press("Enter")
    expect(history(page)).to_have_text(["red kettle", second])
    assert focused(page)["text"] == f"Move {second} earlier"  # the focus went with the item
    tab_to(f"Remove {second}")
    page.keyboard.press("Space")
    expect(history(page)).to_have_text(["red kettle"])
    assert focused(page)["text"] == "Remove red kettle"
    tab_to("Leave out what the person has")
    tab_to("colour")
    page.keyboard.press("Enter")
    tab_to("red")
    page.keyboard.press("Space")
    expect(results(page)).to_have_count(2)
    tab_to("Add")
    page.keyboard.press("Enter")
    expect(history(page)).to_have_count(2)
    expect(results(page)).to_have_count(1)
    assert focused(page)["text"].startswith("Add")
    page.keyboard.press("Shift+Tab")
    assert focused(page)["text"].startswith("Why?")
    page.keyboard.press("Enter")
    expect(page.locator(".moves li")).to_have_count(2)
    tab_to("Why not another one?", 3)
    page.keyboard.type("golden lamp")
    options(page).first.wait_for()
    page.keyboard.press("Enter")
    expect(page.locator(".why")).to_contain_text("golden lamp")
    assert focused(page)["text"].startswith("Why?")


LONG = "Supercalifragilistic" * 6


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_without_scrolling_sideways(
    runs: dict[str, Run], visit: Any, tmp_path: Path, scheme: str
) -> None:
    with served(runs) as long:
        long.service.live.update(Update(add=[NewItem("long", LONG)]))
        page = visit(long.at("long", "i001", beside="dmpo", k=24, keep=1), **PHONE, color_scheme=scheme)
        expect(results(page, "dmpo")).to_have_count(24)
        results(page).filter(has_text=LONG).get_by_role("button", name="Why?").click()
        expect(page.locator(".moves li")).to_have_count(2)
        page.locator("#ask > summary").click()
        for summary in page.locator(".filter > summary").all():
            summary.click()
        page.locator("#command > summary").click()
        page.screenshot(path=tmp_path / f"phone-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        page.get_by_role("combobox", name="Add an item by its title").fill("super")
        options(page).first.wait_for()
        page.screenshot(path=tmp_path / f"phone-{scheme}-search.png")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        small = page.evaluate(  # WCAG 2.2, target size: 24 by 24 CSS pixels
            """() => [...document.querySelectorAll("button, select, input:not([type=checkbox]), summary")]
              .map((element) => [element.outerHTML, element.getBoundingClientRect()])
              .filter(([, box]) => box.width > 0 && (box.width < 24 || box.height < 24)).map(([html]) => html)"""
        )
        assert not small


def test_the_colours_follow_the_system(shop: Served, visit: Any, tmp_path: Path) -> None:
    brightness = {}
    for scheme in ("light", "dark"):
        page = visit(shop.at("i001", "i012", beside="dmpo"), color_scheme=scheme)
        expect(results(page, "dmpo")).to_have_count(10)
        page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
        brightness[scheme] = np.asarray(Image.open(tmp_path / f"{scheme}.png").convert("L")).mean()
    assert brightness["light"] > 200 and brightness["dark"] < 60


def test_axe_finds_nothing(shop: Served, visit: Any) -> None:
    """The rules of axe-core for WCAG A and AA and its best practices; contrast of what is shown in both schemes."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

    def check(page: Page, **options: Any) -> None:
        found = axe.Axe().run(page, options={"resultTypes": ["violations"], **options})
        assert found.violations_count == 0, found.generate_report()

    page = visit(shop.address)
    page.get_by_role("combobox", name="Add an item by its title").fill("lamp")
    options(page).first.wait_for()
    check(page)
    filters = json.dumps(
        {"maker": [f"Maker {number:02d} & Sons" for number in range(16)], "colour": list(COLOURS), "price": {"min": 1}}
    )
    page = visit(shop.at("nobody", "i001", "i012", beside="dmpo", filters=filters))
    expect(page.locator("#lists .notice").first).to_contain_text("Left aside")
    results(page).first.get_by_role("button", name="Why?").click()
    page.locator(".moves li").first.wait_for()
    check(page)
    page.emulate_media(color_scheme="dark")
    check(page, runOnly=["color-contrast"])
    page = visit(shop.at("i001", k=1000), refusals=True)
    page.locator(".trouble").wait_for()
    check(page)
