"""MovieLens in all its releases.

- latest, latest-small, 20M, 25M, 32M: `ratings.csv` (userId, movieId, rating, timestamp) and `movies.csv` (movieId,
  title, genres), UTF-8; also under the names `rating.csv` and `movie.csv`, with dates for timestamps.
- 1M and 10M: `ratings.dat` and `movies.dat`, the fields between `::`, no header; 1M is latin-1, 10M is UTF-8.
- 100k: `u.data` (tabs) and `u.item` (bars), no header, latin-1.

Titles stay as published, with the year and the article behind (`Usual Suspects, The (1995)`).
"""

from pathlib import Path

from catalign.data.options import Table, TableSource
from catalign.data.sources.folders import column, column_like, find, need, text_encoding
from catalign.data.tables import column_names

_RATINGS, _MOVIES = ("ratings.csv", "rating.csv"), ("movies.csv", "movie.csv")
_RATING = ["user", "movie", "rating", "timestamp"]
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_U_ITEM = ["movie", "title", "release_date", "video_release_date", "IMDb_URL", *_GENRES]


def recognises(folder: Path) -> bool:
    """Whether the ratings and movies of one release are there."""
    pairs = (_RATINGS, _MOVIES), (("ratings.dat",), ("movies.dat",)), (("u.data",), ("u.item",))
    return any(find(folder, *ratings) and find(folder, *movies) for ratings, movies in pairs)


def source(folder: Path) -> TableSource:
    """The ratings and the movies.

    Raises:
        UserError: a file or a column is missing.
    """
    if find(folder, "u.data", "u.item"):
        movies = need(folder, "u.item")
        table = Table.of(movies, delimiter="|", header=_U_ITEM, quoted=False, encoding=text_encoding(movies))
        ratings = Table.of(need(folder, "u.data"), delimiter="\t", header=_RATING, quoted=False)
        return _source(ratings, table, ["release_date"])
    if find(folder, "ratings.dat", "movies.dat"):
        movies = need(folder, "movies.dat")
        table = Table.of(movies, delimiter="::", header=["movie", "title", "genres"], encoding=text_encoding(movies))
        return _source(Table.of(need(folder, "ratings.dat"), delimiter="::", header=_RATING), table, ["genres"])
    movies = need(folder, *_MOVIES)
    ratings, items = Table.of(need(folder, *_RATINGS)), Table.of(movies, encoding=text_encoding(movies))
    genres = column_like(column_names(items), "genres")
    return TableSource(
        interactions=ratings, user=column(ratings, "userId", "user_id", "user"),
        item=column(ratings, "movieId", "movie_id", "movie"), time=column(ratings, "timestamp"),
        rating=column(ratings, "rating"),
        items=items, item_id=column(items, "movieId", "movie_id", "movie"), title=column(items, "title"),
        metadata=[genres] if genres else [],
    )  # fmt: skip


def _source(ratings: Table, movies: Table, metadata: list[str]) -> TableSource:
    return TableSource(
        interactions=ratings, user="user", item="movie", time="timestamp", rating="rating",
        items=movies, item_id="movie", title="title", metadata=metadata,
    )  # fmt: skip
