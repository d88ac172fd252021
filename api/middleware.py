"""What every request passes: an id, a bound on its body, and the content type that the API takes."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domain.ids import REQUEST, new_id

_log = logging.getLogger("durapay.api")


class RequestIds:
    """Gives each request an id (header `Request-Id` of the answer) and logs one line for it, without its content."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_id(REQUEST)
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"request-id", request_id.encode())]
                route: Any = scope.get("route")
                _log.info(
                    "%s %s %s %.1f ms %s",
                    scope["method"],
                    getattr(route, "path", "-"),
                    message["status"],
                    (time.perf_counter() - started) * 1000,
                    request_id,
                )
            await send(message)

        await self._app(scope, receive, send_with_id)


# The routes that take files.
_UPLOADS = re.compile(r"/v1/disputes/[^/]+/evidence|/v1/users/[^/]+/onboarding/documents")


class BodyLimit:
    """Refuses a body of more than `max_bytes`, also one that comes without a length, before it is held in memory.

    A body with a file may have `max_upload_bytes`; it is read once its caller is known.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_upload_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = 0
        limit = self._max_upload_bytes if _UPLOADS.fullmatch(scope["path"]) else self._max_bytes

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                # Not an ApiError: while it reads a body FastAPI lets HTTP exceptions alone pass as they are.
                raise HTTPException(413, f"The body may have {limit} bytes at most.")
            return message

        await self._app(scope, bounded, send)
