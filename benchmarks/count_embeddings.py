"""Item embeddings from counts: the singular vectors of the ordered item-kNN, beside those of a trained run.

    python -m benchmarks.count_embeddings DATASET --output FILE.parquet [--width 128] [--beside RUN]

What comes before and what comes after an item are two halves of its embedding, [2 width] numbers; with `--beside` those
of a run that holds `item_embeddings.parquet` come first, both at the same scale. The file is what
`catalign train --item-embeddings` takes.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import svds

from catalign.data.dataset import Dataset, load_dataset
from catalign.evaluation.floor import following_counts, ordered_similarity
from catalign.model.item_embedding import ItemVectors

Floats = npt.NDArray[np.float32]


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--beside", type=Path, help="a run with item embeddings")
    options = parser.parse_args()
    dataset = load_dataset(options.dataset)
    vectors = ItemVectors(dataset.items["item_id"].to_list(), count_vectors(dataset, options.width))
    if options.beside is not None:
        vectors = side_by_side(ItemVectors.read(options.beside), vectors)
    vectors.save_as(options.output)


def count_vectors(dataset: Dataset, width: int) -> Floats:
    """Left and right singular vectors of the ordered similarity, each times the root of its value; [items, 2 width]."""
    counts_I = dataset.training_counts()
    similarity_II = ordered_similarity(following_counts(dataset.windows("train"), len(counts_I)), counts_I)
    left_IW: npt.NDArray[np.float64]
    right_WI: npt.NDArray[np.float64]
    left_IW, value_W, right_WI = svds(similarity_II, k=width, rng=0)
    halves = [left_IW * np.sqrt(value_W), right_WI.T * np.sqrt(value_W)]
    return np.concatenate(halves, axis=1).astype(np.float32)


def side_by_side(first: ItemVectors, second: ItemVectors) -> ItemVectors:
    """The vectors of the items of `first`, both parts with a root mean square of 1."""
    place = {item: row for row, item in enumerate(second.item_ids)}
    rows = [place[item] for item in first.item_ids]
    parts = [first.vector_IW, second.vector_IW[rows]]
    scaled = [part / np.sqrt(np.square(part, dtype=np.float64).mean()) for part in parts]
    return ItemVectors(first.item_ids, np.concatenate(scaled, axis=1).astype(np.float32))


if __name__ == "__main__":
    main()
