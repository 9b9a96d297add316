"""Pushing to a hub: what is sent, and one line where it cannot be."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import huggingface_hub.constants
import pytest
from huggingface_hub import HfApi

from toy import mistake, works


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("---\nlibrary_name: transformers\n---\n# x\n")
    return tmp_path


class Hub(BaseHTTPRequestHandler):
    """A hub that knows one token."""

    asked: ClassVar[list[dict[str, object]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        known = self.headers["authorization"] == "Bearer hf_good"
        Hub.asked.append({"path": self.path, **body})
        url = f"http://127.0.0.1:{self.server.server_address[1]}/me/shop"
        answer = {"url": url, "id": "me/shop"} if known else {"error": "Invalid credentials"}
        content = json.dumps(answer).encode()
        self.send_response(200 if known else 401)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests as a whole are offline; here the network is this machine."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Hub)
    Hub.asked.clear()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield huggingface_hub.constants.ENDPOINT
    server.shutdown()
    server.server_close()


def test_the_repository_is_made_and_the_folder_sent(folder: Path, hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, object]] = []
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    monkeypatch.setattr(HfApi, "upload_folder", lambda _, **given: sent.append(given))
    assert "me/shop" in works("model", "push", folder, "me/shop", "--private")
    (made,) = Hub.asked
    assert made["path"] == "/api/repos/create" and made["name"] == "shop"
    assert made.get("private") is True or made.get("visibility") == "private"
    assert sent[0]["repo_id"] == "me/shop" and sent[0]["folder_path"] == folder


def test_an_unknown_token_is_one_line(folder: Path, hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    assert "no such token" in mistake("model", "push", folder, "me/shop")


def test_no_hub_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert "cannot be reached" in mistake("model", "push", folder, "me/shop")


def test_what_is_no_export_or_no_name(folder: Path, tmp_path_factory: pytest.TempPathFactory, hub: str) -> None:
    assert "is not an exported model" in mistake("model", "push", tmp_path_factory.mktemp("x"), "me/shop")
    assert "is not the name of a repository" in mistake("model", "push", folder, "me/../shop!")
