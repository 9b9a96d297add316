"""What requests and answers hold; the OpenAPI document is made of this."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from catalign.catalogue.filters import Condition

Name = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
MOST_ITEMS = 1000  # in one request, whatever the list


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [fields]})


class Asked(BaseModel):
    """What requests about a person have in common."""

    model_config = ConfigDict(extra="forbid", strict=True)

    history: list[Name] = Field(
        min_length=1, max_length=MOST_ITEMS, description="item ids or titles, the oldest first; the last ones count"
    )
    unknown_items: Annotated[str, StringConstraints(pattern="^(refuse|skip)$")] = Field(
        default="refuse",
        description="what to do about a history item that the catalogue does not have: refuse the request, or skip it "
        "and say so",
    )
    user: Name | None = Field(default=None, description="who it is for: the same user gets the same variant")
    variant: Name | None = Field(default=None, description="ask this run and no other")


class RecommendRequest(Asked):
    """Recommend items to a person."""

    model_config = _example(
        history=["red lamp", "blue kettle"], k=5, filters={"price": {"max": 20}, "department": ["Kitchen", "Garden"]}
    )

    k: int = Field(default=10, ge=1, description="how many items")
    filters: dict[Name, Condition] = Field(
        default_factory=dict,
        max_length=20,
        description="columns of the catalogue, and for each a value, a list of values, or a range with min and max",
    )
    exclude: list[Name] = Field(
        default_factory=list, max_length=MOST_ITEMS, description="ids or titles never to recommend to this person"
    )
    exclude_history: bool = Field(default=True, description="leave out what the person has")


class SimilarRequest(BaseModel):
    """Items like one: what the model expects next to it."""

    model_config = _example(item="red lamp", k=5)

    item: Name = Field(description="id or title")
    k: int = Field(default=10, ge=1, description="how many items")
    filters: dict[Name, Condition] = Field(default_factory=dict, max_length=20, description="as in /v1/recommend")
    variant: Name | None = Field(default=None, description="ask this run and no other")


class RankRequest(Asked):
    """Rank given items for a person."""

    model_config = _example(history=["red lamp"], candidates=["blue lamp", "blue kettle"])

    candidates: list[Name] = Field(min_length=1, max_length=MOST_ITEMS, description="item ids or titles, each once")


class ExplainRequest(Asked):
    """Say what each item of a history moved."""

    model_config = _example(history=["red lamp", "blue kettle"], item="blue lamp", instead_of="green kettle")

    item: Name = Field(description="the item to explain, by id or title")
    instead_of: Name | None = Field(default=None, description="why not this one: another item to compare it with")


class AddedItem(BaseModel):
    """An item to add."""

    model_config = ConfigDict(extra="forbid", strict=True)

    item_id: Name = Field(description="a new id")
    title: Name = Field(description="cleaned as titles of data sets are; it is data and never read as anything else")
    metadata: dict[Name, Any] = Field(default_factory=dict, description="values of columns that the catalogue has")
    available: bool = Field(default=True, description="whether it may be recommended at once")


class ItemsRequest(BaseModel):
    """Change the catalogue, whole or not at all: retire, then add, then set availability."""

    model_config = _example(
        add=[{"item_id": "i900", "title": "orange lamp"}], retire=["i007"], available={"i003": False}
    )

    add: list[AddedItem] = Field(default_factory=list, max_length=MOST_ITEMS, description="items to add")
    retire: list[Name] = Field(
        default_factory=list, max_length=MOST_ITEMS, description="ids of items that leave the catalogue altogether"
    )
    available: dict[Name, bool] = Field(
        default_factory=dict, max_length=MOST_ITEMS,
        description="id to whether the item may be recommended; in histories it may stand either way",
    )  # fmt: skip


class Answered(BaseModel):
    """What answers about a person have in common."""

    variant: str = Field(description="the run that answered")
    catalogue_version: int = Field(description="the version of the catalogue that was asked")
    skipped: list[str] = Field(default_factory=list, description="history items that the catalogue does not have")


class RecommendedItem(BaseModel):
    """One recommended item."""

    item_id: str
    title: str
    probability: float = Field(description="that the model answers with this title; items of one title share it")


class RecommendAnswer(Answered):
    """Recommended items, best first."""

    items: list[RecommendedItem]
    note: str | None = Field(default=None, description="why there are fewer than asked for")


class RankedItem(BaseModel):
    """One candidate in its place."""

    item_id: str
    title: str
    log_probability: float = Field(description="of its title, exact")


class RankAnswer(Answered):
    """The candidates, best first."""

    items: list[RankedItem]


class ContributionBody(BaseModel):
    """What one history item moved."""

    item_id: str
    title: str
    moved: float = Field(description="by how much it raised (above 0) or lowered the log-probability")
    contrast: float | None = Field(description="how much it speaks for the item rather than the other one")


class ExplainAnswer(Answered):
    """Why an item, and why not another; the contributions are those of the items that the prompt shows."""

    item_id: str
    title: str
    log_probability: float
    instead_of: str | None
    margin: float | None = Field(description="log-probability of the item less that of the other one")
    contributions: list[ContributionBody]


class ItemsAnswer(BaseModel):
    """The catalogue after a change."""

    catalogue_version: int
    items: int = Field(description="in the catalogue")
    available: int = Field(description="that may be recommended")


class CatalogueItem(BaseModel):
    """One item as the catalogue has it."""

    item_id: str
    title: str
    available: bool
    metadata: dict[str, Any] = Field(description="its values in the columns that filters can name")


class FoundItems(BaseModel):
    """Items whose title holds a text, the most popular first; or those asked for by id."""

    catalogue_version: int
    items: list[CatalogueItem]


class ColumnValue(BaseModel):
    """A value of a column."""

    value: str | bool
    items: int = Field(description="available items that have it")


class Column(BaseModel):
    """A column of the catalogue that filters can name, and what the available items have in it."""

    name: str
    kind: Literal["text", "number", "boolean"]
    several: bool = Field(description="an item has a list of them")
    distinct: int = Field(description="different values")
    values: list[ColumnValue] = Field(default_factory=list, description="the most common ones first; none of numbers")
    min: float | None = Field(default=None, description="of numbers")
    max: float | None = Field(default=None, description="of numbers")


class About(BaseModel):
    """What can be asked here."""

    version: str = Field(description="of catalign")
    catalogue_version: int
    items: int = Field(description="in the catalogue")
    available: int = Field(description="that may be recommended")
    columns: list[Column] = Field(description="that filters can name")
    variants: dict[str, float] = Field(description="run to its share of the requests")
    max_k: int = Field(description="most items asked for at once")


class Health(BaseModel):
    """How the service is."""

    status: str
    catalogue_version: int
    variants: dict[str, float] = Field(description="run to its share of the requests")
