"""What stands before the application: the size of a body, the time it may take to arrive, one line per request."""

import asyncio
import json
import time
import uuid
from typing import Any, TypeAlias

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catalign.serving.keys import Key, find_key
from catalign.serving.problems import MEDIA_TYPE, problem_body
from catalign.serving.settings import ServiceSettings
from catalign.serving.telemetry import Telemetry

Refusal: TypeAlias = tuple[int, str, str]
"""Status, kind and detail of a problem."""

GUARDED = "/v1/"
ELSEWHERE = "unknown"  # the route of a path that has none; paths are the callers' text and no label


class Guard:
    """Reads a body whole or refuses it, gives every request an id, and records how it ended."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings, telemetry: Telemetry, keys: list[Key] | None) -> None:
        self._app, self._settings, self._telemetry, self._keys = app, settings, telemetry, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = uuid.uuid4().hex
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"], state["log"], state["key"] = request_id, {}, None
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode())]}
            await send(message)

        try:
            refusal, replay = self._check_key(scope), receive
            if refusal is None:
                refusal, replay = await self._read_body(scope, receive)
            if refusal is not None:
                await _refuse(sending, *refusal)
            else:
                await self._app(scope, replay, sending)
        finally:
            route = getattr(scope.get("route"), "path", ELSEWHERE)
            fields = {"id": request_id, "method": scope["method"][:10], **state["log"]}
            self._telemetry.request(route, status, time.perf_counter() - started, fields)

    def _check_key(self, scope: Scope) -> Refusal | None:
        """Why the caller is not let in, before anything of the body is read."""
        if self._keys is None or not scope["path"].startswith(GUARDED):
            return None
        kind, _, given = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        key = find_key(self._keys, given.decode("latin-1").strip()) if kind.lower() == b"bearer" else None
        if key is None:
            return 401, "unauthorized", "a key is needed: Authorization: Bearer KEY"
        scope["state"]["key"], scope["state"]["log"]["caller"] = key, key.name
        return None

    async def _read_body(self, scope: Scope, receive: Receive) -> tuple[Refusal | None, Receive]:
        """The body as one message to be received again, or why it is refused."""
        most = self._settings.max_body_bytes
        too_large = 413, "too-large", f"the body is larger than {most:,} bytes"
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > most:
            return too_large, receive
        body = bytearray()
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                while True:
                    message = await receive()
                    body += message.get("body", b"")
                    if len(body) > most:
                        return too_large, receive
                    if message["type"] == "http.disconnect" or not message.get("more_body"):
                        break
        except TimeoutError:
            return (408, "slow-request", "the body took too long to arrive"), receive
        first = True

        async def replay() -> Message:
            nonlocal first
            if first and message["type"] == "http.request":
                first = False
                return {"type": "http.request", "body": bytes(body), "more_body": False}
            return await receive() if message["type"] == "http.request" else message

        return None, replay


async def _refuse(send: Send, status: int, kind: str, detail: str) -> None:
    """Answer without asking the application."""
    body = json.dumps(problem_body(status, kind, detail)).encode()
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    # What is left of the body is not read, so the connection cannot go on.
    headers.append((b"connection", b"close"))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
