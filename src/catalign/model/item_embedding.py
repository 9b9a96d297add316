"""Items beside their titles in the prompt: the embeddings of a trained sequential model, projected.

The form is that of LLaRA (arXiv 2312.02445). Behind the title of each item of a history stands one *item token*: an id
beyond the rows of the model's input embedding, V for the first item that has an embedding, V + 1 for the second, and so
on. Whatever packs, sorts or shares tokens treats it as a token like any other; only where tokens become vectors is it
something else:

    id < V     the row of the model's input embedding
    id >= V    projector(embedding of the item), the projector being linear, GELU, linear

The projector trains, the embeddings do not. They are divided by their root mean square, so that the unit of the
sequential model does not matter. Titles to predict hold no item token, and no head knows one. An item that the
sequential model does not know has none: its title stands alone, so new items need nothing.

Legend: I items that have an embedding, W their width, V rows of the input embedding, D its width, R rows, N nodes.
"""

import copy
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from catalign.catalogue.catalogue import Catalogue
from catalign.errors import UserError
from catalign.files import whole_file
from catalign.model.sharding import cut

log = logging.getLogger(__name__)
IntArray = npt.NDArray[np.int64]

VECTORS, PROJECTOR = "item_embeddings.parquet", "item_projector.safetensors"
NO_TOKEN = -1


@dataclass(frozen=True)
class ItemVectors:
    """The embeddings of items, as a file holds them: columns `item_id` (text) and `embedding` (list of floats).

    Attributes:
        item_ids: I ids, unique.
        vector_IW: float32, finite.
    """

    item_ids: list[str]
    vector_IW: npt.NDArray[np.float32]

    @classmethod
    def read(cls, place: Path) -> "ItemVectors":
        """Read a Parquet file, or the one that a run folder holds (`item_embeddings.parquet`).

        Raises:
            UserError: absent, unreadable, without the two columns, or rows that are not one finite vector for one item.
        """
        path = place / VECTORS if place.is_dir() else place
        frame = _read_columns(path)
        if frame.is_empty():
            raise UserError("holds no item embeddings", where=path)
        if frame["item_id"].null_count():
            raise UserError(f"row {frame['item_id'].is_null().arg_max()} has no item_id", where=path)
        if frame["item_id"].is_duplicated().any():
            twice = frame["item_id"].filter(frame["item_id"].is_duplicated())[0]
            raise UserError(f'the item id "{twice}" occurs more than once', where=path)
        item_ids, width_I = frame["item_id"].to_list(), frame["embedding"].list.len().fill_null(0).to_numpy()
        other = int((width_I != width_I[0]).argmax())
        if width_I[0] == 0 or other:
            what = f'item "{item_ids[other]}" has {width_I[other]} numbers'
            raise UserError(what + (f', item "{item_ids[0]}" has {width_I[0]}' if other else ""), where=path)
        flat = frame["embedding"].explode(empty_as_null=False).cast(pl.Float32).fill_null(float("nan")).to_numpy()
        vector_IW = flat.reshape(len(item_ids), -1).copy()
        finite_I = np.isfinite(vector_IW).all(axis=1)
        if not finite_I.all():
            raise UserError(f'the embedding of item "{item_ids[int(finite_I.argmin())]}" is not finite', where=path)
        return cls(item_ids, vector_IW)

    def of(self, catalogue: Catalogue, where: Path) -> "ItemVectors":
        """Those of a catalogue's items, in its order; says how many items have none.

        Args:
            catalogue: the items.
            where: the file, for the message.

        Raises:
            UserError: no item has one.
        """
        row_C = _rows(self.item_ids, catalogue.item_ids)
        known_C = row_C >= 0
        if not known_C.any():
            here, there = (", ".join(ids[:3]) for ids in (catalogue.item_ids, self.item_ids))
            raise UserError(
                f"has no embedding of any item of the catalogue: its ids are like {there}, the catalogue's like {here}",
                where=where,
                mend="give the embeddings of this dataset",
            )
        if not known_C.all():
            log.warning(
                "%s: %d of %d items have no embedding; in histories their titles stand alone",
                where, int((~known_C).sum()), len(known_C),
            )  # fmt: skip
        kept = np.flatnonzero(known_C)
        return ItemVectors([catalogue.item_ids[item] for item in kept], self.vector_IW[row_C[kept]])

    @property
    def digest(self) -> str:
        """SHA-256 of ids and vectors."""
        text = json.dumps(self.item_ids, ensure_ascii=False).encode()
        return hashlib.sha256(text + np.ascontiguousarray(self.vector_IW).tobytes()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write `item_embeddings.parquet` into a folder."""
        self.save_as(folder / VECTORS)

    def save_as(self, path: Path) -> None:
        """Write a Parquet file that `read` reads."""
        columns = {"item_id": self.item_ids, "embedding": pl.Series(self.vector_IW).cast(pl.List(pl.Float32))}
        with whole_file(path) as partial:
            pl.DataFrame(columns).write_parquet(partial)


class ItemEmbedding(nn.Module):
    """Turns ids into what the model reads: words by its own input embedding, item tokens by the projector.

    It stands beside the Hugging Face model, not inside: weights, tied embeddings, adapters and files stay as they are.

    Attributes:
        vectors: the embeddings, as they were given.
        first_token: V, the id of the first item token.
        projector: the weights that train.
    """

    def __init__(self, vectors: ItemVectors, word: nn.Embedding, seed: int = 0) -> None:
        """Start with a random projector.

        Args:
            vectors: the embeddings.
            word: the model's input embedding.
            seed: of the projector's weights.
        """
        super().__init__()
        self.vectors = vectors
        self.first_token, width = word.weight.shape
        unit = float(np.sqrt(np.square(vectors.vector_IW, dtype=np.float64).mean())) or 1.0
        self.vector_IW: torch.Tensor
        self.register_buffer("vector_IW", torch.from_numpy(vectors.vector_IW / np.float32(unit)), persistent=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projector = nn.Sequential(
                nn.Linear(vectors.vector_IW.shape[1], width), nn.GELU(), nn.Linear(width, width)
            )
        self._reference: nn.Sequential | None = None
        self.to(word.weight)

    def forward(self, token_RN: torch.Tensor, word: nn.Module) -> torch.Tensor:
        """The vectors [R, N, D] of tokens; `word` is the model's input embedding, its adapter on it if it has one."""
        row_RN = token_RN - self.first_token
        is_item_RN = row_RN >= 0
        embedded_RND: torch.Tensor = word(token_RN.masked_fill(is_item_RN, 0))
        projected: torch.Tensor = self.projector(self.vector_IW[row_RN[is_item_RN]])
        return embedded_RND.index_put((is_item_RN,), projected.to(embedded_RND.dtype))

    def tokens(self, catalogue: Catalogue) -> IntArray:
        """The item token of each item of a catalogue, by its id; `NO_TOKEN` where it has no embedding."""
        row_C = _rows(self.vectors.item_ids, catalogue.item_ids)
        return np.where(row_C >= 0, row_C + self.first_token, NO_TOKEN)

    def keep_reference(self) -> None:
        """Keep a frozen copy of the projector, as a reference for what trains from here on."""
        self._reference = copy.deepcopy(self.projector).requires_grad_(False)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Project with the copy that was kept, if there is one, inside the block."""
        trained = self.projector
        if self._reference is not None:
            self.projector = self._reference
        try:
            yield
        finally:
            self.projector = trained

    def save_projector(self, folder: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
        """Write `item_projector.safetensors` into a folder; the projector's weights, or those given."""
        state = self.projector.state_dict() if weights is None else weights
        with whole_file(folder / PROJECTOR) as partial:
            save_file({name: weight.contiguous() for name, weight in state.items()}, partial)

    def load_projector(self, folder: Path) -> None:
        """Read what `save_projector` wrote.

        Raises:
            UserError: absent, damaged, or of another width.
        """
        try:
            weights = load_file(folder / PROJECTOR, device=str(self.vector_IW.device))
            self.projector.load_state_dict({name: cut(weight, self.projector) for name, weight in weights.items()})
        except (OSError, RuntimeError, SafetensorError) as error:
            raise UserError(
                "is not the projector of these item embeddings", where=folder / PROJECTOR, mend="train the run again"
            ) from error


def _read_columns(path: Path) -> pl.DataFrame:
    """The two columns of a file, embeddings as lists."""
    mend = f"give a Parquet file of item embeddings or a run folder with {VECTORS}"
    try:
        frame = pl.read_parquet(path, glob=False)
    except FileNotFoundError as error:
        raise UserError("no such file", where=path, mend=mend) from error
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError("cannot be read as Parquet", where=path, mend=mend) from error
    missing = [name for name in ("item_id", "embedding") if name not in frame.columns]
    if missing:
        columns = ", ".join(frame.columns)
        raise UserError(f"has no column '{missing[0]}'; its columns are {columns}", where=path, mend=mend)
    ids, kind = frame.schema["item_id"], frame.schema["embedding"]
    if ids != pl.String:
        raise UserError(f"the column 'item_id' holds {ids}", where=path, mend="write the ids as text")
    if not isinstance(kind, pl.List | pl.Array) or kind.inner is None or not kind.inner.is_float():
        raise UserError(f"the column 'embedding' holds {kind}", where=path, mend="write lists of floats")
    return frame.select("item_id", pl.col("embedding").cast(pl.List(pl.Float32)))


def _rows(known: Sequence[str], asked: Sequence[str]) -> IntArray:
    """Where each id stands in `known`, -1 where it does not."""
    table = pl.DataFrame({"item_id": known}, schema={"item_id": pl.String}).with_row_index("row")
    wanted = pl.DataFrame({"item_id": asked}, schema={"item_id": pl.String})
    found = wanted.join(table, on="item_id", how="left", maintain_order="left")["row"]
    return found.cast(pl.Int64).fill_null(-1).to_numpy()
