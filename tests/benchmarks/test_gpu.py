"""The file of the GPU: every line of it in small on a CPU, and what it does where there is no GPU or no memory."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu, gpu_shop
from catalign.catalogue.catalogue import Catalogue
from catalign.training.flops import Peak

CPU = torch.device("cpu")
PARTS = ("lml step", "msl step", "search", "preference step")


def test_everything_runs_and_agrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = gpu.main(["--quick", "--device", "cpu", "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert code == 0 and found["same"] is True
    printed = capsys.readouterr().out
    for part in PARTS:
        assert f"{part}: same results, 1 rounds" in printed
        assert found[part]["ratio"]["ours"] > 0
        assert found[part]["ours"]["utilisation"] > 0 and found[part]["ours"]["peak_gb"] is None
    for part in ("lml step", "msl step"):  # the published flow reads each prompt anew
        assert found[part]["shape"]["nodes"] < found[part]["shape"]["tokens"]
        assert found[part]["difference"].keys() == {"ours", "plain rows", "bfloat16"}
        assert found[part]["difference"]["bfloat16"]["gradient"] > found[part]["difference"]["ours"]["gradient"]
    tokens = found["search"]["shape"]["tokens_through_the_model"]
    assert tokens["ours"] < tokens["published"]
    assert found["preference step"]["ratio"].keys() == {"ours", "ours cached"}


def test_a_difference_is_told_by_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    differs = {"loss": 0.0, "gradient": 2 * gpu.TOLERANCE}
    half = {"loss": 0.0, "gradient": 0.0}
    assert gpu.is_same({"ours": half}, half)
    assert not gpu.is_same({"ours": half, "plain rows": differs}, half)
    assert not gpu.is_same({"ours": half}, {"loss": 2 * gpu.BFLOAT16_LOSS, "gradient": 0.0})
    monkeypatch.setattr(gpu, "measure", lambda *_: {"same": False, "seconds": 0.0})
    assert gpu.main(["--quick", "--device", "cpu"]) == 1


def fits(most: int, tried: list[int]) -> Callable[[int], Callable[[], object]]:
    """A job that runs out of memory if more than `most` goes through at once."""

    def make(size: int) -> Callable[[], object]:
        def run() -> None:
            tried.append(size)
            if size > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

        return run

    return make


def alternate(**most: int) -> dict[str, Any]:
    sides = {name: gpu.Side(fits(size, []), 8, 1.0) for name, size in most.items()}
    return gpu.compare(sides, gpu.QUICK, time.monotonic(), CPU, Peak(1e12, "given"), half=False)


def test_what_goes_through_at_once_is_halved_until_it_fits() -> None:
    tried: list[int] = []
    side = gpu.Side(fits(3, tried), 8)
    side.fit(lambda: gpu.autocast(CPU))
    assert tried == [8, 4, 2] and side.at_once == 2
    assert alternate(published=3, ours=8)["published"]["at_once"] == 2


def test_what_does_not_fit_is_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    found = alternate(published=0, ours=8)
    assert found["published"] == "does not fit"
    assert found["ratio"] == {"ours": None} and found["ours"]["at_once"] == 8
    gpu.print_part("lml step", {"same": True, **found})
    assert "published    does not fit" in capsys.readouterr().out


def test_another_error_is_none_of_memory() -> None:
    def make(_: int) -> Callable[[], object]:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        gpu.Side(make, 8).fit(lambda: gpu.autocast(CPU))


@pytest.mark.parametrize(("options", "words"), [(["--device", "cpu"], "too slow"), ([], "no CUDA GPU")])
def test_without_a_gpu_it_says_so_in_one_line(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        gpu.main(options)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and words in error and error.count("\n") == 1


def test_the_drawn_shop_is_like_a_real_one() -> None:
    titles = gpu_shop.draw_titles(gpu_shop.FULL, np.random.default_rng(0))
    catalogue = Catalogue.from_lists(map(str, range(len(titles))), titles)
    trie = catalogue.build_trie(lambda texts: [[int(word[1:]) for word in text.split()] for text in texts], 1)
    shape = gpu_shop.trie_shape(trie)
    assert trie.items == 10_000 and trie.titles > 7_500
    assert 24 <= shape["children_at_first_decision"] <= 64
    assert 3 <= shape["mean_decisions"] <= 8
