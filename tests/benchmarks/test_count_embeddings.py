"""Embeddings from counts are what training takes, and say what follows what."""

import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.count_embeddings import count_vectors, main, side_by_side

from catalign.data.dataset import load_dataset
from catalign.evaluation.floor import following_counts, ordered_similarity
from catalign.model.item_embedding import ItemVectors

WIDTH = 20


def test_their_products_are_nearly_the_similarity(toy_dataset: Path) -> None:
    dataset = load_dataset(toy_dataset)
    counts = dataset.training_counts()
    similarity = ordered_similarity(following_counts(dataset.windows("train"), len(counts)), counts).toarray()
    vectors = count_vectors(dataset, WIDTH)
    left = np.linalg.norm(similarity - vectors[:, :WIDTH] @ vectors[:, WIDTH:].T)
    exact = np.linalg.svd(similarity, compute_uv=False)[WIDTH:]
    np.testing.assert_allclose(left, np.linalg.norm(exact), rtol=1e-3, atol=1e-3)


def test_the_file(toy_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = load_dataset(toy_dataset).items["item_id"].to_list()
    run = tmp_path / "run"
    run.mkdir()
    ItemVectors(items[:5], np.full((5, 3), 7, dtype=np.float32)).save(run)
    file = tmp_path / "both.parquet"
    options = [str(toy_dataset), "--output", str(file), "--width", "4", "--beside", str(run)]
    monkeypatch.setattr(sys, "argv", ["count_embeddings", *options])
    main()
    read = ItemVectors.read(file)
    assert read.item_ids == items[:5] and read.vector_IW.shape == (5, 3 + 8)
    assert np.square(read.vector_IW[:, :3]).mean() == pytest.approx(1)
    alone = side_by_side(
        ItemVectors(items[:5], np.ones((5, 1), np.float32)), ItemVectors(items, np.eye(len(items), dtype=np.float32))
    )
    assert alone.vector_IW.shape == (5, 1 + len(items))
