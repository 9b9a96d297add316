"""The public data sets that `catalign data fetch` knows: where their publishers have them, and on what terms."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from catalign.errors import UserError

_GROUPLENS = "https://files.grouplens.org/datasets"
_UCSD = "https://mcauleylab.ucsd.edu/public_datasets/data"
_MOVIELENS_TERMS = "non-commercial; may not be passed on"
_MOVIELENS_OPEN_TERMS = "non-commercial; may be passed on, same terms"
_LASTFM_TERMS = "non-commercial"
_UCSD_TERMS = "no licence stated; please cite"


@dataclass(frozen=True)
class PublicFile:
    """A file as its publisher offers it.

    Attributes:
        url: the official address.
        bytes: the size, if it never changes.
        md5: as the publisher states it; None: it states none.
    """

    url: str
    bytes: int | None = None
    md5: str | None = None

    @property
    def name(self) -> str:
        """The last part of the address."""
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True)
class PublicSet:
    """A data set.

    Attributes:
        name: for the command line.
        files: what is downloaded.
        about: what is in it.
        size: of the download, in words.
        terms: of use, in short; the publisher's page has them whole.
        page: the publisher's page.
    """

    name: str
    files: tuple[PublicFile, ...]
    about: str
    size: str
    terms: str
    page: str


SETS = {
    found.name: found
    for found in (
        PublicSet(
            "movielens-latest-small",
            (PublicFile(f"{_GROUPLENS}/movielens/ml-latest-small.zip"),),  # GroupLens renews it from time to time
            "610 people, 9,742 films, 100,836 ratings", "1 MB", _MOVIELENS_OPEN_TERMS,
            "https://grouplens.org/datasets/movielens/latest/",
        ),
        PublicSet(
            "movielens-100k",
            (PublicFile(f"{_GROUPLENS}/movielens/ml-100k.zip", 4_924_029, "0e33842e24a9c977be4e0107933c0723"),),
            "943 people, 1,682 films, 100,000 ratings", "5 MB", _MOVIELENS_TERMS,
            "https://grouplens.org/datasets/movielens/100k/",
        ),
        PublicSet(
            "movielens-1m",
            (PublicFile(f"{_GROUPLENS}/movielens/ml-1m.zip", md5="c4d9eecfca2ab87c1945afe126590906"),),
            "6,040 people, 3,883 films, 1,000,209 ratings", "6 MB", _MOVIELENS_TERMS,
            "https://grouplens.org/datasets/movielens/1m/",
        ),
        PublicSet(
            "movielens-25m",
            (PublicFile(f"{_GROUPLENS}/movielens/ml-25m.zip", 261_978_986, "6b51fb2759a8657d3bfcbfc42b592ada"),),
            "162,541 people, 62,423 films, 25,000,095 ratings", "262 MB", _MOVIELENS_OPEN_TERMS,
            "https://grouplens.org/datasets/movielens/25m/",
        ),
        PublicSet(
            "lastfm-hetrec",
            (PublicFile(f"{_GROUPLENS}/hetrec2011/hetrec2011-lastfm-2k.zip"),),
            "1,892 people, 17,632 artists, 92,834 listening counts, 186,479 tags", "3 MB", _LASTFM_TERMS,
            "https://grouplens.org/datasets/hetrec-2011/",
        ),
        PublicSet(
            "steam",
            (PublicFile(f"{_UCSD}/steam/steam_reviews.json.gz"), PublicFile(f"{_UCSD}/steam/steam_games.json.gz")),
            "2,567,538 people, 15,474 games, 7,793,069 reviews", "1.3 GB", _UCSD_TERMS,
            "https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
        ),
    )
}  # fmt: skip
"""Name -> data set."""

_SHARED_CATEGORIES = (
    "All_Beauty", "Appliances", "Arts_Crafts_and_Sewing", "Automotive", "Books", "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry", "Digital_Music", "Electronics", "Gift_Cards",
    "Grocery_and_Gourmet_Food", "Home_and_Kitchen", "Industrial_and_Scientific", "Kindle_Store",
    "Magazine_Subscriptions", "Movies_and_TV", "Musical_Instruments", "Office_Products", "Patio_Lawn_and_Garden",
    "Pet_Supplies", "Software", "Sports_and_Outdoors", "Tools_and_Home_Improvement", "Toys_and_Games", "Video_Games",
)  # fmt: skip


@dataclass(frozen=True)
class PublicFamily:
    """A data set in parts: `{category}` in the addresses stands for one of them.

    Attributes:
        name: what stands before the colon on the command line.
        urls: of the reviews and the metadata.
        categories: the parts.
        about, size, terms, page: as of a `PublicSet`.
    """

    name: str
    urls: tuple[str, ...]
    categories: tuple[str, ...]
    about: str
    size: str
    terms: str
    page: str

    def part(self, category: str) -> PublicSet:
        """Return the data set of one category."""
        files = tuple(PublicFile(url.format(category=category)) for url in self.urls)
        return PublicSet(f"{self.name}:{category}", files, self.about, self.size, self.terms, self.page)


FAMILIES = {
    found.name: found
    for found in (
        PublicFamily(
            "amazon-2018",
            (
                f"{_UCSD}/amazon_v2/categoryFilesSmall/{{category}}_5.json.gz",
                f"{_UCSD}/amazon_v2/metaFiles2/meta_{{category}}.json.gz",
            ),
            tuple(sorted((*_SHARED_CATEGORIES, "AMAZON_FASHION", "Luxury_Beauty", "Prime_Pantry"))),
            "reviews of one category (5-core) and the metadata of its products", "up to several GB", _UCSD_TERMS,
            "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
        ),
        PublicFamily(
            "amazon-2023",
            (
                f"{_UCSD}/amazon_2023/raw/review_categories/{{category}}.jsonl.gz",
                f"{_UCSD}/amazon_2023/raw/meta_categories/meta_{{category}}.jsonl.gz",
            ),
            tuple(sorted((
                *_SHARED_CATEGORIES, "Amazon_Fashion", "Baby_Products", "Beauty_and_Personal_Care", "Handmade_Products",
                "Health_and_Household", "Health_and_Personal_Care", "Subscription_Boxes", "Unknown",
            ))),
            "all reviews of one category and the metadata of its products", "up to several GB", _UCSD_TERMS,
            "https://amazon-reviews-2023.github.io/",
        ),
    )
}  # fmt: skip
"""Name -> data set in parts."""


def find_set(name: str) -> PublicSet:
    """Return the data set called `name`, as `movielens-1m` or `amazon-2023:Gift_Cards`.

    Raises:
        UserError: there is none.
    """
    family, _, category = name.partition(":")
    if family in FAMILIES:
        known = FAMILIES[family].categories
        exact = next((other for other in known if other.lower() == category.lower()), None)
        if exact is None:
            what = f"has no category {category!r}" if category else "comes in categories"
            raise UserError(what, where=family, mend=f"write {family}:CATEGORY, one of {', '.join(known)}")
        return FAMILIES[family].part(exact)
    if name not in SETS:
        known = (*SETS, *(f"{other}:CATEGORY" for other in FAMILIES))
        raise UserError(f"there is no public data set {name!r}", mend=f"choose from {', '.join(known)}")
    return SETS[name]
