"""The sample store: a generated shop to try everything on, seeded and of any size.

Its catalogue is made of *lines*: a series of books, a game and its sequels on one platform, a device and its
accessories. A line belongs to a department, and its items come in a fixed order: volume after volume, each released
some weeks after the one before; accessories together with their device. Volumes that are announced but not yet released
at the end of the two years are in the catalogue and never sold.

Its users have a latent taste (two favourite departments and one platform) and habits in sequence. At each visit a
user continues, with probability 0.75, one of the three lines visited last, the most recent one preferred, by the next
item of that line if it has been released; otherwise the user begins a new line of a department to their taste, popular
lines preferred. Nobody buys an item twice.

What can be learnt: the next item of a line follows from the titles alone, also for a volume released after the end of
training, which no model of item ids can know. What cannot: when a user begins a new line, and which.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from catalign.data.store_titles import DEPARTMENTS, PLATFORMS, SHELVES, Integers, item_titles, line_names
from catalign.data.writing import write_csv
from catalign.errors import UserError
from catalign.files import whole_folder

HORIZON_DAYS = 730.0
START = 1_672_531_200  # 1 January 2023 in seconds
CONTINUE = 0.75
SLOTS = np.array([0.6, 0.85, 1.0])  # cumulative probability to continue the last, last but one, last but two line
TASTE = np.array([0.6, 0.9])  # cumulative probability of the first and second favourite department; else any

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Lines:
    """The lines of the shop, sorted by department, platform and release.

    Attributes:
        shelf: [lines], department times platform; the users' choice begins here.
        first: [lines], item number of its first item.
        length: [lines].
        weight: [lines], popularity.
        released: [lines], day of release of the first item.
        pause: [lines], days between the releases of two items.
    """

    shelf: Integers
    first: Integers
    length: Integers
    weight: Floats
    released: Floats
    pause: Floats


def write_store(
    output: Path,
    *,
    users: int = 2_000,
    items: int = 500,
    seed: int = 0,
    overwrite: bool = False,
    step: Callable[[str], None] = lambda _: None,
) -> tuple[int, int]:
    """Generate a shop and write `interactions.csv`, `items.csv` and a `README.md` about them.

    Args:
        output: the folder to make.
        users: how many people.
        items: how many items; lines are whole but for the last.
        seed: the same seed gives the same files.
        overwrite: replace a folder that is there.
        step: is told what is being done, for progress.

    Returns:
        The numbers of items and interactions.

    Raises:
        UserError: fewer than 50 items or 10 users, or the folder cannot be made.
    """
    if items < 50 or users < 10:
        raise UserError("a sample store needs at least 50 items and 10 users", mend="pass larger --items and --users")
    if overwrite and output.exists() and not (output / "interactions.csv").is_file():
        raise UserError("is not a sample store, so it is not replaced", where=output, mend="choose another folder")
    with whole_folder(output, overwrite=overwrite) as folder:
        step("stocking the shelves")
        generator = np.random.default_rng(seed)
        lines = make_lines(items, generator)
        catalogue = make_items(lines, items, generator)
        step("letting people shop")
        visits = shop(lines, users, generator)
        step("writing the tables")
        log = visits.with_columns(
            user_id=pl.format("u{}", pl.col("user").cast(pl.String).str.zfill(7)),
            item_id=catalogue["item_id"].gather(visits["item"]),
            timestamp=pl.from_epoch("second", time_unit="s").dt.strftime("%Y-%m-%d %H:%M:%S"),
        ).select("user_id", "item_id", "timestamp", "rating")
        write_csv(catalogue.sort("item_id"), folder / "items.csv")
        write_csv(log, folder / "interactions.csv")
        (folder / "README.md").write_text(_readme(users, items, log.height, seed), encoding="utf-8")
    return items, log.height


def make_lines(items: int, generator: np.random.Generator) -> Lines:
    """Draw lines that hold `items` items."""
    most = items // 3 + 1  # no line is shorter than 3
    shelf = np.arange(most) % len(SHELVES)
    shortest = np.array([department.shortest for department, _ in SHELVES])[shelf]
    longest = np.array([department.longest for department, _ in SHELVES])[shelf]
    length = generator.integers(shortest, longest + 1)
    count = int(np.searchsorted(np.cumsum(length), items)) + 1
    shelf, length = shelf[:count], length[:count]
    length[-1] -= int(length.sum()) - items
    early = generator.random(count) < 0.1
    released = np.where(early, 0.0, generator.random(count) * HORIZON_DAYS * 0.9)
    released[: len(SHELVES)] = 0.0  # every shelf has something from the first day
    in_volumes = np.array([department.accessories == () for department, _ in SHELVES])[shelf]
    pause = np.where(in_volumes, generator.uniform(60.0, 160.0, count), 0.0)
    weight = generator.permutation(1.0 / (np.arange(count) + 5.0) ** 0.7)
    order = np.lexsort((released, shelf))
    length = length[order]
    first = np.cumsum(length) - length
    return Lines(shelf[order], first, length, weight[order], released[order], pause[order])


def make_items(lines: Lines, items: int, generator: np.random.Generator) -> pl.DataFrame:
    """Name the items: `item_id`, `title`, `department`, `price`, in the order of the lines."""
    line = np.repeat(np.arange(lines.first.size), lines.length)
    place = np.arange(items) - lines.first[line]
    # Platforms share their games: the n-th line on each platform of a department has the same name.
    number = np.arange(lines.shelf.size) - np.searchsorted(lines.shelf, lines.shelf)
    titles = []  # the lines are sorted by shelf, so are the items
    for shelf, (department, platform) in enumerate(SHELVES):
        here = lines.shelf[line] == shelf
        titles.append(item_titles(department, platform, line_names(department, number[line[here]]), place[here]))
    return pl.DataFrame(
        {
            "item_id": pl.Series(generator.permutation(items)).cast(pl.String).str.zfill(7),
            "title": pl.concat(titles),
            "department": pl.Series([department.name for department, _ in SHELVES]).gather(lines.shelf[line]),
            "price": np.round(np.exp(generator.normal(2.8, 0.6, items)), 2),
        }
    )


@dataclass(frozen=True)
class People:
    """The users.

    Attributes:
        favourites: [users, 2], departments.
        platform: [users].
        visits: [users], how often they come at most.
        gap: [users], mean days between visits.
        day: [users], of the next visit; moves on.
        recent: [users, 3], the lines visited last, -1 for none; moves on.
        next_place: [users, 3], the place in those lines that comes next; moves on.
    """

    favourites: Integers
    platform: Integers
    visits: Integers
    gap: Floats
    day: Floats
    recent: Integers
    next_place: Integers


def make_people(users: int, generator: np.random.Generator) -> People:
    """Draw the users."""
    return People(
        favourites=np.argsort(generator.random((users, len(DEPARTMENTS))), axis=1)[:, :2],
        platform=generator.integers(0, len(PLATFORMS), users),
        visits=np.minimum(3 + generator.geometric(1 / 8, users), 60),
        day=generator.random(users) * HORIZON_DAYS * 0.9,
        gap=np.exp(generator.normal(2.3, 0.6, users)),
        recent=np.full((users, 3), -1, dtype=np.int64),
        next_place=np.zeros((users, 3), dtype=np.int64),
    )


def shop(lines: Lines, users: int, generator: np.random.Generator) -> pl.DataFrame:
    """Let every user shop: `user`, `item`, `second` (since 1970), `rating`, in order of time.

    All users take their n-th visit at once; the loop is over visits.
    """
    people = make_people(users, generator)
    parts: list[pl.DataFrame] = []
    for visit in range(int(people.visits.max())):
        user = np.flatnonzero((people.visits > visit) & (people.day < HORIZON_DAYS))
        now = people.day[user]
        slot = np.searchsorted(SLOTS, generator.random(user.size))
        line, place = people.recent[user, slot], people.next_place[user, slot]
        ready = (line >= 0) & (place < lines.length[line]) & (lines.released[line] + place * lines.pause[line] <= now)
        goes_on = ready & (generator.random(user.size) < CONTINUE)
        line = np.where(goes_on, line, _begin(lines, people, user, generator))
        place = np.where(goes_on, place, 0)
        parts.append(pl.DataFrame({"user": user, "item": lines.first[line] + place, "day": now}))
        _remember(people, user, line, place, np.where(goes_on, slot, 2))
        people.day[user] += generator.exponential(people.gap[user]) + 0.001
    log = pl.concat(parts).unique(["user", "item"], keep="first", maintain_order=True)
    second = pl.lit(START) + (pl.col("day") * 86_400).cast(pl.Int64)
    rating = pl.Series("rating", generator.choice([3, 4, 5], log.height, p=[0.15, 0.35, 0.5]))
    return log.with_columns(second=second, rating=rating).sort("second", "user").drop("day")


def _begin(lines: Lines, people: People, user: Integers, generator: np.random.Generator) -> Integers:
    """Draw a line for each of `user` to begin: of a department to their taste, already released, by popularity."""
    taste = np.searchsorted(TASTE, generator.random(user.size))
    anything = generator.integers(0, len(DEPARTMENTS), user.size)
    department = np.where(taste < 2, people.favourites[user, np.minimum(taste, 1)], anything)
    has_platforms = np.array([entry.platforms for entry in DEPARTMENTS])[department]
    first_shelf = np.searchsorted([DEPARTMENTS.index(entry) for entry, _ in SHELVES], np.arange(len(DEPARTMENTS)))
    shelf = first_shelf[department] + np.where(has_platforms, people.platform[user], 0)
    # Lines are sorted by shelf, then release: those on a shelf that are out by now are one run of them.
    moment = lines.shelf * (10 * HORIZON_DAYS) + lines.released
    low = np.searchsorted(lines.shelf, shelf)
    high = np.searchsorted(moment, shelf * (10 * HORIZON_DAYS) + people.day[user], side="right")
    weight_before = np.concatenate([[0.0], np.cumsum(lines.weight)])
    drawn = weight_before[low] + generator.random(user.size) * (weight_before[high] - weight_before[low])
    begun: Integers = np.clip(np.searchsorted(weight_before, drawn, side="right") - 1, low, high - 1)
    return begun


def _remember(people: People, user: Integers, line: Integers, place: Integers, slot: Integers) -> None:
    """Move the visited line to the front of what each user visited last, over the slot it came from."""
    for older in (2, 1):
        moves = user[slot >= older]
        people.recent[moves, older] = people.recent[moves, older - 1]
        people.next_place[moves, older] = people.next_place[moves, older - 1]
    people.recent[user, 0] = line
    people.next_place[user, 0] = place + 1


def _readme(users: int, items: int, interactions: int, seed: int) -> str:
    about = (__doc__ or "").partition("\n")[2].strip()
    return (
        f"# A sample store\n\n{users:,} users, {items:,} items, {interactions:,} interactions, generated with seed "
        f"{seed}. Nothing in it is real.\n\n- `interactions.csv`: user_id, item_id, timestamp (UTC), rating\n"
        f"- `items.csv`: item_id, title, department, price\n\n{about}\n"
    )
