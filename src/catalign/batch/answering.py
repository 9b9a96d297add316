"""From the requests of one part to recommendations, with one model in one process."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from catalign.batch.folder import BatchFolder
from catalign.batch.settings import DEFAULT_BEAMS, BatchSettings
from catalign.catalogue.filters import items_passing
from catalign.decoding.recommend import CatalogueSearch
from catalign.model.precision import choose_device
from catalign.training.run import load_run

SEARCHES_KEPT = 64  # of different filters
MATES = ("filters", "catalogue", "beams", "chosen")  # who may be searched for together


class PartAnswerer:
    """Holds the model and answers parts.

    Args:
        run: the run folder.
        output: the output folder, its requests checked.
        settings: how people are answered.
    """

    def __init__(self, run: Path, output: Path, settings: BatchSettings) -> None:
        self._folder, self._settings = BatchFolder(output), settings
        loaded = load_run(run, device=choose_device())
        self._catalogue = loaded.catalogue
        self._named = self._folder.read_catalogues()
        self._whole = CatalogueSearch(
            loaded.model, loaded.prompter, beams=DEFAULT_BEAMS, score=settings.score,
            exclude_history=settings.exclude_history, batch_size=settings.batch_size,
        )  # fmt: skip
        self._within = lru_cache(maxsize=SEARCHES_KEPT)(self._make_search)
        titles = pl.Series(loaded.catalogue.titles, dtype=pl.String)
        self._items = pl.DataFrame({"items": loaded.catalogue.item_ids, "titles": titles})

    def write(self, part: int) -> None:
        """Answer a part and write it."""
        self._folder.write_part(part, self.answer(self._folder.read_requests(part)))

    def answer(self, requests: pl.DataFrame) -> pl.DataFrame:
        """Recommendations for requests, in their order: the user, items, titles and probabilities, best first."""
        most = int(requests["k"].to_numpy().max(initial=0))
        item_RK = np.full((len(requests), most), -1, dtype=np.int64)
        score_RK = np.full((len(requests), most), -np.inf, dtype=np.float32)
        width = pl.max_horizontal("k", pl.lit(self._settings.beams or DEFAULT_BEAMS, pl.UInt32))
        rows = requests.with_row_index("number").with_columns(beams=width, chosen=pl.col("candidates").is_not_null())
        for mates, group in rows.group_by(*MATES, maintain_order=True):
            named = dict(zip(MATES, mates, strict=True))
            search = self._within(named["filters"], named["catalogue"], named["beams"])
            if search is None:
                continue
            number_G, count = group["number"].to_numpy(), int(group["k"].to_numpy().max())
            found = search.recommend(
                group["history"].to_list(), count, group["exclude"].fill_null([]).to_list(),
                group["candidates"].to_list() if named["chosen"] else None,
            )  # fmt: skip
            for batch, items, scores in found:
                item_RK[number_G[batch], :count], score_RK[number_G[batch], :count] = items, scores
        return self._told(requests, item_RK, score_RK)

    def _told(
        self, requests: pl.DataFrame, item_RK: npt.NDArray[np.int64], score_RK: npt.NDArray[np.float32]
    ) -> pl.DataFrame:
        """Lists of ids, titles and probabilities, as long as asked for or as what was found."""
        item_RK[np.arange(item_RK.shape[1]) >= requests["k"].to_numpy()[:, None]] = -1
        row_F, place_F = np.nonzero(item_RK >= 0)
        found = self._items[item_RK[row_F, place_F]].with_columns(
            pl.Series("probabilities", np.exp(score_RK[row_F, place_F])), pl.Series("number", row_F, dtype=pl.UInt32)
        )
        lists = found.group_by("number", maintain_order=True).agg(pl.all())
        told = requests.select(pl.col("user").alias(self._settings.user)).with_row_index("number")
        return told.join(lists, on="number", how="left", maintain_order="left").drop("number").with_columns(
            pl.col("items", "titles", "probabilities").fill_null([])
        )  # fmt: skip

    def _make_search(self, filters: str | None, catalogue: str | None, beams: int) -> CatalogueSearch | None:
        """The search in what filters and a named catalogue leave; None where that is nothing."""
        asked: dict[str, Any] = {} if filters is None else json.loads(filters)
        open_I = items_passing(self._catalogue.metadata, len(self._catalogue), asked)
        if catalogue is not None:
            named_I = np.zeros_like(open_I)
            named_I[self._named[catalogue]] = True
            open_I = open_I & named_I
        if not open_I.any():
            return None
        search = self._whole.within(open_I)
        search.beams = beams
        return search
