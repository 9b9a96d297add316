"""Grounding (BIGRec): a free text becomes the items whose titles are embedded nearest to it.

The embedding of a text is the last-layer hidden state of its last token, the begin token (where the tokenizer has one)
before it, under a frozen model; adapters are switched off, so a run trained with LoRA can stand for its own base model.
An empty text is embedded as the end token in its place. Distances are L2, exact, and computed in float64.

Legend: S texts, N titles of the catalogue, B texts looked up at once, K nearest titles, C titles of a chunk, H width.
"""

import hashlib
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import PeftModel

from catalign.catalogue.catalogue import Catalogue
from catalign.catalogue.trie import TitleTrie
from catalign.errors import UserError
from catalign.files import read_json, whole_file, write_json
from catalign.model.forest import pack_forest, pack_rows
from catalign.model.language_model import LanguageModel
from catalign.model.reference import model_digest
from catalign.progress import progress_bar
from catalign.prompting.prompter import encode_pieces

log = logging.getLogger(__name__)
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

TEXTS_AT_ONCE = 512
ROW_TOKENS = 256  # of a forest of texts
TITLES_AT_ONCE = 8_192  # titles that texts are compared with at a time
TABLE, KEY = "titles.npy", "titles.json"


@dataclass(frozen=True)
class TitleTable:
    """The embeddings of all titles of a catalogue.

    Attributes:
        embedding_NH: float32, perhaps mapped from a file; row n is title n of the trie.
        item_title_I: the title of each item.
    """

    embedding_NH: FloatArray
    item_title_I: npt.NDArray[np.int32]

    def nearest(self, embedding_BH: torch.Tensor, count: int) -> tuple[IntArray, FloatArray]:
        """The nearest titles of each embedding, nearest first, ties by number of the title.

        The table is read in chunks and only the best so far are kept, so memory does not grow with the catalogue.

        Returns:
            Titles [B, K] and their distances, K the smaller of `count` and N.
        """
        # Float64 keeps near titles apart where their embeddings are long; Apple's GPUs do not have it.
        text_BH = embedding_BH.to("cpu" if embedding_BH.device.type == "mps" else embedding_BH.device, torch.float64)
        count = min(count, len(self.embedding_NH))
        square_BK = text_BH.new_zeros(len(text_BH), 0)
        title_BK = torch.zeros(len(text_BH), 0, dtype=torch.int64, device=text_BH.device)
        for start in range(0, len(self.embedding_NH), TITLES_AT_ONCE):
            rows = np.array(self.embedding_NH[start : start + TITLES_AT_ONCE])  # a copy: the table may be read-only
            chunk_CH = torch.from_numpy(rows).to(text_BH.device).double()
            square_BC = (chunk_CH.square().sum(dim=1) - 2 * text_BH @ chunk_CH.T).add_(
                text_BH.square().sum(dim=1, keepdim=True)
            )
            near_BK, column_BK = smallest(square_BC.clamp_(min=0), count)
            square_BX = torch.cat([square_BK, near_BK], dim=1)
            title_BX = torch.cat([title_BK, column_BK + start], dim=1)
            square_BX, order_BX = square_BX.sort(dim=1, stable=True)
            square_BK, title_BK = square_BX[:, :count], title_BX.gather(1, order_BX[:, :count])
        return title_BK.cpu().numpy(), square_BK.sqrt().float().cpu().numpy()


def smallest(value_BC: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest values of each row with their columns, in the order of the columns; of equal ones the first.

    `topk` does not say which of equal values it takes.
    """
    count = min(count, value_BC.shape[1])
    last_B1 = value_BC.topk(count, dim=1, largest=False).values[:, -1:]
    below_BC, equal_BC = value_BC < last_B1, value_BC == last_B1
    kept_BC = below_BC | (equal_BC & (equal_BC.cumsum(dim=1) <= count - below_BC.sum(dim=1, keepdim=True)))
    column_BK = kept_BC.nonzero()[:, 1].view(-1, count)
    return value_BC.gather(1, column_BK), column_BK


@torch.no_grad()
def embed_texts(model: LanguageModel, texts: Sequence[str]) -> torch.Tensor:
    """Embeddings [S, H] of texts in float32, on the model's device.

    Raises:
        UserError: a text is longer than the model's context.
    """
    return _embed(model, text_tokens(model, texts))


def text_tokens(model: LanguageModel, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
    """What the model reads of each text: the begin token if there is one, then the text, or the end token if empty.

    Raises:
        UserError: a text is longer than the model's context.
    """
    begin = [] if model.tokenizer.bos_token_id is None else [model.tokenizer.bos_token_id]
    encoded = encode_pieces(model.tokenizer, texts)
    tokens = [np.array([*begin, *(text or [model.end_token])], dtype=np.int32) for text in encoded]
    longest = max(map(len, tokens), default=0)
    if longest > model.context:
        raise UserError(f"a text of {longest} tokens is longer than the model's context of {model.context}")
    return tokens


def _embed(model: LanguageModel, tokens: list[npt.NDArray[np.int32]]) -> torch.Tensor:
    """Hidden states [S, H] of the last tokens; what texts have in common is computed once."""
    embeddings = [torch.zeros(0, model.head_VH.shape[1], device=model.device)]
    adapter_off = model.causal.disable_adapter() if isinstance(model.causal, PeftModel) else nullcontext()
    with model.evaluating(), adapter_off:
        for start in range(0, len(tokens), TEXTS_AT_ONCE):
            part = tokens[start : start + TEXTS_AT_ONCE]
            forest = pack_forest(part, ROW_TOKENS) if model.shares_prefixes else pack_rows(part)
            last_S = forest.flat_nodes(np.arange(len(part)), np.fromiter(map(len, part), dtype=np.int64) - 1)
            embeddings.append(model.forest_hidden(forest, torch.from_numpy(last_S)).float())
    return torch.cat(embeddings)


@torch.no_grad()
def title_table(model: LanguageModel, catalogue: Catalogue, trie: TitleTrie, cache: Path | None = None) -> TitleTable:
    """Embed every title of a catalogue, or take the embeddings from a cache.

    Args:
        model: the frozen base model.
        catalogue: its titles.
        trie: the trie of the same catalogue, which numbers them.
        cache: a folder that keeps the table, `titles.npy`, with what it belongs to, `titles.json`. A table of other
            weights or titles, or tokens cut otherwise, is computed anew and takes the place of the old one.

    Raises:
        UserError: a title is longer than the model's context; the cache cannot be written.
    """
    first_item = trie.title_items[trie.title_items_start[:-1]]
    tokens = text_tokens(model, [catalogue.titles[item] for item in first_item])
    if cache is None:
        return TitleTable(_embed(model, tokens).cpu().numpy(), trie.item_title)
    shape = len(tokens), model.head_VH.shape[1]
    key = {"weights": model_digest(model), "titles": _tokens_digest(tokens), "shape": list(shape)}
    if not _holds(cache, key):
        # The key goes first and comes back last: a table that was not finished has none.
        (cache / KEY).unlink(missing_ok=True)
        with whole_file(cache / TABLE) as partial:
            _write_table(model, tokens, shape, partial)
        write_json(cache / KEY, key)
    return TitleTable(np.load(cache / TABLE, mmap_mode="r", allow_pickle=False), trie.item_title)


def _write_table(model: LanguageModel, tokens: list[npt.NDArray[np.int32]], shape: tuple[int, int], path: Path) -> None:
    """Embed the titles a part at a time, straight into the file."""
    table_NH = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    with progress_bar() as progress:
        task = progress.add_task("embedding titles", total=len(tokens), note="")
        for start in range(0, len(tokens), TEXTS_AT_ONCE):
            part = tokens[start : start + TEXTS_AT_ONCE]
            table_NH[start : start + len(part)] = _embed(model, part).cpu().numpy()
            progress.advance(task, len(part))
    table_NH.flush()


def _holds(cache: Path, key: dict[str, Any]) -> bool:
    """Whether a cache holds the table of this key; says why not where it holds another."""
    if not (cache / KEY).is_file() or not (cache / TABLE).is_file():
        return False
    try:
        there = read_json(cache / KEY)
        table = np.load(cache / TABLE, mmap_mode="r", allow_pickle=False)
    except (UserError, OSError, ValueError):
        log.warning("%s: the embeddings cannot be read and are computed anew", cache)
        return False
    if there == key and table.shape == tuple(key["shape"]) and table.dtype == np.float32:
        return True
    log.warning("%s: the embeddings are of another model or catalogue and are computed anew", cache)
    return False


def _tokens_digest(tokens: list[npt.NDArray[np.int32]]) -> str:
    """Tells apart titles, their order, and tokenizers that cut them otherwise."""
    digest = hashlib.sha256(np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens)).tobytes())
    for title in tokens:
        digest.update(title.tobytes())
    return digest.hexdigest()
