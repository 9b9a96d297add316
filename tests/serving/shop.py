"""A small shop in service: a model of random weights over the toy catalogue, with metadata."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from starlette.testclient import TestClient

from catalign.catalogue.catalogue import Catalogue
from catalign.data.dataset import load_dataset
from catalign.serving.app import create_app
from catalign.serving.keys import Key
from catalign.serving.service import Service
from catalign.serving.settings import ServiceSettings
from catalign.serving.variants import Variant
from catalign.training.run import Run, prompter_of, untuned_run

JSON = dict[str, Any]


def make_run(model: Path, dataset: Path) -> Run:
    """An untuned run whose items have a colour, a price and tags."""
    run = untuned_run(model, load_dataset(dataset), "plain")
    items = load_dataset(dataset).items
    number = pl.int_range(pl.len())
    items = items.with_columns(
        colour=pl.col("title").str.split(" ").list.first(),
        price=pl.when(number > 0).then(number.cast(pl.Float64) * 2.5),
        tags=pl.when(number % 2 == 0).then(pl.lit(["even"])).otherwise(pl.lit(["odd", "gift"])),
    )
    catalogue = Catalogue.from_frame(items, np.arange(items.height)[::-1])
    prompter = prompter_of(run.recipe, run.model, catalogue, run.prompter.template)
    return replace(run, catalogue=catalogue, prompter=prompter)


@contextmanager
def client_of(
    runs: dict[str, Run], keys: list[Key] | None = None, **settings: Any
) -> Iterator[tuple[TestClient, Service]]:
    """A service with equal shares, and a client that speaks to it in process."""
    variants = [Variant(name, 1 / len(runs), run) for name, run in runs.items()]
    service = Service(variants, ServiceSettings(**{"max_wait_ms": 1.0, **settings}))
    with TestClient(create_app(service, keys), raise_server_exceptions=False) as client:
        yield client, service
