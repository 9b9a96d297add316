"""Errors as RFC 9457 has them: `application/problem+json`, a type for programs and a detail for people.

A detail never repeats what was sent beyond the name of an unknown item, and that as text in JSON.
"""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from catalign.errors import UserError
from catalign.serving.batcher import Closed, QueueFull

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "1"  # seconds
NAMED = 10  # faulty fields that a problem names


class Fault(BaseModel):
    """One faulty field of a request."""

    pointer: str = Field(description="where in the body, as a JSON pointer (RFC 6901)", examples=["/k"])
    detail: str = Field(description="what is wrong with it")


class ProblemBody(BaseModel):
    """What an error says (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:catalign:problem:unknown-item",
                    "title": "Unprocessable Entity",
                    "status": 422,
                    "detail": 'no item has the id or title "gren lamp"',
                    "suggestions": ["green lamp"],
                }
            ]
        }
    )

    type: str = Field(description="what kind of error, for programs")
    title: str = Field(description="the name of the status")
    status: int = Field(description="the HTTP status")
    detail: str = Field(description="what is wrong, for people")
    errors: list[Fault] | None = Field(default=None, description="the faulty fields, the first few")
    suggestions: list[str] | None = Field(default=None, description="for an unknown item: titles like it")


class Problem(Exception):
    """An error that is answered as it is.

    Args:
        status: of HTTP.
        kind: last part of its type.
        detail: for people.
        members: further members of the body.
    """

    def __init__(self, status: int, kind: str, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.members = status, kind, detail, members


def problem_body(status: int, kind: str, detail: str, **members: Any) -> dict[str, Any]:
    """The body of a problem."""
    title = HTTPStatus(status).phrase
    return {"type": f"urn:catalign:problem:{kind}", "title": title, "status": status, "detail": detail, **members}


def respond(status: int, kind: str, detail: str, headers: dict[str, str] | None = None, **members: Any) -> JSONResponse:
    """A problem as a response."""
    body = problem_body(status, kind, detail, **members)
    return JSONResponse(body, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of the application as a problem."""

    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> JSONResponse:
        return respond(error.status, error.kind, error.detail, **error.members)

    @app.exception_handler(UserError)
    async def refused(_: Request, error: UserError) -> JSONResponse:
        return respond(422, "refused", str(error))

    @app.exception_handler(QueueFull)
    async def busy(_: Request, error: QueueFull) -> JSONResponse:
        return respond(503, "busy", "too many requests are waiting", {"Retry-After": RETRY_AFTER})

    @app.exception_handler(Closed)
    async def closed(_: Request, error: Closed) -> JSONResponse:
        return respond(503, "shutting-down", "the service is shutting down", {"Retry-After": RETRY_AFTER})

    @app.exception_handler(TimeoutError)
    async def late(_: Request, error: TimeoutError) -> JSONResponse:
        return respond(504, "timeout", "the answer took too long")

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = error.errors()
        if any(fault["type"] == "json_invalid" for fault in faults):
            return respond(400, "not-json", "the body is not JSON")
        named = [
            {"pointer": _pointer(fault["loc"][1:]), "detail": _printable(fault["msg"])} for fault in faults[:NAMED]
        ]
        return respond(422, "invalid-request", "the request is not as the OpenAPI document has it", errors=named)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        return respond(error.status_code, kind, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> JSONResponse:
        log.error("a request failed", exc_info=error)
        return respond(500, "internal", "the service failed; its log says why")


def _pointer(location: tuple[Any, ...]) -> str:
    """A JSON pointer; a key may hold anything."""
    return "".join("/" + _printable(str(part)).replace("~", "~0").replace("/", "~1") for part in location)


def _printable(text: str) -> str:
    """Text that JSON can carry, of bounded length."""
    return text[:200].encode("utf-8", "replace").decode("utf-8")
