"""GRU4Rec as Cornac holds it; see `worker.py`, which runs it.

Its `fit` starts anew, so the number of epochs is a hyper-parameter like the others.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from cornac.data import SequentialDataset
from cornac.models import GRU4Rec

if TYPE_CHECKING:  # at run time the worker is a script and catalign is elsewhere
    from catalign.baselines.workers.worker import Array, Model, Ranked, Train, Windows

PACKAGES = ("cornac", "torch", "numpy", "scipy")

GRIDS: dict[str, dict[str, list[Any]]] = {
    "gru4rec": {
        "layers": [[128], [64], [256]],
        "n_epochs": [10, 5, 20],
        "batch_size": [128, 64],
        "learning_rate": [0.1, 0.05],
        "dropout_p_embed": [0.3, 0.0, 0.5],
        "dropout_p_hidden": [0.0, 0.3],
        "sample_alpha": [0.5, 0.0],
        "logq": [1.0, 0.0],
    }
}
"""Method -> hyper-parameter -> values; the first of each make the first trial."""


def build(method: str, parameters: dict[str, Any], train: "Train", job: dict[str, Any]) -> "Model":
    """Return a model to fit."""
    torch.manual_seed(job["seed"])
    own = {
        **parameters,
        "n_epochs": min(parameters["n_epochs"], job["epochs"]),
        "batch_size": min(parameters["batch_size"], len(np.unique(train.user_N))),  # of sequences; more are refused
    }
    model = GRU4Rec(**own, loss="cross-entropy", n_sample=2048, seed=job["seed"])
    return Recurrent(model, train)


class Recurrent:
    """A network over sequences; the sequence of a user is one session."""

    epochs = False

    def __init__(self, model: Any, train: "Train") -> None:
        order = range(len(train.item_N))
        rows = list(zip(train.user_N.tolist(), train.user_N.tolist(), train.item_N.tolist(), order, strict=True))
        self.train = SequentialDataset.build(rows, fmt="USIT")
        self.model = model
        self.item_I = np.fromiter(self.train.iid_map, dtype=np.int64)  # in the order of Cornac's own indices

    def fit(self) -> None:
        """Train all epochs."""
        self.model.fit(self.train)

    @torch.no_grad()
    def recommend(self, windows: "Windows", depth: int, exclude: bool) -> "Ranked":
        """Rank for every window that has a history."""
        number_of = {item: number for number, item in enumerate(self.item_I.tolist())}
        number_N = np.array([number_of[item] for item in windows.item_N.tolist()])
        rows, starts = np.unique(windows.row_N, return_index=True)
        depth = min(depth, len(self.item_I))
        place_RK = np.empty((len(rows), depth), dtype=np.int64)
        score_RK = np.empty((len(rows), depth), dtype=np.float32)
        for row, history in enumerate(np.split(number_N, starts[1:])):
            score_I = self.model.score(None, history.tolist())
            if exclude:
                score_I[history] = -np.inf
            best = np.argpartition(-score_I, depth - 1)[:depth]
            place_RK[row] = best[np.argsort(-score_I[best], kind="stable")]
            score_RK[row] = score_I[place_RK[row]]
        kept_RK = np.isfinite(score_RK)
        place_of_RK = np.broadcast_to(np.arange(depth), kept_RK.shape)
        row_RK = np.broadcast_to(rows[:, None], kept_RK.shape)
        return row_RK[kept_RK], place_of_RK[kept_RK], self.item_I[place_RK[kept_RK]], score_RK[kept_RK]

    def state(self) -> Any:
        """Nothing: all epochs are one here."""
        return None

    def restore(self, state: Any) -> None:
        """Nothing to go back to."""

    def embeddings(self) -> "tuple[Array, Array] | None":
        """None are handed out."""
        return None
