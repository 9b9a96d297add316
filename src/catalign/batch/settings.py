"""What a batch asks for."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from catalign.decoding.scores import ScoreMode

ADDED = ("items", "titles", "probabilities")  # columns of the output behind the user's
DEFAULT_BEAMS = 10


class BatchSettings(BaseModel):
    """How people are read and answered; what can change an answer is the same over a whole output folder.

    Attributes:
        k: items for whoever asks for no number of their own.
        beams: width of the search, at least as many as items asked for; default 10.
        score: see `decoding.search.search_titles`.
        exclude_history: do not recommend what a person already has.
        user: the column of the input that names a person, each once.
        delimiter: stands between the items of a text.
        bad_rows: refuse an input that has one, or skip and count them.
        catalogues: name -> table with a column `item_id`: items that rows may name together.
        part_rows: people in one file of the output.
        batch_size: histories that the model reads at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    k: int = Field(default=10, ge=1)
    beams: int | None = Field(default=None, ge=1)
    score: ScoreMode = "valid"
    exclude_history: bool = True
    user: str = "user_id"
    delimiter: str = Field(default="|", min_length=1)
    bad_rows: Literal["refuse", "skip"] = "refuse"
    catalogues: dict[str, Path] = {}
    part_rows: int = Field(default=4096, ge=1)
    batch_size: int = Field(default=32, ge=1)

    def facts(self) -> dict[str, Any]:
        """What may not differ within one output folder; catalogues are told by their content elsewhere."""
        return self.model_dump(exclude={"catalogues", "batch_size"})
