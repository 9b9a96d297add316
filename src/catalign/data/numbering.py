"""Numbers for texts that come chunk by chunk."""

import polars as pl


class Numbering:
    """Gives every new text the next number, so that a column of long ids becomes one of four bytes a row."""

    def __init__(self) -> None:
        self._categories = pl.Categories.random()
        self._type = pl.Categorical(self._categories)
        self._held = pl.Series([], dtype=self._type)  # polars forgets categories that no column has

    def numbers(self, texts: pl.Series) -> pl.Series:
        """Return the number of each text (UInt32)."""
        return texts.cast(self._type).to_physical()

    def texts(self) -> pl.Series:
        """Return the texts met so far; the row is the number."""
        return self._categories.to_series()
