"""Folders as people have them: published files with what really stands in and beside them, by the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import toy
from catalign.data.dataset import Dataset, load_dataset
from source_files import DAY, LOG, TITLES, WINDOWS, json_lines, lines, literals, old_literals, put, table


def amazon_2014_games(folder: Path) -> None:
    """Few games of 2014 have a title, and none of the first 300; names are missing; keys come in any order."""
    reviews = [
        {"reviewerID": user, "asin": item, **({"reviewerName": "SECRET \\"} if time % 2 else {}), "helpful": [1, 2],
         "unixReviewTime": time, "reviewText": "It's \"so\"\n\\", "overall": rating, "summary": "", "reviewTime": ""}
        for user, item, rating, time in LOG
    ]  # fmt: skip
    nameless: list[dict[str, Any]] = [
        {"asin": f"N{n}", "description": 'Brand "new"\nsealed\'s', "price": 37.98, "imUrl": "http://x/y.jpg",
         "related": {"also_viewed": ["B1", "B2"], "buy_after_viewing": []}, "salesRank": {"Video Games": 28655},
         "categories": [["Video Games", "Xbox 360"]]} for n in range(300)
    ]  # fmt: skip
    titled = [{"asin": item, "title": name, "categories": [["Video Games"]]} for item, name in TITLES.items()]
    put(folder, "reviews_Video_Games_5.json.gz", json_lines(reviews))
    put(folder, "meta_Video_Games.json.gz", literals([*nameless, *titled]))
    put(folder, "Video Games - README.txt", "from the site")


def amazon_2018_software(folder: Path) -> None:
    """2018: styles, votes, images; lines of metadata twice, without a title, with a page for one."""
    reviews = [
        {"overall": rating, "vote": "1,234", "verified": False, "reviewTime": "03 11, 2014", "reviewerID": user,
         "asin": item, "style": {"Platform:": " PC Disc"}, "reviewText": "SECRET",
         "unixReviewTime": time, "image": []}
        for user, item, rating, time in LOG
    ]  # fmt: skip
    meta: list[dict[str, Any]] = [
        {"category": [], "tech1": "", "description": ["a", ""], "fit": "", "title": name, "also_buy": [], "brand": "",
         "feature": ["<b>x</b>"], "rank": "2,1 in Software (", "price": "$5.00", "asin": item, "details": {"A:": "b"}}
        for item, name in TITLES.items()
    ]  # fmt: skip
    page = '<span class="a-size-medium">var aPageStart = (new Date()).getTime();'
    put(folder, "Software_5.json.gz", json_lines(reviews))
    put(
        folder,
        "meta_Software.json.gz",
        json_lines([*meta, meta[0], {"asin": "X1", "title": ""}, {"asin": "X2", "title": page}]),
    )


def amazon_2023_hub(folder: Path) -> None:
    """2023 as Hugging Face has it: reviews and metadata in two folders."""
    reviews = [
        {"rating": rating, "title": "SECRET 😀", "text": "a\u2028b", "images": [{"small_image_url": "u"}], "asin": "V",
         "parent_asin": item, "user_id": user, "timestamp": time * 1000, "helpful_vote": 0, "verified_purchase": True}
        for user, item, rating, time in LOG
    ]  # fmt: skip
    meta = [
        {"main_category": "All Beauty", "title": name, "average_rating": 4.8, "rating_number": 10, "features": [],
         "description": [], "price": price, "images": [{"thumb": None}], "videos": [], "store": None, "categories": [],
         "details": {"Package Dimensions": "7.1 x 5.5"}, "parent_asin": item, "bought_together": None}
        for (item, name), price in zip(TITLES.items(), [None, "—", 1.5, "from 14.99", None, 2, 3, 4], strict=True)
    ]  # fmt: skip
    put(folder, "raw/review_categories/All_Beauty.jsonl", json_lines(reviews))
    put(folder, "raw/meta_categories/meta_All_Beauty.jsonl", json_lines(meta))


def amazon_2023_splits(folder: Path) -> None:
    """The given splits of 2023 with histories."""
    for split, part in (("train", LOG[:40]), ("valid", LOG[40:50]), ("test", LOG[50:])):
        rows = [(user, item, rating, time * 1000, "1 2 3") for user, item, rating, time in part]
        put(folder, f"Toys.{split}.csv.gz", table(["user_id", "parent_asin", "rating", "timestamp", "history"], rows))
    put(folder, "meta_Toys.jsonl.gz", json_lines([{"title": n, "parent_asin": i} for i, n in TITLES.items()]))


def movielens_100k_whole(folder: Path) -> None:
    """All of ml-100k: half of the ratings stand in files beside, and a film is called unknown."""
    ratings = [(user[1:], item, int(rating), time) for user, item, rating, time in LOG]
    films = [
        (*pair, "01-Jan-1995", "", "http://us.imdb.com/M/title?x%20(1995)", *[0] * 18, 1) for pair in TITLES.items()
    ]
    put(folder, "ml-100k/u.data", lines(ratings, "\t"))
    put(folder, "ml-100k/u.item", lines([*films, ("267", "unknown", "", "", "", 1, *[0] * 18)], "|"), "latin-1")
    for name in ("u1.base", "u1.test", "ua.base", "ub.test"):
        put(folder, f"ml-100k/{name}", lines(ratings[:9], "\t"))
    for name in ("README", "u.info", "u.genre", "u.user", "u.occupation", "mku.sh", "allbut.pl"):
        put(folder, f"ml-100k/{name}", "24|M|technician|85711\n")


def movielens_25m_whole(folder: Path) -> None:
    """All of ml-25m."""
    put(folder, "ml-25m/ratings.csv", table(["userId", "movieId", "rating", "timestamp"], LOG))
    films = [(item, name, "(no genres listed)") for item, name in TITLES.items()]
    put(
        folder,
        "ml-25m/movies.csv",
        table(["movieId", "title", "genres"], [*films, ("900", '"Great Performances" Cats (1998)', "")]),
    )
    put(folder, "ml-25m/links.csv", "movieId,imdbId,tmdbId\n1,0114709,862\n")
    put(folder, "ml-25m/tags.csv", "userId,movieId,tag,timestamp\n3,260,classic,1439472355\n")
    put(folder, "ml-25m/genome-scores.csv", "movieId,tagId,relevance\n1,1,0.02875\n")
    put(folder, "ml-25m/genome-tags.csv", "tagId,tag\n1,007\n")


def lastfm_whole(folder: Path) -> None:
    """All of HetRec's Last.fm: tags are latin-1, one time is before 1970, one artist has no name."""
    names = [(*pair, "http://www.last.fm/music/x", "http://userserve-ak.last.fm/x.jpg") for pair in TITLES.items()]
    put(folder, "artists.dat", "id\tname\turl\tpictureURL\n" + lines([*names, ("99", "", "", "")], "\t"))
    tagged = [(user[1:], item, 7, time * 1000) for user, item, _, time in LOG]
    tagged[0] = (*tagged[0][:3], -428720400000)
    put(folder, "user_taggedartists-timestamps.dat", "userID\tartistID\ttagID\ttimestamp\n" + lines(tagged, "\t"))
    put(folder, "user_taggedartists.dat", "userID\tartistID\ttagID\tday\tmonth\tyear\n1\t1\t1\t1\t4\t2009\n")
    put(folder, "user_artists.dat", "userID\tartistID\tweight\n2\t51\t13883\n")
    put(folder, "user_friends.dat", "userID\tfriendID\n2\t275\n")
    put(folder, "tags.dat", "tagID\ttagValue\n1\tmétal\n", "latin-1")


def steam_whole(folder: Path) -> None:
    """Steam: games without an id, a name or a number for a price; some reviews come twice."""
    from source_files import date

    reviews = [
        {"username": f"Ünï {user}\\", "hours": 0.1, "products": 41, "product_id": item, "page_order": 0,
         "date": date(time), "text": "it's \"SECRET\"\r\n☠", "early_access": False, "page": 1}
        for user, item, _, time in LOG
    ]  # fmt: skip
    games: list[dict[str, Any]] = [
        {
            "publisher": "K",
            "genres": ["Action"],
            "app_name": name,
            "url": "u",
            "price": price,
            "id": item,
            "metascore": "NA",
        }
        for (item, name), price in zip(TITLES.items(), [4.99, "Free To Play", 0, 1, 2, 3, 4, 5], strict=True)
    ]
    put(folder, "steam_reviews.json.gz", old_literals(reviews))
    put(
        folder,
        "steam_games.json.gz",
        old_literals([*games, {"url": "u", "price": 19.99}, {"id": "10", "app_name": ""}]),
    )


def recbole_steam(folder: Path) -> None:
    """RecBole's Steam: the item is product_id here and id there, and both tables know early_access."""
    log = [(user, 1.5, item, "False", time) for user, item, _, time in LOG]
    heading = "user_id:token\tplay_hours:float\tproduct_id:token\tearly_access:token\ttimestamp:float\n"
    put(folder, "steam/steam.inter", heading + lines(log, "\t"))
    games = [(name, "dev", "False", "Action, Indie", item, name.upper()) for item, name in TITLES.items()]
    heading = "app_name:token\tdeveloper:token\tearly_access:token\tgenres:token_seq\tid:token\ttitle:token\n"
    put(folder, "steam/steam.item", heading + lines(games, "\t"))


def d3_of_pandas(folder: Path) -> None:
    """D3's tables with an index column, and lists as numpy writes them, over several lines."""
    for split, windows in WINDOWS.items():
        rows = [
            (n, user, "[" + "\n ".join(history) + "]", target, time)
            for n, (user, history, target, time) in enumerate(windows)
        ]
        put(folder, f"{split}.csv", table(["", "user_id", "history_item_id", "item_id", "timestamp"], rows))
    put(folder, "info.txt", lines([(name, item) for item, name in TITLES.items()], "\t"))


def alpaca_on_one_line(folder: Path) -> None:
    """Instruction files without line breaks, with keys of other tools."""
    for split, name in (("train", "train"), ("valid", "val"), ("test", "test")):
        rows = [
            {"instruction": "Given a list of games, recommend one.", "system": "", "history": [],
             "input": "The user has played the following games before: " + ", ".join(f'"{TITLES[i]}"' for i in history),
             "output": f'"{TITLES[target]}"'}
            for _, history, target, _ in WINDOWS[split]
        ]  # fmt: skip
        put(folder, f"{name}.json", json.dumps(rows))


def msl_of_windows(folder: Path) -> None:
    """MSL with a byte order mark, CR LF and titles that are numbers or missing."""
    names: dict[str, Any] = {**TITLES, "90": None, "91": 1984}
    put(folder, "id2name4Rec.json", "\ufeff" + json.dumps(names))
    for split, windows in WINDOWS.items():
        rows = [(user, f"[{', '.join([*history, target])}]", time) for user, history, target, time in windows]
        text = table(["user_id", "item_ids", "timestamp"], rows).replace("\n", "\r\n")
        put(folder, f"{split}.csv", "\ufeff" + text)


def prepared(folder: Path, output: Path, *options: object) -> Dataset:
    toy.works("data", "prepare", folder, "--output", output, *options)
    return load_dataset(output)


FORMS = (
    amazon_2014_games, amazon_2018_software, amazon_2023_hub, amazon_2023_splits, movielens_100k_whole,
    movielens_25m_whole, lastfm_whole, steam_whole, recbole_steam,
)  # fmt: skip


@pytest.mark.parametrize("write", FORMS, ids=lambda write: write.__name__)
def test_tables_as_people_have_them(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "a set")
    dataset = prepared(tmp_path / "a set", tmp_path / "ds")
    assert dataset.card.rows_in["interactions"] == dataset.interactions.height == len(LOG)
    assert dict(dataset.items.select("item_id", "title").iter_rows()) == TITLES
    assert dataset.interactions["user_id"].n_unique() == 10
    times = {time * 1000 // (DAY * 1000) for _, _, _, time in LOG} | {-428720400000 // (DAY * 1000)}
    assert set((dataset.interactions["timestamp"] // (DAY * 1000)).to_list()) <= times
    assert "SECRET" not in str(dataset.interactions.to_dicts()) + (tmp_path / "ds" / "rejects.jsonl").read_text()


@pytest.mark.parametrize("write", (d3_of_pandas, alpaca_on_one_line, msl_of_windows), ids=lambda write: write.__name__)
def test_windows_as_people_have_them(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "a set")
    dataset = prepared(tmp_path / "a set", tmp_path / "ds")
    titles = dataset.items["title"].to_list()
    for split, published in WINDOWS.items():
        expected = [([TITLES[item] for item in history], TITLES[target]) for _, history, target, _ in published]
        shown = dataset.windows(split).select("history", "target").iter_rows()
        assert [([titles[item] for item in history], titles[target]) for history, target in shown] == expected


def test_pairs_of_ids_with_blanks_between(tmp_path: Path) -> None:
    """`user item` a line, without a header, as SASRec's followers have it; titles from a table that pandas wrote."""
    put(tmp_path, "Beauty.txt", lines([row[:2] for row in LOG], " "))
    put(tmp_path, "items.csv", table(["", "asin", "title"], [(n, *pair) for n, pair in enumerate(TITLES.items())]))
    toy.works(
        "data", "prepare", "--interactions", tmp_path / "Beauty.txt", "--interactions-header", "user,item",
        "--items", tmp_path / "items.csv", "--delimiter", " ", "--user", "user", "--item", "item", "--title", "title",
        "--item-id", "asin", "--split", "leave-one-out", "--output", tmp_path / "ds",
    )  # fmt: skip
    assert load_dataset(tmp_path / "ds").interactions.height == len(LOG)
