"""From a request to jobs for the model and back to an answer; HTTP stays outside."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from catalign.catalogue.filters import Filters
from catalign.decoding.prompt_states import PromptStates
from catalign.decoding.recommend import CatalogueSearch
from catalign.errors import UserError
from catalign.explain.explanation import Explanation, as_explanation
from catalign.serving.batcher import Batcher, Job, QueueFull
from catalign.serving.jobs import ExplainJob, RankJob, Scored, SearchJob
from catalign.serving.live import LiveCatalogue, Update, Version
from catalign.serving.problems import Problem
from catalign.serving.settings import ServiceSettings
from catalign.serving.telemetry import Telemetry
from catalign.serving.variants import Variant, choose_variant

BEAMS = 10
UPDATE_THREADS = 32  # updates that can be made into one version
SUGGESTED_FOR = 200  # characters of an unknown name that suggestions are looked up for


class Service:
    """Runs in service, their catalogue, and the thread that runs the model.

    Attributes:
        variants: the runs.
        live: the catalogue.
        telemetry: counters.
        ready: whether requests are answered.
    """

    def __init__(self, variants: Sequence[Variant], settings: ServiceSettings) -> None:
        self.variants, self.settings = variants, settings
        self.telemetry = Telemetry()
        each = int(settings.prompt_cache_mb * 2**20 / len(variants))
        self._states = {variant.name: PromptStates(each) for variant in variants} if each else {}
        self.live = LiveCatalogue(variants, settings.batch_size, self._states, settings.score)
        self._batcher = Batcher(
            max_wait=settings.max_wait_ms / 1000,
            batch_size=settings.batch_size,
            queue_size=settings.queue_size,
            watch=self.telemetry.batch,
        )
        self._updating = ThreadPoolExecutor(UPDATE_THREADS, thread_name_prefix="catalign-update")
        self._updates = 0
        self.ready = False

    async def warm_up(self) -> None:
        """Ask every run once, so that the first caller does not wait for what happens once."""
        version = self.live.current
        for variant in self.variants:
            search = version.search(variant.name, beams=BEAMS, exclude_history=True, filters={})
            await self._batcher.submit(SearchJob(search, [0], [], 1))
        self.ready = True

    def close(self) -> None:
        """Take no more work and finish what was taken."""
        self.ready = False
        self._updating.shutdown(wait=True)
        self._batcher.close()

    def variant(self, name: str | None, key: str) -> Variant:
        """The run asked for by name, else the one that the key decides.

        Raises:
            Problem: no run in service has this name; a name is compared with theirs and is never a path.
        """
        if name is None:
            return choose_variant(self.variants, key)
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = ", ".join(variant.name for variant in self.variants)
        raise Problem(422, "unknown-variant", f"no such variant; there are {names}")

    async def resolve(self, version: Version, names: Sequence[str], where: str) -> list[int]:
        """Item indices of ids or titles.

        Raises:
            Problem: the catalogue does not have one of them; with titles like it.
        """
        found = [version.catalogue.find(name) for name in names]
        items = [item for item in found if item is not None]
        if len(items) < len(found):
            name = names[found.index(None)][:SUGGESTED_FOR]
            near = await asyncio.to_thread(version.catalogue.nearest_titles, name)
            detail = f'{where}: no item has the id or title "{name}"'
            raise Problem(422, "unknown-item", detail, suggestions=near)
        return items

    async def history(self, version: Version, names: Sequence[str], *, skip: bool) -> tuple[list[int], list[str]]:
        """Item indices of a history, and the names that were skipped because nobody knows them.

        Raises:
            Problem: an unknown item that is not to be skipped, or nothing else.
        """
        if not skip:
            return await self.resolve(version, names, "history"), []
        found = [version.catalogue.find(name) for name in names]
        items = [item for item in found if item is not None]
        if not items:
            raise Problem(422, "unknown-item", "history: the catalogue has none of its items", suggestions=[])
        return items, [name for name, item in zip(names, found, strict=True) if item is None]

    async def recommend(
        self,
        version: Version,
        variant: Variant,
        history: list[int],
        k: int,
        *,
        filters: Filters,
        excluded: list[int],
        exclude_history: bool,
    ) -> tuple[Scored, str | None]:
        """The best open items and, where they are fewer than `k`, why.

        Raises:
            Problem: `k` is above the limit.
            UserError: the filters do not fit the catalogue.
        """
        if k > self.settings.max_k:
            raise Problem(422, "invalid-request", f"k is above the limit of {self.settings.max_k}",
                          errors=[{"pointer": "/k", "detail": f"at most {self.settings.max_k}"}])  # fmt: skip
        titles = version.searches[variant.name].prompter.trie.titles
        asked: dict[str, Any] = {"beams": min(max(BEAMS, k), titles), "exclude_history": exclude_history}
        if filters:  # a new filter takes a pass over the catalogue
            search = await asyncio.to_thread(version.search, variant.name, **asked, filters=filters)
        else:
            search = version.search(variant.name, **asked, filters=filters)
        open_items = int(version.open_items(filters).sum())
        if open_items == 0:
            return [], "no available item passes the filters" if filters else "no item is available"
        found: Scored = await self._answer(SearchJob(search, history, excluded, k))
        if len(found) == k:
            return found, None
        whose = "pass the filters" if filters else "are available"
        return found, f"{open_items} items {whose}, of which {len(found)} are not excluded"

    async def rank(self, version: Version, variant: Variant, history: list[int], candidates: list[int]) -> Scored:
        """The candidates, best first; equal ones in the order given.

        Raises:
            UserError: a candidate named twice.
        """
        if len(set(candidates)) < len(candidates):
            raise UserError("an item is named twice", where="candidates", mend="name each candidate once")
        found: Scored = await self._answer(RankJob(self._default(version, variant), history, candidates))
        return sorted(found, key=lambda scored: -scored[1])

    async def explain(
        self, version: Version, variant: Variant, history: list[int], item: int, instead_of: int | None
    ) -> Explanation:
        """What each item of the history moved.

        Raises:
            UserError: see `explain.explanation.explain`.
        """
        items = [item] if instead_of is None else [item, instead_of]
        job = ExplainJob(self._default(version, variant), history, items)
        return as_explanation(version.catalogue, await self._answer(job))

    async def update(self, update: Update) -> Version:
        """Change the catalogue; see `LiveCatalogue.update`.

        Raises:
            QueueFull: too many updates are waiting.
            UserError: the update cannot be made.
        """
        if self._updates >= self.settings.queue_size:
            raise QueueFull
        self._updates += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._updating, self.live.update, update)
        finally:
            self._updates -= 1

    def metrics(self) -> bytes:
        """All metrics as text."""
        version = self.live.current
        self.telemetry.queue.set(self._batcher.waiting)
        self.telemetry.version.set(version.number)
        self.telemetry.items.set(len(version.catalogue))
        for name, states in self._states.items():
            self.telemetry.prompt_states(name, states)
        return self.telemetry.text()

    def _default(self, version: Version, variant: Variant) -> CatalogueSearch:
        """The search that says which model and catalogue rankings and explanations are of."""
        return version.searches[variant.name]

    async def _answer(self, job: Job) -> Any:
        """What the model says, within the time there is."""
        async with asyncio.timeout(self.settings.timeout_s):
            return await self._batcher.submit(job)
