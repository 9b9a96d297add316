"""What the service keeps between requests: prompt states of returning users, tokens of titles that stay."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from shop import client_of, make_run

from catalign.prompting import prompter as prompter_module
from catalign.serving.live import TEXTS_KEPT
from catalign.training.run import Run


@pytest.fixture(scope="module")
def run(toy_model: Path, toy_dataset: Path) -> Run:
    return make_run(toy_model, toy_dataset)


def metric(text: str, name: str) -> float:
    return float(next(line for line in text.splitlines() if line.startswith(f'{name}{{variant="msl"}}')).split()[-1])


def test_returning_users_get_the_same_answers_through_changes(run: Run) -> None:
    ids = [f"i{number:03}" for number in range(1, 9)]
    plainly, keeping = client_of({"msl": run}, prompt_cache_mb=0), client_of({"msl": run}, prompt_cache_mb=8)
    with plainly as (plain, _), keeping as (kept, _):
        for visit in range(2, 7):
            if visit == 4:  # item i002 leaves and comes again with another title
                change = {"retire": ["i002"], "add": [{"item_id": "i002", "title": "golden ladder"}]}
                assert plain.post("/v1/items", json=change).status_code == 200
                assert kept.post("/v1/items", json=change).status_code == 200
            body = {"history": ids[:visit], "k": 5}
            expected, found = (client.post("/v1/recommend", json=body).json()["items"] for client in (plain, kept))
            assert [item["item_id"] for item in found] == [item["item_id"] for item in expected]
            for one, other in zip(found, expected, strict=True):
                assert one["probability"] == pytest.approx(other["probability"], rel=1e-4)
        text = kept.get("/metrics").text
        assert metric(text, "catalign_prompt_tokens") > metric(text, "catalign_prompt_tokens_found") > 10
        assert 0 < metric(text, "catalign_prompt_cache_bytes") <= 8 * 2**20
        assert metric(text, "catalign_prompt_cache_prompts") >= 1
        assert "catalign_prompt_cache_bytes{" not in plain.get("/metrics").text


def test_only_new_titles_are_tokenised(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    plain = prompter_module.encode_pieces

    def noting(tokenizer: Any, texts: Sequence[str], known: dict[str, list[int]] | None = None) -> list[list[int]]:
        if known is None and len(texts) and texts[0]:
            asked.extend(texts)
        return plain(tokenizer, texts, known)

    with client_of({"msl": run}) as (client, service):
        add = lambda name: client.post("/v1/items", json={"add": [{"item_id": name, "title": f"{name} lamp"}]})  # noqa: E731
        add("first")
        monkeypatch.setattr(prompter_module, "encode_pieces", noting)
        assert add("second").status_code == 200
        assert set(asked) <= {"second lamp", *run.prompter.template.model_dump().values()}
        for number in range(TEXTS_KEPT * len(run.catalogue)):  # titles that left are not kept for ever
            service.live._known["msl"][f"gone {number}"] = [1]
        add("third")
        assert len(service.live._known["msl"]) <= 2 * (len(run.catalogue) + 3)
        assert client.post("/v1/recommend", json={"history": ["second", "third lamp"]}).status_code == 200
