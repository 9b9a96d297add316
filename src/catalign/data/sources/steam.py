"""Steam as published by UCSD; every line is a Python literal (`{u'username': u'Ann', ...}`), parsed without being run.

- `steam_reviews.json.gz` (username, product_id, date, hours, text, ...) with `steam_games.json.gz` (id, app_name,
  title, genres, developer, publisher, price, release_date, ...). The user is the `username`, since `user_id` is
  mostly absent.
- `australian_users_items.json.gz` (user_id, items: a list of item_id, item_name, playtime_forever, ...): whom a game
  belongs to, without times. Its own names are the titles.

The text of reviews is never read.
"""

from pathlib import Path

from catalign.data.options import Table, TableSource
from catalign.data.sources.folders import column, column_like, find, need
from catalign.data.tables import column_names

_REVIEWS = ("steam_reviews.json", "steam_new.json", "steam.json")
_GAMES = ("steam_games.json",)
_OWNED = ("australian_users_items.json",)
_METADATA = ("genres", "developer", "publisher", "price", "release_date")


def recognises(folder: Path) -> bool:
    """Whether reviews with games, or what Australian users own, are there."""
    return (find(folder, *_REVIEWS) is not None and find(folder, *_GAMES) is not None) or (
        find(folder, *_OWNED) is not None
    )


def source(folder: Path) -> TableSource:
    """Reviews and games, or else what users own.

    Raises:
        UserError: a file or a key is missing.
    """
    if find(folder, *_REVIEWS) is None and find(folder, *_OWNED) is not None:
        owned = Table.of(need(folder, *_OWNED), nested="items")
        return TableSource(
            interactions=owned, user="user_id", item="item_id", items=owned, item_id="item_id", title="item_name",
            warnings=["the file has no times: a person's games stand in the order of the file"],
        )  # fmt: skip
    reviews, games = Table.of(need(folder, *_REVIEWS)), Table.of(need(folder, *_GAMES))
    keys = column_names(games)
    return TableSource(
        interactions=reviews, user=column(reviews, "username", "user_id"), item="product_id", time="date",
        items=games, item_id="id", title=column(games, "app_name", "title"),
        metadata=[key for key in _METADATA if column_like(keys, key) == key],
    )  # fmt: skip
