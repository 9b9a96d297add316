"""A source: the diary of listeners, `plays.csv` (listener, track, at) and `tracks.csv` (track, name, artist).

    catalign data prepare my/diary --layout extending.sources:diary --output ds

A folder of another kind is refused with one line.
"""

from pathlib import Path

from catalign.data.options import Table, TableSource
from catalign.errors import UserError


def diary(folder: Path) -> TableSource:
    """The two tables and what their columns are called; people hear a track again and again, so the first time counts.

    Raises:
        UserError: one of them is missing.
    """
    plays, tracks = folder / "plays.csv", folder / "tracks.csv"
    for path in (plays, tracks):
        if not path.is_file():
            raise UserError("is not there", where=path, mend="a diary is plays.csv and tracks.csv")
    return TableSource(
        interactions=Table.of(plays), user="listener", item="track", time="at",
        items=Table.of(tracks), item_id="track", title="name", metadata=["artist"],
        defaults={"duplicates": "first"},
    )  # fmt: skip
