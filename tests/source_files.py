"""One small world, written in every form that people come with: ten users, six visits each, one a day, eight items."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

DAY = 86_400
TITLES = {
    "1": "Plain (1999)", "2": "Comma, The (2001)", "3": 'Amélie "Quoted" (2001)', "4": "It's & Co",
    "5": "Naïve: Part 2", "6": "Six", "7": "[7] {x}", "8": "Eight - 8",
}  # fmt: skip
LOG = [
    (f"u{user}", str(1 + (user + 3 * visit) % 8), float(1 + (user + visit) % 5), (10_000 + 7 * visit + user) * DAY)
    for user in range(10)
    for visit in range(6)
]
"""User, item, rating, time in seconds; every user meets an item once."""

WINDOWS = {
    split: [
        (f"u{user}", [LOG[6 * user + visit][1] for visit in range(length)], *LOG[6 * user + length][1::2])
        for user in range(10)
    ]
    for split, length in (("train", 3), ("valid", 4), ("test", 5))
}
"""User, history, target, time of the target."""


def put(folder: Path, name: str, text: str, encoding: str = "utf-8") -> None:
    """Write a text, packed if its name says so."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)


def table(header: list[str], rows: list[Any], **how: Any) -> str:
    """CSV as the csv module writes it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", **how)
    writer.writerows([header, *rows])
    return text.getvalue()


def lines(rows: list[Any], between: str) -> str:
    """Fields with a delimiter between and no quotation marks."""
    return "".join(between.join(map(str, row)) + "\n" for row in rows)


def json_lines(rows: list[dict[str, Any]]) -> str:
    """One object per line."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def literals(rows: list[dict[str, Any]]) -> str:
    """One Python literal per line."""
    return "".join(f"{row!r}\n" for row in rows)


def old_literals(rows: list[dict[str, Any]]) -> str:
    """One literal of Python 2 per line, texts as u''."""
    shown = (
        {key: f"u{value!r}" if isinstance(value, str) else repr(value) for key, value in row.items()} for row in rows
    )
    return "".join("{" + ", ".join(f"u'{key}': {value}" for key, value in row.items()) + "}\n" for row in shown)


def movielens_latest(folder: Path) -> None:
    """As of ml-latest, 20M, 25M and 32M."""
    put(folder, "ratings.csv", table(["userId", "movieId", "rating", "timestamp"], LOG))
    put(folder, "movies.csv", table(["movieId", "title", "genres"], [(*pair, "Drama|War") for pair in TITLES.items()]))
    put(folder, "tags.csv", "userId,movieId,tag,timestamp\n")


def movielens_windows_text(folder: Path) -> None:
    """The same with a byte order mark, CR LF, other cases and columns more."""
    ratings = table(["userId", "movieId", "rating", "timestamp", "extra"], [(*row, "x") for row in LOG])
    put(folder, "Ratings.CSV", "\ufeff" + ratings.replace("\n", "\r\n"))
    put(folder, "Movies.csv", "\ufeff" + table(["movieId", "title"], list(TITLES.items())).replace("\n", "\r\n"))


def movielens_1m(folder: Path) -> None:
    """As of ml-1m: latin-1."""
    put(folder, "ratings.dat", lines(LOG, "::"))
    put(folder, "movies.dat", lines([(*pair, "Drama|War") for pair in TITLES.items()], "::"), "latin-1")


def movielens_10m(folder: Path) -> None:
    """As of ml-10M100K: UTF-8."""
    movielens_1m(folder)
    put(folder, "movies.dat", lines([(*pair, "Drama|War") for pair in TITLES.items()], "::"))


def movielens_100k(folder: Path) -> None:
    """As of ml-100k."""
    put(folder, "u.data", lines(LOG, "\t"))
    rows = [(*pair, "01-Jan-1995", "", "http://us.imdb.com/", *[0] * 18, 1) for pair in TITLES.items()]
    put(folder, "u.item", lines(rows, "|"), "latin-1")


def lastfm(folder: Path) -> None:
    """HetRec 2011; every artist gets two tags at once."""
    tags = [(user, item, tag, time * 1000) for user, item, _, time in LOG for tag in (5, 6)]
    put(folder, "user_taggedartists-timestamps.dat", "userID\tartistID\ttagID\ttimestamp\r\n" + lines(tags, "\t"))
    put(folder, "user_artists.dat", "userID\tartistID\tweight\r\n" + lines([row[:3] for row in LOG], "\t"))
    names = [(*pair, "http://www.last.fm/music/x", "http://x.jpg") for pair in TITLES.items()]
    put(folder, "artists.dat", "id\tname\turl\tpictureURL\r\n" + lines(names, "\t").replace("\n", "\r\n"))


def date(time: int) -> str:
    """The day as Steam writes it."""
    import datetime

    return datetime.datetime.fromtimestamp(time, datetime.UTC).date().isoformat()


def steam(folder: Path) -> None:
    """Reviews and games of UCSD."""
    reviews = [
        {"username": user, "hours": 1.5, "product_id": item, "page_order": 0, "date": date(time), "text": "SECRET It's"}
        for user, item, _, time in LOG
    ]
    games = [
        {"app_name": name, "title": name, "genres": ["Indie"], "id": item, "price": 1.0}
        for item, name in TITLES.items()
    ]
    put(folder, "steam_reviews.json.gz", old_literals(reviews))
    put(folder, "steam_games.json.gz", old_literals([*games, {"publisher": "none", "id": "9"}]))


def reviews_of_2014() -> list[dict[str, Any]]:
    """Reviews of 2014 and 2018."""
    return [
        {"reviewerID": user, "asin": item, "reviewerName": "SECRET", "helpful": [0, 1], "reviewText": "SECRET",
         "overall": rating, "summary": "SECRET", "unixReviewTime": time, "reviewTime": "01 2, 2014"}
        for user, item, rating, time in LOG
    ]  # fmt: skip


def amazon_2014(folder: Path) -> None:
    """Metadata as Python literals."""
    put(folder, "reviews_Toys_5.json.gz", json_lines(reviews_of_2014()))
    meta = [{"asin": item, "title": name, "categories": [["Toys"]], "brand": "B"} for item, name in TITLES.items()]
    put(folder, "meta_Toys.json.gz", literals(meta))


def amazon_2018(folder: Path) -> None:
    """All JSON."""
    put(folder, "Toys_5.json.gz", json_lines([{"verified": True, **row} for row in reviews_of_2014()]))
    meta = [{"category": ["Toys"], "title": name, "brand": "B", "asin": item} for item, name in TITLES.items()]
    put(folder, "meta_Toys.json.gz", json_lines(meta))


def meta_of_2023() -> str:
    """Metadata of 2023."""
    return json_lines([
        {"main_category": "Toys", "title": name, "store": "B", "price": None, "parent_asin": item}
        for item, name in TITLES.items()
    ])  # fmt: skip


def amazon_2023(folder: Path) -> None:
    """Times in milliseconds; the item is the parent."""
    reviews = [
        {"rating": rating, "title": "SECRET", "text": "SECRET", "asin": f"V{item}", "parent_asin": item,
         "user_id": user, "timestamp": time * 1000}
        for user, item, rating, time in LOG
    ]  # fmt: skip
    put(folder, "Toys.jsonl.gz", json_lines(reviews))
    put(folder, "meta_Toys.jsonl.gz", meta_of_2023())


def amazon_2014_ratings(folder: Path) -> None:
    """Ratings alone, without a header: the user first."""
    amazon_2014(folder)
    (folder / "reviews_Toys_5.json.gz").unlink()
    put(folder, "ratings_Toys.csv", lines(LOG, ","))


def amazon_2018_ratings(folder: Path) -> None:
    """Ratings alone, without a header: the item first."""
    amazon_2018(folder)
    (folder / "Toys_5.json.gz").unlink()
    put(folder, "Toys.csv", lines([(item, user, rating, time) for user, item, rating, time in LOG], ","))


def amazon_2023_ratings(folder: Path) -> None:
    """Ratings alone, with a header."""
    put(
        folder,
        "Toys.csv.gz",
        table(["user_id", "parent_asin", "rating", "timestamp"], [(*r[:3], r[3] * 1000) for r in LOG]),
    )
    put(folder, "meta_Toys.jsonl.gz", meta_of_2023())


def recbole(folder: Path) -> None:
    """Atomic files."""
    put(folder, "toys.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + lines(LOG, "\t"))
    rows = [(item, name, "Drama War") for item, name in TITLES.items()]
    put(folder, "toys.item", "item_id:token\tmovie_title:token_seq\tgenre:token_seq\n" + lines(rows, "\t"))
    put(folder, "toys.user", "user_id:token\n")


def recbole_other_names(folder: Path) -> None:
    """Atomic files whose columns have other names."""
    put(folder, "toys.inter", "session_id:token\tartist_id:token\trating:float\ttimestamp:float\n" + lines(LOG, "\t"))
    put(folder, "toys.item", "artist_id:token\tartist_name:token_seq\n" + lines(list(TITLES.items()), "\t"))


def shop(folder: Path) -> None:
    """Our own form, as JSON lines."""
    keys = ("user_id", "item_id", "rating", "timestamp")
    put(folder, "interactions.jsonl", json_lines([dict(zip(keys, row, strict=True)) for row in LOG]))
    put(folder, "items.jsonl", json_lines([{"item_id": item, "title": name} for item, name in TITLES.items()]))


TABLES: dict[str, tuple[str, Callable[[Path], None]]] = {
    writer.__name__: (layout, writer)
    for layout, writer in (
        ("movielens", movielens_latest), ("movielens", movielens_windows_text), ("movielens", movielens_1m),
        ("movielens", movielens_10m), ("movielens", movielens_100k), ("lastfm", lastfm), ("steam", steam),
        ("amazon", amazon_2014), ("amazon", amazon_2018), ("amazon", amazon_2023), ("amazon", amazon_2014_ratings),
        ("amazon", amazon_2018_ratings), ("amazon", amazon_2023_ratings), ("recbole", recbole),
        ("recbole", recbole_other_names), ("shop", shop),
    )
}  # fmt: skip
"""Name -> the layout it is recognised as, what writes it."""


def window_tables(
    folder: Path, where: str, header: list[str], row: Callable[[str, list[str], str, int], list[Any]]
) -> None:
    """A table of windows for each split, `where` with the split in it."""
    for split, windows in WINDOWS.items():
        put(folder, where.format(split), table(header, [row(*window) for window in windows]))


def ids(history: list[str]) -> str:
    """A list of ids as pandas writes it."""
    return f"[{', '.join(history)}]"


def msl(folder: Path) -> None:
    """MSL as published, with a sample for a test table."""
    put(folder, "id2name4Rec.json", json.dumps(TITLES))
    window_tables(folder, "{}.csv", ["user_id", "item_ids", "timestamp"], lambda u, h, t, s: [u, ids([*h, t]), s])
    (folder / "test.csv").rename(folder / "test_5000.csv")


def soft(folder: Path) -> None:
    """SOFT: the tables of MSL in folders, with samples and prompts beside them."""
    msl(folder)
    for old, new in (("train.csv", "train"), ("valid.csv", "train"), ("test_5000.csv", "test")):
        (folder / new).mkdir(exist_ok=True)
        (folder / old).rename(folder / new / old.replace("_5000", ""))
    put(folder, "train/train_4096.json", "[]")
    put(folder, "train/train_4096.csv", "user_id,item_ids,timestamp\n")


D3_HEADER = ["user_id", "item_asins", "history_item_id", "item_id", "history_item_title", "item_title", "timestamp"]


def d3_row(user: str, history: list[str], target: str, time: int) -> list[Any]:
    """A row of D3 and of BIGRec's games."""
    return [user, ["A"], ids(history), target, [TITLES[i] for i in history], TITLES[target], time]


def d3(folder: Path) -> None:
    """D3, three flat tables."""
    window_tables(folder, "{}.csv", D3_HEADER, d3_row)
    put(folder, "info.txt", lines([(name, item) for item, name in TITLES.items()], "\t"))


def d3_folders(folder: Path) -> None:
    """D3 as its preprocessing writes it."""
    window_tables(folder, "{}/Toys_5_2017-10-2018-11.csv", D3_HEADER, d3_row)
    put(folder, "info/Toys_5_2017-10-2018-11.txt", lines([(name, item) for item, name in TITLES.items()], "\t"))


def minionerec(folder: Path) -> None:
    """MiniOneRec: semantic ids everywhere, no times."""
    window_tables(
        folder, "{}/Toys_5_2016-10-2018-11.csv",
        ["user_id", "history_item_title", "item_title", "history_item_id", "item_id", "history_item_sid", "item_sid"],
        lambda u, h, t, s: [u, [TITLES[i] for i in h], TITLES[t], ids(h), t, ["<a_1><b_2>"] * len(h), "<a_1><b_2>"],
    )  # fmt: skip
    rows = [(f"<a_{item}><b_2><c_3>", name, item) for item, name in TITLES.items()]
    put(folder, "info/Toys_5_2016-10-2018-11.txt", lines(rows, "\t"))


def bigrec_games(folder: Path) -> None:
    """BIGRec, games."""
    window_tables(folder, "{}.csv", D3_HEADER, d3_row)
    put(folder, "id2name.txt", lines([(f" {name}", item) for item, name in TITLES.items()], "\t"))


def bigrec_movies(folder: Path) -> None:
    """BIGRec, movies."""
    window_tables(
        folder, "{}.csv",
        ["user_id", "history_movie_title", "history_movie_id", "history_rating", "movie_id", "timestamp"],
        lambda u, h, t, s: [u, [TITLES[i] for i in h], [*h], [1] * len(h), t, s],
    )  # fmt: skip
    put(folder, "movies.dat", lines([(*pair, "Drama") for pair in TITLES.items()], "::"), "latin-1")
    put(folder, "ratings.dat", lines(LOG, "::"))


def llara(folder: Path) -> None:
    """LLaRA with its data frames written as CSV; padding is item 99."""
    for split, name in (("train", "train_data"), ("valid", "Val_data"), ("test", "Test_data")):
        rows = [
            (place, ids([*history, *["99"] * (10 - len(history))]), len(history), target)
            for place, (_, history, target, _) in enumerate(WINDOWS[split])
        ]
        put(folder, f"{name}.csv", table(["", "seq", "len_seq", "next"], rows))
    put(folder, "id2name.txt", lines(list(TITLES.items()), "::"))


def llara_movies(folder: Path) -> None:
    """LLaRA's MovieLens: pairs of id and rating, ids one less than in u.item."""
    for split, name in (("train", "train_data"), ("valid", "Val_data"), ("test", "Test_data")):
        rows = []
        for _, history, target, _ in WINDOWS[split]:
            pairs = [(int(item) - 1, 4) for item in history] + [(1682, 0)] * (10 - len(history))
            rows.append((pairs, len(history), (int(target) - 1, 5)))
        put(folder, f"{name}.csv", table(["seq", "len_seq", "next"], rows))
    movielens_100k(folder)
    (folder / "u.data").unlink()


def instructions(folder: Path) -> None:
    """Alpaca form, as BIGRec and SOFT write it."""
    for split, name in (("train", "train"), ("valid", "valid_5000"), ("test", "test_5000")):
        rows = [
            {"instruction": "Recommend a game.", "output": f'"{TITLES[target]}"',
             "input": "The user has played:" + ", ".join(f'"{TITLES[i]}"' for i in history) + "\n "}
            for _, history, target, _ in WINDOWS[split]
        ]  # fmt: skip
        put(folder, f"{name}.json", json.dumps(rows, indent=4))


def sdpo(folder: Path) -> None:
    """S-DPO: lists of titles."""
    for split, name in (("train", "train"), ("valid", "val"), ("test", "test")):
        rows = [
            {
                "historyList": [TITLES[i] for i in history],
                "itemList": list(TITLES.values()),
                "trueSelection": TITLES[target],
            }
            for _, history, target, _ in WINDOWS[split]
        ]
        put(folder, f"toys-sft-{name}.json", json.dumps(rows, indent=4))


CUT: dict[str, tuple[str, Callable[[Path], None]]] = {
    writer.__name__: (layout, writer)
    for layout, writer in (
        ("msl", msl), ("msl", soft), ("d3", d3), ("d3", d3_folders), ("minionerec", minionerec),
        ("bigrec", bigrec_games), ("bigrec", bigrec_movies), ("llara", llara), ("llara", llara_movies),
        ("instructions", instructions), ("instructions", sdpo),
    )
}  # fmt: skip
"""Windows: name -> the layout it is recognised as, what writes it."""
