"""How long a row of the prefix forest should be, by counting rather than by guessing.

A short row repeats prefixes that a long one stores once; a long one pays for dense attention between sequences that
have nothing in common. Both are counted for a few batches of the very training data.
"""

from torch import nn

from catalign.model.forest import pack_forest
from catalign.model.language_model import LanguageModel
from catalign.training.batches import BatchMaker

LENGTHS = (128, 192, 256, 320, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
ATTENTION = 1.45  # time of an operation in attention, in that of one in a matrix product; `docs/results/forest.md`


def choose_row_tokens(maker: BatchMaker, batches: list[list[int]], model: LanguageModel) -> int:
    """The row length with the least work for some batches.

    The work of a row of N nodes is N (2 W + 4 L H N a) operations: W weights of the layers, L layers of width H, and
    `ATTENTION` a.

    Args:
        maker: packs the batches; its `row_tokens` plays no part.
        batches: window numbers of a few batches.
        model: the language model.
    """
    if not maker.share:
        return maker.row_tokens
    config = model.base.config.get_text_config()
    weights = sum(layer.weight.numel() for layer in model.decoder.modules() if isinstance(layer, nn.Linear))
    attention = 4 * config.num_hidden_layers * config.hidden_size * ATTENTION
    sequences = [maker.sequences(numbers) for numbers in batches]
    work = {}
    for length in LENGTHS:
        work[length] = 0.0
        for some in sequences:
            rows, nodes = pack_forest(some, length).token_RN.shape
            work[length] += rows * nodes * (2 * weights + attention * nodes)
    return min(work, key=lambda length: work[length])
