"""The cache of reference log-probabilities: found by key, shared, refused when it is of another reference."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.errors import UserError
from catalign.training.reference_cache import ENTRIES, HEADER, ReferenceCache, hash_prompts

HERE: dict[str, Any] = {"model": "a", "adapter": None, "score": "full"}
PROMPTS = hash_prompts([np.array([1, 2, 3], dtype=np.int32), np.array([1, 2], dtype=np.int32)])
ITEMS = np.array([[4, 5], [5, 6]])
SCORES = np.array([[-1.5, -2.5], [-3.5, -4.5]], dtype=np.float32)


def filled(folder: Path) -> ReferenceCache:
    cache = ReferenceCache(folder, HERE)
    cache.add(PROMPTS, ITEMS, SCORES)
    return cache


def test_what_was_added_is_found_again(tmp_path: Path) -> None:
    for cache in (filled(tmp_path / "c"), ReferenceCache(tmp_path / "c", HERE)):
        asked = np.array([[5, 4, 6], [4, 5, 6]])
        found = cache.find(PROMPTS, asked)
        np.testing.assert_array_equal(found, [[-2.5, -1.5, np.nan], [np.nan, -3.5, -4.5]])
        found[0] = 0  # the caller may write into it
    assert {path.name for path in (tmp_path / "c").iterdir()} == {HEADER, ENTRIES}


def test_nothing_is_written_before_something_is_known(tmp_path: Path) -> None:
    cache = ReferenceCache(tmp_path / "c", HERE)
    assert np.isnan(cache.find(PROMPTS, ITEMS)).all()
    assert not (tmp_path / "c").exists()


def test_two_runs_add_to_one_folder(tmp_path: Path) -> None:
    one, other = ReferenceCache(tmp_path, HERE), ReferenceCache(tmp_path, HERE)
    one.add(PROMPTS[:1], ITEMS[:1], SCORES[:1])
    other.add(PROMPTS, ITEMS, SCORES + 1)
    found = ReferenceCache(tmp_path, HERE).find(PROMPTS, ITEMS)
    np.testing.assert_array_equal(found, [[-1.5, -2.5], [-2.5, -3.5]])  # what is known stays


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=30))
def test_prompts_are_told_apart(prompts: list[list[int]]) -> None:
    hashes = hash_prompts([np.array(prompt, dtype=np.int32) for prompt in prompts])
    assert len(hashes) == len(prompts) and len(set(hashes.tolist())) == len({tuple(prompt) for prompt in prompts})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("other", [{"model": "b"}, {"adapter": "x"}, {"score": "valid"}, {"template": "new"}])
def test_the_cache_of_another_reference_is_refused(tmp_path: Path, other: dict[str, str]) -> None:
    filled(tmp_path)
    before = contents(tmp_path)
    words = rf"holds log-probabilities of another reference \(other: {next(iter(other))}\); choose another folder or"
    with pytest.raises(UserError, match=words):
        ReferenceCache(tmp_path, {**HERE, **other})
    assert contents(tmp_path) == before


def damage_header(folder: Path) -> None:
    (folder / HEADER).write_text("{")


def list_header(folder: Path) -> None:
    (folder / HEADER).write_text("[]")


def lose_header(folder: Path) -> None:
    (folder / HEADER).unlink()


def damage_entries(folder: Path) -> None:
    (folder / ENTRIES).write_text("no")


def other_entries(folder: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(folder / ENTRIES)


@pytest.mark.parametrize("break_it", [damage_header, list_header, lose_header, damage_entries, other_entries])
def test_a_damaged_cache_is_refused(tmp_path: Path, break_it: Any) -> None:
    filled(tmp_path)
    break_it(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=str(tmp_path)):
        ReferenceCache(tmp_path, HERE)
    assert contents(tmp_path) == before


def test_scores_are_kept_to_the_last_digit(tmp_path: Path) -> None:
    scores: npt.NDArray[np.float32] = np.random.default_rng(0).normal(-9, 4, ITEMS.shape).astype(np.float32)
    cache = ReferenceCache(tmp_path, HERE)
    cache.add(PROMPTS, ITEMS, scores)
    np.testing.assert_array_equal(ReferenceCache(tmp_path, HERE).find(PROMPTS, ITEMS), scores)
