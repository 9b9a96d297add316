"""How long a row of the prefix forest should be, by counting rather than by guessing.

A short row repeats prefixes that a long one stores once; a long one pays for dense attention between sequences that
have nothing in common. Both are counted for a few batches of the very training data.
"""

from catalign.model.language_model import LanguageModel
from catalign.training.batches import Batches
from catalign.training.flops import matrices
from catalign.training.recipe import StageRecipe
from catalign.training.trainer import WindowOrder

LENGTHS = (128, 192, 256, 320, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
SAMPLE = 3  # batches that are looked at
ATTENTION = 1.45  # time of an operation in attention, in that of one in a matrix product; `docs/results/forest.md`


def set_row_tokens(batches: Batches, recipe: StageRecipe, model: LanguageModel) -> None:
    """Give the batches the row length that the recipe names, or the best for the first batches of its first epoch."""
    if recipe.row_tokens is not None:
        batches.row_tokens = recipe.row_tokens
        return
    order = list(WindowOrder(batches.windows, by_user=recipe.batching == "by-user", seed=recipe.seed))
    size = recipe.windows_at_once
    starts = range(0, min(SAMPLE * size, len(order)), size)
    batches.row_tokens = choose_row_tokens(batches, [order[start : start + size] for start in starts], model)


def choose_row_tokens(batches: Batches, samples: list[list[int]], model: LanguageModel) -> int:
    """The row length with the least work for some batches; see `count_work`."""
    return min(LENGTHS, key=lambda length: count_work(batches, samples, model, length))


def count_work(batches: Batches, samples: list[list[int]], model: LanguageModel, length: int) -> float:
    """The work of some batches in rows of at most so many nodes.

    A row of N nodes is N (2 W + 4 L H N a) operations: W weights of the layers, L layers of width H, and `ATTENTION` a.

    Args:
        batches: packs them; its `row_tokens` changes.
        samples: window numbers of each.
        model: the language model.
        length: most nodes in a row.
    """
    config = model.base.config.get_text_config()
    weights = sum(size for size, _ in matrices(model))
    attention = 4 * config.num_hidden_layers * config.hidden_size * ATTENTION
    batches.row_tokens = length
    shapes = [batches(numbers)["token_RN"].shape for numbers in samples]
    return float(sum(rows * nodes * (2 * weights + attention * nodes) for rows, nodes in shapes))
