"""Last.fm of HetRec 2011 (`hetrec2011-lastfm-2k`): 1,892 people and 17,632 artists; tabs, a header, UTF-8.

`artists.dat` (id, name, url, pictureURL) has the titles. `user_artists.dat` (userID, artistID, weight) has whom
people listened to and how often, but not when. `user_taggedartists-timestamps.dat` (userID, artistID, tagID,
timestamp in ms) has when they tagged an artist, so it is taken as the interactions where it is there: of the tags
that a person gave one artist the first in time stays, unless `--duplicates` says otherwise.
"""

from pathlib import Path

from catalign.data.options import Table, TableSource
from catalign.data.sources.folders import find, need, text_encoding

_TAGGED, _HEARD, _ARTISTS = "user_taggedartists-timestamps.dat", "user_artists.dat", "artists.dat"


def recognises(folder: Path) -> bool:
    """Whether the artists and what people did with them are there."""
    return find(folder, _ARTISTS) is not None and find(folder, _TAGGED, _HEARD) is not None


def source(folder: Path) -> TableSource:
    """Tags with their times, or else the artists heard.

    Raises:
        UserError: a file is missing.
    """
    path = need(folder, _ARTISTS)
    artists = Table.of(path, delimiter="\t", quoted=False, encoding=text_encoding(path))
    interactions = Table.of(need(folder, _TAGGED, _HEARD), delimiter="\t", quoted=False)
    timed = find(folder, _TAGGED) is not None
    return TableSource(
        interactions=interactions, user="userID", item="artistID", time="timestamp" if timed else None,
        items=artists, item_id="id", title="name",
        defaults={"duplicates": "first"} if timed else {},
        warnings=[_TAG_TIMES if timed else _NO_TIMES],
    )  # fmt: skip


_TAG_TIMES = "the interactions are tags that people gave artists, at the time of the first one; listening has no times"
_NO_TIMES = "the file has no times: a person's artists stand in the order of the file, the most heard first"
