"""The HTTP interface."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPBearer

import catalign
from catalign.serving import problems
from catalign.serving.columns import columns_of, values_of
from catalign.serving.guard import Guard
from catalign.serving.keys import Key
from catalign.serving.live import NewItem, Update, Version
from catalign.serving.playground import add_page
from catalign.serving.problems import Problem, ProblemBody
from catalign.serving.schemas import (
    About,
    Asked,
    CatalogueItem,
    ExplainAnswer,
    ExplainRequest,
    FoundItems,
    Health,
    ItemsAnswer,
    ItemsRequest,
    RankAnswer,
    RankedItem,
    RankRequest,
    RecommendAnswer,
    RecommendedItem,
    RecommendRequest,
    SimilarRequest,
)
from catalign.serving.service import Service
from catalign.serving.variants import Variant

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ProblemBody, "description": "The body is not JSON."},
    401: {"model": ProblemBody, "description": "No key, or an unknown one."},
    408: {"model": ProblemBody, "description": "The body took too long to arrive."},
    413: {"model": ProblemBody, "description": "The body is too large."},
    422: {"model": ProblemBody, "description": "The request cannot be answered as it is."},
    503: {"model": ProblemBody, "description": "Too many requests are waiting; Retry-After says when to come back."},
    504: {"model": ProblemBody, "description": "The answer took too long."},
}
MAY_NOT: dict[int | str, dict[str, Any]] = {403: {"model": ProblemBody, "description": "This key may not do that."}}
MOST_FOUND = 100


def create_app(service: Service, keys: list[Key] | None = None) -> FastAPI:
    """The application around a service.

    Args:
        service: closed when the application shuts down, after the last answer.
        keys: who may use `/v1/`; None lets everybody in.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.warm_up()
        yield
        service.close()

    app = FastAPI(
        title="catalign",
        version=catalign.__version__,
        description="Recommendations from one's own catalogue by a fine-tuned language model.",
        lifespan=lifespan,
        docs_url=None,  # those pages load scripts of third parties
        redoc_url=None,
    )
    problems.install(app)
    settings = service.settings
    app.add_middleware(Guard, settings=settings, telemetry=service.telemetry, keys=keys)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )  # fmt: skip
    _add_questions(app, service)
    _add_catalogue(app, service)
    _add_operations(app, service)
    add_page(app)
    _describe_problems(app)
    return app


_KEY = Depends(HTTPBearer(auto_error=False, description="Needed where the service was started with keys."))


def _add_questions(app: FastAPI, service: Service) -> None:
    """What a shop asks about a person or an item."""

    def asked_variant(request: Request, body: Asked | SimilarRequest, user: str | None) -> Variant:
        log = request.state.log
        variant = service.variant(body.variant, user or request.state.request_id)
        log["variant"] = variant.name
        service.telemetry.answers.labels(variant.name).inc()
        if service.settings.log_histories:
            log["asked"] = body.model_dump(exclude_defaults=True)
        return variant

    async def about_person(request: Request, body: Asked) -> tuple[Version, Variant, list[int], dict[str, Any]]:
        """Version, variant, history, and what every answer says."""
        version = service.live.current
        variant = asked_variant(request, body, body.user)
        history, skipped = await service.history(version, body.history, skip=body.unknown_items == "skip")
        said = {"variant": variant.name, "catalogue_version": version.number, "skipped": skipped}
        return version, variant, history, said

    @app.post("/v1/recommend", responses=ERRORS, dependencies=[_KEY], tags=["questions"])
    async def recommend(request: Request, body: RecommendRequest) -> RecommendAnswer:
        """Recommend items to a person, best first."""
        version, variant, history, said = await about_person(request, body)
        excluded = await service.resolve(version, body.exclude, "exclude")
        found, note = await service.recommend(
            version, variant, history, body.k, filters=body.filters, excluded=excluded,
            exclude_history=body.exclude_history,
        )  # fmt: skip
        return RecommendAnswer(**said, items=_recommended(version, found), note=note)

    @app.post("/v1/similar", responses=ERRORS, dependencies=[_KEY], tags=["questions"])
    async def similar(request: Request, body: SimilarRequest) -> RecommendAnswer:
        """Items like one: those that the model expects next of a person who has only this one."""
        version = service.live.current
        variant = asked_variant(request, body, None)
        items = await service.resolve(version, [body.item], "item")
        found, note = await service.recommend(
            version, variant, items, body.k, filters=body.filters, excluded=[], exclude_history=True
        )
        items_found = _recommended(version, found)
        return RecommendAnswer(variant=variant.name, catalogue_version=version.number, items=items_found, note=note)

    @app.post("/v1/rank", responses=ERRORS, dependencies=[_KEY], tags=["questions"])
    async def rank(request: Request, body: RankRequest) -> RankAnswer:
        """Rank given items for a person by the exact log-probability of their titles."""
        version, variant, history, said = await about_person(request, body)
        candidates = await service.resolve(version, body.candidates, "candidates")
        found = await service.rank(version, variant, history, candidates)
        catalogue = version.catalogue
        ranked = [
            RankedItem(item_id=catalogue.item_ids[item], title=catalogue.titles[item], log_probability=score)
            for item, score in found
        ]
        return RankAnswer(**said, items=ranked)

    @app.post("/v1/explain", responses=ERRORS, dependencies=[_KEY], tags=["questions"])
    async def explain(request: Request, body: ExplainRequest) -> ExplainAnswer:
        """Say how much each item of a history moved the score of an item, or why it stands before another."""
        version, variant, history, said = await about_person(request, body)
        (item,) = await service.resolve(version, [body.item], "item")
        other = None if body.instead_of is None else await service.resolve(version, [body.instead_of], "instead_of")
        found = await service.explain(version, variant, history, item, None if other is None else other[0])
        return ExplainAnswer(**said, **asdict(found))


def _recommended(version: Version, found: list[tuple[int, float]]) -> list[RecommendedItem]:
    """Items as the answer names them."""
    catalogue = version.catalogue
    return [
        RecommendedItem(item_id=catalogue.item_ids[item], title=catalogue.titles[item], probability=math.exp(score))
        for item, score in found
    ]


def _add_catalogue(app: FastAPI, service: Service) -> None:
    """Looking into the catalogue and changing it."""

    @app.post("/v1/items", responses=ERRORS | MAY_NOT, dependencies=[_KEY], tags=["catalogue"])
    async def change_items(request: Request, body: ItemsRequest) -> ItemsAnswer:
        """Add, retire, and make available or not: whole or not at all, at once for every request that comes after.

        Kept in memory: a service that starts again has the catalogue of its run.
        """
        key: Key | None = request.state.key
        if key is not None and not key.changes_items:
            raise Problem(403, "forbidden", "this key may not change the catalogue")
        added = [NewItem(**item.model_dump()) for item in body.add]
        version = await service.update(Update(retire=body.retire, add=added, available=body.available))
        return ItemsAnswer(
            catalogue_version=version.number,
            items=len(version.catalogue),
            available=int(version.available_I.sum()),
        )

    @app.get("/v1/items", responses=ERRORS, dependencies=[_KEY], tags=["catalogue"])
    async def find_items(
        query: Annotated[str, Query(max_length=200, description="a part of the title, letter case aside")] = "",
        limit: Annotated[int, Query(ge=1, le=MOST_FOUND, description="how many at most")] = 20,
        ids: Annotated[
            list[str] | None,
            Query(alias="id", max_length=MOST_FOUND, description="these items instead, in this order; repeat it"),
        ] = None,
    ) -> FoundItems:
        """Items whose title holds a text, the most popular in training first; or items by id, where there are such."""
        version = service.live.current
        catalogue = version.catalogue
        if ids is None:
            items = await asyncio.to_thread(catalogue.titles_holding, query, limit)
        else:
            items = [item for item in map(catalogue.find_id, ids) if item is not None]
        found = [
            CatalogueItem(
                item_id=catalogue.item_ids[item],
                title=catalogue.titles[item],
                available=bool(version.available_I[item]),
                metadata=metadata,
            )
            for item, metadata in zip(items, values_of(catalogue.metadata, items), strict=True)
        ]
        return FoundItems(catalogue_version=version.number, items=found)

    @app.get("/v1/about", responses=ERRORS, dependencies=[_KEY], tags=["catalogue"])
    async def about() -> About:
        """What can be asked here: the runs, and what filters can name."""
        version = service.live.current
        columns = await asyncio.to_thread(columns_of, version.catalogue.metadata, version.available_I)
        return About(
            version=catalign.__version__,
            catalogue_version=version.number,
            items=len(version.catalogue),
            available=int(version.available_I.sum()),
            columns=columns,
            variants=_shares(service),
            max_k=service.settings.max_k,
        )


def _add_operations(app: FastAPI, service: Service) -> None:
    """What an operator's tools ask."""

    @app.get("/healthz", tags=["operations"])
    async def healthz() -> Health:
        """The process is alive."""
        return _health(service, "alive")

    @app.get("/readyz", responses={503: ERRORS[503]}, tags=["operations"])
    async def readyz() -> Health:
        """The service answers questions: not yet while it warms up, no more while it shuts down."""
        if not service.ready:
            raise Problem(503, "not-ready", "the service is starting or shutting down")
        return _health(service, "ready")

    @app.get("/metrics", tags=["operations"], response_class=Response)
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(service.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _health(service: Service, status: str) -> Health:
    return Health(status=status, catalogue_version=service.live.current.number, variants=_shares(service))


def _shares(service: Service) -> dict[str, float]:
    return {variant.name: variant.share for variant in service.variants}


def _describe_problems(app: FastAPI) -> None:
    """Let the OpenAPI document say that errors come as problem+json."""
    document = app.openapi()
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                content = response.get("content", {})
                if status >= "400" and "application/json" in content:
                    content[problems.MEDIA_TYPE] = content.pop("application/json")
