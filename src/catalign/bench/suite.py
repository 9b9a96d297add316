"""What a suite is: data sets x methods x seeds in one YAML file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from catalign.baselines.methods import METHODS
from catalign.errors import UserError
from catalign.files import read_yaml
from catalign.training.recipe import choose_from, find_objective, make_recipe

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]*$")]
"""Of a data set, model or method: a folder has it too."""


class Part(BaseModel):
    """What all parts have in common: names that are not known are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Prepare(Part):
    """Options of `catalign data prepare`, by the same names."""

    train_file: str | None = None
    name: str | None = None
    history: int | None = Field(default=None, ge=1)
    min_history: int | None = Field(default=None, ge=1)
    min_rating: float | None = None
    k_core: int | None = Field(default=None, ge=0)
    split: Literal["chronological", "leave-one-out"] | None = None
    duplicate_titles: Literal["keep", "merge", "distinguish"] | None = None


class Shop(Part):
    """The generated sample store instead of data."""

    users: int = Field(default=2_000, ge=10)
    items: int = Field(default=500, ge=10)


class Data(Part):
    """A data set.

    Attributes:
        source: a folder in a known layout, or a dataset folder, below the folder of data.
        shop: or the generated store.
        prepare: how the dataset is made of the source.
        recipe: what every recipe says on this data set; it goes before what methods say.
        without: methods that are no rows here, such as one that needs times where there are none; the board tells it.
    """

    source: str | None = None
    shop: Shop | None = None
    prepare: Prepare = Prepare()
    recipe: dict[str, Any] = {}
    without: list[Name] = []

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.source is None) == (self.shop is None):
            raise ValueError("either a source or a shop")
        return self


class Model(Part):
    """An embedded model, made anew for every data set and seed: options of `catalign model init`."""

    preset: Literal["tiny", "small", "base"] = "small"
    phrases: bool = False
    epochs: int = Field(default=1, ge=0)
    titles_only: bool = False


class Budget(Part):
    """What a baseline may spend on its hyper-parameters, the same for all: options of `catalign baseline`."""

    trials: int = Field(default=6, ge=1)
    seconds: float | None = Field(default=None, ge=1)
    epochs: int = Field(default=100, ge=1)
    patience: int = Field(default=3, ge=1)


class Method(Part):
    """A row: one of `baseline`, `model` (supervised fine-tuning starts there) or `after` (a further stage).

    Attributes:
        baseline: a method of `catalign baseline`.
        model: one of the suite's models.
        after: another method of the suite, whose run of the same seed is gone on from.
        recipe: what a recipe of `catalign train` says beyond dataset, model, `from` and seed.
        item_embeddings_from: a baseline of the suite, whose embeddings of the same seed stand in the prompt.
        seeds: instead of the suite's.
    """

    baseline: str | None = None
    model: Name | None = None
    after: Name | None = None
    recipe: dict[str, Any] = {}
    item_embeddings_from: Name | None = None
    seeds: list[int] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(place is not None for place in (self.baseline, self.model, self.after)) != 1:
            raise ValueError("one of baseline, model and after")
        if self.baseline is not None and self.baseline not in METHODS:
            raise ValueError(f"no such baseline: {self.baseline}; {choose_from(self.baseline, list(METHODS))}")
        if self.baseline is not None and (self.recipe or self.item_embeddings_from):
            raise ValueError("a baseline has no recipe and takes no item embeddings")
        return self


class Suite(Part):
    """Data sets x methods x seeds.

    Attributes:
        name: heading of the leaderboard.
        about: a sentence or more below it.
        data: data sets.
        models: embedded models that methods start from.
        methods: rows, in the order of the tables.
        seeds: of every method that names none.
        recipe: what every recipe says unless its method or data set says otherwise.
        budget: of every baseline.
        metrics: of the tables; the first decides.
        by: tables of slices.
        reference: method that the others are compared with; absent, the best.
        floor: whether popularity and item-kNN are rows too.
    """

    name: str
    about: str = ""
    data: dict[Name, Data] = Field(min_length=1)
    models: dict[Name, Model] = {}
    methods: dict[Name, Method] = Field(min_length=1)
    seeds: list[int] = Field(default=[0], min_length=1)
    recipe: dict[str, Any] = {}
    budget: Budget = Budget()
    metrics: list[str] = Field(default=["ndcg@10", "hr@10"], min_length=1)
    by: list[str] = []
    reference: Name | None = None
    floor: bool = True

    def seeds_of(self, name: str) -> list[int]:
        """The seeds of a method."""
        return self.methods[name].seeds or self.seeds

    def methods_on(self, data: str) -> list[str]:
        """The rows of a data set."""
        return [name for name in self.methods if name not in self.data[data].without]

    def fields_of(self, name: str, data: str) -> dict[str, Any]:
        """What the recipe of a method says on a data set; the data set has the last word."""
        return {**self.recipe, **self.methods[name].recipe, **self.data[data].recipe}

    def chain(self, name: str) -> list[str]:
        """The methods that one goes on from, the first stage first, itself last.

        Raises:
            ValueError: one of them is no method, or the chain has no beginning.
        """
        chain = [name]
        while (before := self.methods[chain[0]].after) is not None:
            _known(before, self.methods, f"methods.{chain[0]}.after")
            if before in chain:
                raise ValueError(f"methods.{name}.after: {before} goes on from itself")
            chain.insert(0, before)
        return chain

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.reference is not None:
            _known(self.reference, self.methods, "reference")
        for name, part in self.data.items():
            for method_name in part.without:
                _known(method_name, self.methods, f"data.{name}.without")
        for name, method in self.methods.items():
            if method.model is not None:
                _known(method.model, self.models, f"methods.{name}.model")
            needed = [method.after] if method.after is not None else []
            if len(self.chain(name)) > 1 and self.methods[self.chain(name)[0]].baseline is not None:
                raise ValueError(f"methods.{name}.after: a baseline is no run to go on from")
            if (source := method.item_embeddings_from) is not None:
                _known(source, self.methods, f"methods.{name}.item_embeddings_from")
                if self.methods[source].baseline is None:
                    raise ValueError(f"methods.{name}.item_embeddings_from: {source} is no baseline")
                needed.append(source)
            for other in needed:
                lacking = set(self.seeds_of(name)) - set(self.seeds_of(other))
                if lacking:
                    raise ValueError(f"methods.{name}: {other} has no run of seed {min(lacking)}")
        return self


_KINDS: dict[str, type[Part]] = {
    "": Suite, "data": Data, "models": Model, "methods": Method, "budget": Budget, "prepare": Prepare, "shop": Shop,
}  # fmt: skip


def load_suite(path: Path) -> Suite:
    """Read a suite and check all of it, the recipes of its methods too.

    Raises:
        UserError: no such file, no YAML, an unknown name (with the nearest), or parts that do not go together.
    """
    fields = read_yaml(path, "suite")
    try:
        suite = Suite.model_validate(fields)
    except ValidationError as error:
        raise _told(error.errors()[0], path) from error
    for name, method in suite.methods.items():
        for data in suite.data if method.baseline is None else ():
            fields = _inherited(suite, method, data) | suite.fields_of(name, data)
            _check_recipe(fields, f"{path}, {name} on {data}", first=method.after is None)
    return suite


def _inherited(suite: Suite, method: Method, data: str) -> dict[str, Any]:
    """What a stage takes over from the method it goes on from, as `catalign train --from` does: adapter, objective."""
    if method.after is None:
        return {}
    before = _inherited(suite, suite.methods[method.after], data) | suite.fields_of(method.after, data)
    of_titles = before.get("stage", "sft") != "preference" and method.recipe.get("stage") == "soft"
    return {name: before[name] for name in ("lora", *(["objective"] if of_titles else [])) if name in before}


def _check_recipe(fields: dict[str, Any], where: str, *, first: bool) -> None:
    """Refuse what `catalign train` would refuse, before anything runs; what the suite puts in stands in for itself."""
    own = ("dataset", "model", "from", "source", "seed", "item_embeddings")
    named = [name for name in own if name in fields]
    if named:
        raise UserError(f"{named[0]} is put in by the suite", where=where, mend="leave it out")
    stage = fields.get("stage", "sft")
    if first != (stage == "sft"):
        mend = "name a model and no other stage" if stage == "sft" else "name the method before it with after"
        raise UserError(f"the stage {stage} {'goes on from a method' if first else 'begins'}", where=where, mend=mend)
    if isinstance(fields.get("objective"), str):
        fields = {**fields, "objective": find_objective(fields["objective"], str(stage), where=where)}
    made = {"dataset": "ds", "model": "lm", **({} if first else {"from": "run"})}
    make_recipe({**fields, **made}, where=where)


def _known(name: str, names: Iterable[str], where: str) -> None:
    if name not in names:
        raise ValueError(f"{where}: no such name: {name}; {choose_from(name, list(names)) or 'there is none'}")


def _told(error: Any, path: Path) -> UserError:
    """A line for what pydantic found first."""
    place = [str(part) for part in error["loc"] if part != "[key]"]
    if error["type"] == "extra_forbidden":
        part = "" if len(place) == 1 else place[2] if len(place) == 4 else place[0]
        known = list(_KINDS[part].model_fields)
        return UserError(f"unknown name {'.'.join(place)}", where=path, mend=choose_from(place[-1], known))
    if error["type"] == "value_error":
        prefix = f"{'.'.join(place)}: " if place else ""
        return UserError(prefix + error["msg"].removeprefix("Value error, "), where=path)
    if not place:
        return UserError("is not a suite: a mapping of names to values is expected", where=path)
    if error["type"] == "missing":
        return UserError(f"no {'.'.join(place)} given", where=path)
    given = str(error["input"])
    shown = given if len(given) < 60 else f"{given[:57]}..."
    return UserError(
        f"{'.'.join(place)} is {shown}", where=path, mend=error["msg"].replace("Input should", "it should")
    )
