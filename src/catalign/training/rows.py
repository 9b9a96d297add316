"""How long a row of the prefix forest should be, by counting rather than by guessing.

A short row repeats prefixes that a long one stores once; a long one pays for dense attention between sequences that
have nothing in common. Both are counted for a few batches of the very training data.
"""

from torch import nn

from catalign.model.forest import pack_forest
from catalign.model.language_model import LanguageModel
from catalign.prompting.prompter import Prompter
from catalign.training.batches import BatchMaker, Windows
from catalign.training.recipe import StageRecipe
from catalign.training.trainer import window_order

LENGTHS = (128, 192, 256, 320, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
SAMPLE = 4  # batches that are looked at
ATTENTION = 1.45  # time of an operation in attention, in that of one in a matrix product; `docs/results/forest.md`


def row_tokens(recipe: StageRecipe, windows: Windows, prompter: Prompter, model: LanguageModel) -> int:
    """The row length that a recipe names, or the best for the first batches of its first epoch."""
    if recipe.row_tokens is not None:
        return recipe.row_tokens
    maker = BatchMaker(windows, prompter, scores=recipe.objective.scores, row_tokens=LENGTHS[-1])
    order = list(window_order(windows, by_user=recipe.batching == "by-user", seed=recipe.seed))
    size = recipe.batch_size // recipe.accumulation
    return choose_row_tokens(maker, [order[start : start + size] for start in range(0, SAMPLE * size, size)], model)


def choose_row_tokens(maker: BatchMaker, batches: list[list[int]], model: LanguageModel) -> int:
    """The row length with the least work for some batches.

    The work of a row of N nodes is N (2 W + 4 L H N a) operations: W weights of the layers, L layers of width H, and
    `ATTENTION` a.

    Args:
        maker: packs the batches; its `row_tokens` plays no part.
        batches: window numbers of a few batches.
        model: the language model.
    """
    config = model.base.config.get_text_config()
    weights = sum(layer.weight.numel() for layer in model.decoder.modules() if isinstance(layer, nn.Linear))
    attention = 4 * config.num_hidden_layers * config.hidden_size * ATTENTION
    sequences = [maker.sequences(numbers) for numbers in batches if numbers]
    work = {}
    for length in LENGTHS:
        work[length] = 0.0
        for some in sequences:
            rows, nodes = pack_forest(some, length).token_RN.shape
            work[length] += rows * nodes * (2 * weights + attention * nodes)
    return min(work, key=lambda length: work[length])
