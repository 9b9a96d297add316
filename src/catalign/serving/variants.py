"""Several runs side by side, each with a weight: who gets which is decided by a hash and stays the same."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel

from catalign.errors import UserError
from catalign.model.forest import pack_rows
from catalign.model.language_model import LanguageModel
from catalign.training.run import Run, load_run

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Variant:
    """One run in service.

    Attributes:
        name: of its folder.
        share: of the requests, all shares together 1.
        run: the run, its adapter merged where that is exact.
    """

    name: str
    share: float
    run: Run


def load_variants(named: Sequence[str], device: torch.device) -> list[Variant]:
    """Load runs given as `RUN` or `RUN:weight` (weights in any unit, 1 where none is given).

    Raises:
        UserError: a folder that is no run, a weight that is no number above 0, two runs of one name, or runs with
            different catalogues.
    """
    folders, weights = zip(*map(_parse, named), strict=True)
    names = [folder.resolve().name for folder in folders]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise UserError(f"two runs are called {min(repeated)}", where="catalign serve", mend="rename a folder")
    variants = []
    for name, folder, weight in zip(names, folders, weights, strict=True):
        run = load_run(folder, device=device)
        variants.append(Variant(name, weight / sum(weights), replace(run, model=merge_adapter(run.model))))
        if run.catalogue.digest != variants[0].run.catalogue.digest:
            raise UserError(
                f"has another catalogue than {folders[0]}", where=folder,
                mend="serve runs of one catalogue; catalign model recatalogue gives a run another one",
            )  # fmt: skip
    return variants


def choose_variant(variants: Sequence[Variant], key: str) -> Variant:
    """The variant of a user or a request: the same for the same key, in the long run by the shares."""
    place = int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8]) / 2**64
    bounds = np.cumsum([variant.share for variant in variants])
    return variants[min(int(np.searchsorted(bounds, place, side="right")), len(variants) - 1)]


def _parse(text: str) -> tuple[Path, float]:
    """A folder and its weight; what follows the last colon is a weight only if it is a number."""
    folder, colon, tail = text.rpartition(":")
    if not colon or Path(text).is_dir():
        return Path(text), 1.0
    try:
        weight = float(tail)
    except ValueError:
        return Path(text), 1.0
    if not 0 < weight < float("inf"):
        raise UserError(f"the weight {tail} is not above 0", where=text, mend="give RUN:weight, such as runs/msl:0.9")
    return Path(folder), weight


@torch.no_grad()
def merge_adapter(model: LanguageModel) -> LanguageModel:
    """Put a LoRA adapter into the weights, so that every layer is one product; the adapter stays where it changes.

    What the merged model computes is compared with what it was; where it differs by more than rounding the adapter
    stays beside the weights.
    """
    if not isinstance(model.causal, PeftModel):
        return model
    rows = pack_rows([np.arange(1, 9) % model.head_VH.shape[0]])
    node = torch.arange(8)
    before = model.forest_hidden(rows, node)
    model.causal.merge_adapter()
    after = model.forest_hidden(rows, node)
    if float((after - before).abs().max()) > 1e-4 * float(before.abs().max()):
        model.causal.unmerge_adapter()
        log.warning("%s: the adapter is not merged, because that would change the results", model.base.name_or_path)
    return model
