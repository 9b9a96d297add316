"""The departments of the sample store and the titles of what they sell."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Department:
    """A part of the shop.

    Attributes:
        name: as shown.
        unit: what one item of a series is called, or what the device is.
        nouns: second words of its names.
        shortest, longest: items in a line.
        platforms: its items exist once per platform.
        accessories: what follows the device; empty for series.
    """

    name: str
    unit: str
    nouns: tuple[str, ...]
    shortest: int
    longest: int
    platforms: bool = False
    accessories: tuple[str, ...] = ()


PLATFORMS = ("Orbit One", "Pocket Play", "Home PC")

ADJECTIVES = (
    "Amber", "Silent", "Crimson", "Broken", "Hidden", "Golden", "Winter", "Hollow", "Velvet", "Distant", "Burning",
    "Paper", "Iron", "Midnight", "Glass", "Wandering", "Scarlet", "Forgotten", "Emerald", "Restless", "Copper", "Quiet",
    "Savage", "Painted", "Northern", "Ivory", "Thirteenth", "Crooked", "Shining", "Salted",
)  # fmt: skip

BRANDS = (
    "Aldora", "Brevik", "Calyx", "Dunmore", "Eastlake", "Fenwick", "Galvano", "Hestia", "Ilmari", "Jorvik", "Kestrel",
    "Lumina", "Marlow", "Nordal", "Oakhurst", "Pellucid", "Quantro", "Ravello", "Solvang", "Tarn",
)  # fmt: skip

PLACES = (
    "Arden", "Brask", "Corvane", "Dellmoor", "Esk", "Fallow", "Gray Harbour", "Halden", "Isenfeld", "Juniper Bay",
    "Kell", "Lorne", "Mirador", "Nine Wells", "Orrin", "Pale Coast", "Quill", "Rowan Hill", "Sable", "Thorn",
    "Umber", "Vantry", "Westmark", "Yarrow", "Zell",
)  # fmt: skip

DEPARTMENTS = (
    Department("Fantasy", "Book", ("Dragon", "Throne", "Sorcerer", "Rune", "Griffin", "Crown", "Oracle"), 5, 9),
    Department("Mystery", "Case", ("Alibi", "Witness", "Inspector", "Motive", "Cipher", "Verdict", "Widow"), 5, 9),
    Department("Space", "Volume", ("Nebula", "Starship", "Colony", "Comet", "Android", "Signal", "Eclipse"), 4, 8),
    Department("Manga", "Chapter", ("Ronin", "Petal", "Kitsune", "Blade", "Ramen Club", "Academy", "Lotus"), 6, 10),
    Department("Racing", "Part", ("Circuit", "Drift", "Rally", "Turbo", "Grand Prix"), 3, 5, platforms=True),
    Department("Strategy", "Part", ("Empire", "Dynasty", "Siege", "Frontier", "Conquest"), 3, 5, platforms=True),
    Department(
        "Photography", "Camera", ("Aperture 200", "Vista 35", "Shutter X", "Field 8", "Studio 40", "Optic 7"), 4, 6,
        accessories=("Spare Battery", "Memory Card", "Shoulder Bag", "Travel Tripod", "Lens Cleaning Kit"),
    ),
    Department(
        "Coffee", "Espresso Machine", ("Barista 2", "Crema Pro", "Roma 15", "Aroma Plus", "Torino 9", "Moka 3"), 4, 6,
        accessories=("Water Filter", "Milk Jug", "Descaling Kit", "Tamper Set", "Coffee Grinder"),
    ),
    Department(
        "Cycling", "City Bike", ("Glide 28", "Urban 7", "Breeze 3", "Commute 21", "Swift 11", "Harbour 5"), 4, 6,
        accessories=("Front Light", "Frame Lock", "Luggage Rack", "Rain Cover", "Repair Kit"),
    ),
    Department(
        "Sound", "Headphones", ("Echo 50", "Tempo S", "Bassline 4", "Clarity 9", "Studio Air", "Pulse 12"), 4, 6,
        accessories=("Ear Pads", "Carrying Case", "Audio Cable", "Desk Stand", "Charging Dock"),
    ),
)  # fmt: skip

SHELVES = tuple(
    (department, platform) for department in DEPARTMENTS for platform in (PLATFORMS if department.platforms else ("",))
)
"""Every department, once per platform where it has platforms."""


def line_names(department: Department, number: Integers) -> pl.Series:
    """Name the lines of a department by their number: distinct names for distinct numbers, without end.

    Args:
        department: gives the nouns; a brand or an adjective goes before them.
        number: [lines], from 0.
    """
    nouns, before = np.array(department.nouns), np.array(BRANDS if department.accessories else ADJECTIVES)
    pairs = nouns.size * before.size
    round_, pair = np.divmod(number, pairs)
    # 37 shares no divisor with the number of pairs: a walk over all of them whose neighbours share no word.
    pair = (pair * 37 + 11 * DEPARTMENTS.index(department)) % pairs
    names = pl.Series(before[pair % before.size]) + " " + pl.Series(nouns[pair // before.size])
    place = np.where(round_ > 0, np.char.add(" of ", np.array(PLACES)[(round_ - 1) % len(PLACES)]), "")
    again = (round_ - 1) // len(PLACES)
    return names + pl.Series(place) + pl.Series(np.where(again > 0, np.char.add(" ", (again + 1).astype(str)), ""))


def item_titles(department: Department, platform: str, names: pl.Series, place: Integers) -> pl.Series:
    """Write the titles of the items of one shelf.

    Args:
        department, platform: the shelf.
        names: [items], the name of each item's line.
        place: [items], the place of each item in its line, from 0.
    """
    number = pl.Series(place + 1).cast(pl.String)
    if platform:
        return names + " " + number + f" - {platform}"
    if not department.accessories:
        return "The " + names + f", {department.unit} " + number
    accessories = pl.Series(("", *department.accessories)).gather(place) + " for " + names
    return accessories.zip_with(pl.Series(place > 0), names + f" {department.unit}")
