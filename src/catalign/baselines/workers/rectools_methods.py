"""The baselines that RecTools and implicit hold; `worker.py` runs them."""

import copy
import logging
import warnings
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from implicit.cpu.als import AlternatingLeastSquares
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender
from pytorch_lightning import Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset, IdMap, Interactions
from rectools.models import (
    BERT4RecModel,
    EASEModel,
    HSTUModel,
    ImplicitItemKNNWrapperModel,
    PopularModel,
    SASRecModel,
)
from rectools.models.nn.transformers.ligr import LiGRLayers

if TYPE_CHECKING:  # at run time the worker is a script and catalign is elsewhere
    from catalign.baselines.workers.worker import Array, Model, Ranked, Train, Windows

PACKAGES = ("rectools", "pm-implicit", "pytorch-lightning", "torch", "numpy", "scipy", "pandas")

TRANSFORMER: dict[str, list[Any]] = {
    "n_factors": [128, 256, 64],
    "n_blocks": [2, 1],
    "n_heads": [2, 4],
    "dropout_rate": [0.3, 0.5, 0.1],
    "lr": [1e-3, 2e-3],
    "use_pos_emb": [True, False],
}
GRIDS: dict[str, dict[str, list[Any]]] = {
    "popularity": {},
    "recent-popularity": {"days": [180, 7, 14, 30, 60, 90, 365, 730]},
    "item-knn": {"repeats": [False, True], "similarity": ["cosine", "tfidf", "bm25"], "neighbours": [100, 20, 50, 200]},
    "ease": {"regularization": [250.0, 10.0, 50.0, 100.0, 500.0, 1000.0, 2000.0]},
    "ials": {
        "repeats": [False, True],
        "factors": [128, 64, 256],
        "regularization": [0.01, 0.1, 1.0],
        "alpha": [1.0, 10.0, 40.0],
        "iterations": [15, 30],
    },
    "sasrec": TRANSFORMER,
    "bert4rec": {**TRANSFORMER, "mask_prob": [0.15, 0.3, 0.5]},
    "esasrec": {**TRANSFORMER, "n_negatives": [256, 1024]},
    "hstu": TRANSFORMER,
}
"""Method -> hyper-parameter -> values; the first of each make the first trial.

`repeats`: whether items of the history are recommended; to these two methods an item is always its own best neighbour.
"""
BATCH_SIZE = 128
SIMILARITIES = {"cosine": CosineRecommender, "tfidf": TFIDFRecommender, "bm25": BM25Recommender}

warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


def build(method: str, parameters: dict[str, Any], train: "Train", job: dict[str, Any]) -> "Model":
    """Return a model to fit."""
    seed_everything(job["seed"], verbose=False)
    own = {name: value for name, value in parameters.items() if name != "repeats"}
    repeats = parameters.get("repeats", True)
    if method == "popularity":
        return CountModel(PopularModel(popularity="n_interactions"), train)
    if method == "recent-popularity":
        period = timedelta(days=own["days"])
        return CountModel(PopularModel(popularity="n_interactions", period=period, add_cold=True), train)
    if method == "item-knn":
        similarity = SIMILARITIES[own["similarity"]](K=own["neighbours"])
        return CountModel(ImplicitItemKNNWrapperModel(similarity), train, repeats=repeats)
    if method == "ease":
        return LinearModel(EASEModel(**own), train)
    if method == "ials":
        return FactorModel(AlternatingLeastSquares(**own, random_state=job["seed"]), train, repeats=repeats)
    return Transformer(method, own, train, job["history"])


class CountModel:
    """A model of RecTools that is fitted once; a window is a new user with the items of its history."""

    epochs = False

    def __init__(self, model: Any, train: "Train", *, repeats: bool = True) -> None:
        times = pd.to_datetime(train.milliseconds_N, unit="ms")
        self.train = Dataset.construct(interactions(train.user_N, train.item_N, times))
        self.model = model
        self.repeats = repeats

    def fit(self) -> None:
        """Fit it."""
        self.model.fit(self.train)

    def recommend(self, windows: "Windows", depth: int, exclude: bool) -> "Ranked":
        """Rank for every window that has a history."""
        asked = as_users(windows, self.train.item_id_map)
        lists = self.lists(asked, depth, exclude or not self.repeats)
        row_N, rank_N, item_N, score_N = (
            lists[name].to_numpy() for name in (Columns.User, Columns.Rank, Columns.Item, Columns.Score)
        )
        return row_N, rank_N - 1, item_N, score_N

    def lists(self, asked: Any, depth: int, exclude: bool) -> Any:
        """Return RecTools' table of recommendations."""
        return self.model.recommend(asked.user_id_map.external_ids, asked, depth, exclude)

    def state(self) -> Any:
        """Nothing: all is taught at once."""
        return None

    def restore(self, state: Any) -> None:
        """Nothing to go back to."""

    def embeddings(self) -> "tuple[Array, Array] | None":
        """None are handed out."""
        return None


class LinearModel(CountModel):
    """EASE. RecTools 0.19 scores with the rows of the item-item matrix B; the paper's X B takes its columns."""

    def fit(self) -> None:
        """Fit it."""
        super().fit()
        self.model.weight = np.ascontiguousarray(self.model.weight.T)


class FactorModel(CountModel):
    """iALS of implicit: item factors of training, and the user factors that a window's history asks for.

    RecTools' own wrapper knows no factors of new users.
    """

    def fit(self) -> None:
        """Fit it."""
        self.model.fit(self.train.get_user_item_matrix(), show_progress=False)

    def lists(self, asked: Any, depth: int, exclude: bool) -> Any:
        """Return the recommendations in the form of RecTools' table."""
        users = asked.user_id_map.external_ids
        item_WK, score_WK = self.model.recommend(
            np.arange(len(users)), asked.get_user_item_matrix(), N=depth,
            filter_already_liked_items=exclude, recalculate_user=True,
        )  # fmt: skip
        table = pd.DataFrame(
            {
                Columns.User: np.repeat(users, item_WK.shape[1]),
                Columns.Item: self.train.item_id_map.convert_to_external(item_WK.ravel()),
                Columns.Score: score_WK.ravel(),
                Columns.Rank: np.tile(np.arange(item_WK.shape[1]) + 1, len(users)),
            }
        )
        return table[table[Columns.Score] > np.finfo(np.float32).min]  # so implicit marks what it left out


class Transformer(CountModel):
    """A transformer over sequences, trained epoch by epoch."""

    epochs = True

    def __init__(self, method: str, parameters: dict[str, Any], train: "Train", length: int) -> None:
        self.train = Dataset.construct(pieces(train, length + 1))
        self.repeats = True
        common = {
            **parameters, "session_max_len": length, "batch_size": BATCH_SIZE, "get_trainer_func": quiet_trainer,
        }  # fmt: skip
        if method == "sasrec":
            self.model = SASRecModel(loss="softmax", **common)
        elif method == "bert4rec":
            self.model = BERT4RecModel(loss="softmax", **common)
        elif method == "hstu":  # relative to places alone, since some data sets tell no times
            self.model = HSTUModel(loss="softmax", relative_time_attention=False, **common)
        else:
            layers = {"ff_factors_multiplier": 4, "bias_in_ff": True, "ff_activation": "swiglu"}
            self.model = SASRecModel(
                loss="sampled_softmax", transformer_layers_type=LiGRLayers, transformer_layers_kwargs=layers, **common
            )

    def fit(self) -> None:
        """Train one epoch more."""
        self.model.fit_partial(self.train, min_epochs=1, max_epochs=1)

    def state(self) -> Any:
        """Return a copy of the weights."""
        return copy.deepcopy(self.model.torch_model.state_dict())

    def restore(self, state: Any) -> None:
        """Take weights back."""
        self.model.torch_model.load_state_dict(state)

    def embeddings(self) -> "tuple[Array, Array] | None":
        """Return the trained items and their vectors."""
        prepared = self.model.data_preparator
        with torch.no_grad():
            vectors = self.model.torch_model.item_model.get_all_embeddings().cpu().numpy()
        return prepared.get_known_item_ids().astype(np.int64), vectors[prepared.get_known_items_sorted_internal_ids()]


def quiet_trainer() -> Any:
    """Return a Lightning trainer that writes no files and prints nothing."""
    return Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        devices=1,
    )  # fmt: skip


def interactions(user_N: "Array", item_N: "Array", times_N: Any) -> Any:
    """Return the table that RecTools reads."""
    return pd.DataFrame({Columns.User: user_N, Columns.Item: item_N, Columns.Weight: 1.0, Columns.Datetime: times_N})


def in_order(count: int) -> Any:
    """Return `count` times, one second apart, that say nothing but the order."""
    return pd.Timestamp("2000-01-01") + pd.to_timedelta(np.arange(count), unit="s")


def pieces(train: "Train", length: int) -> Any:
    """Cut sequences, from their ends, into pieces of at most `length` items: of one, no more would be trained on."""
    from_end_N = pd.Series(train.user_N).groupby(train.user_N).cumcount(ascending=False).to_numpy()
    sequence_N = pd.factorize(pd.MultiIndex.from_arrays([train.user_N, from_end_N // length]))[0]
    return interactions(sequence_N, train.item_N, in_order(len(train.item_N)))


def as_users(windows: "Windows", item_id_map: Any) -> Any:
    """Return windows as users who did nothing but what the window shows."""
    table = interactions(windows.row_N, windows.item_N, in_order(len(windows.item_N)))
    users = IdMap.from_values(table[Columns.User].to_numpy())
    return Dataset(users, item_id_map, Interactions.from_raw(table, users, item_id_map))
