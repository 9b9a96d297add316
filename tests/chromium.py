"""A page in a real browser: how it looks, what it asks of the network, and what the browser complains about."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-default-apps", "--no-default-browser-check", "--disable-features=Translate,MediaRouter",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # nothing that is asked for gets anywhere
)  # fmt: skip
_BROWSER = "not an origin"


@dataclass(frozen=True)
class Visit:
    """What a browser did with a page.

    Attributes:
        screenshot: PNG.
        requests: addresses other than the page and what stands in it.
        complaints: lines of the console.
    """

    screenshot: Path
    requests: list[str]
    complaints: list[str]


def visit(page: Path, folder: Path, *, width: int = 1100, height: int = 2400, seconds: int = 240) -> Visit:
    """Open a file and look at its upper `height` pixels."""
    assert PROGRAM is not None
    folder.mkdir(parents=True, exist_ok=True)
    screenshot, net = folder / "page.png", folder / "net.json"
    command = [
        PROGRAM, *_QUIET, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}",
        f"--screenshot={screenshot}", f"--log-net-log={net}", "--enable-logging=stderr", page.resolve().as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    assert screenshot.is_file(), done.stderr
    complaints = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return Visit(screenshot, _requests(net), complaints)


def _requests(net: Path) -> list[str]:
    """The addresses that the page asked for, from the log of the network stack; the browser's own have no origin."""
    text = net.read_text(encoding="utf-8", errors="replace")
    try:
        events = json.loads(text)["events"]
    except json.JSONDecodeError:  # the browser ended before it closed the list
        events = json.loads(re.sub(r",\s*$", "", text.rstrip()) + "]}")["events"]
    found = [event.get("params", {}) for event in events]
    asked = {asked["url"] for asked in found if asked.get("initiator", _BROWSER) != _BROWSER}
    return sorted(url for url in asked if url.partition(":")[0] not in ("data", "file"))
