"""Which id does a request go by?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders

from serve_app.observability.logs import log_context

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-Id"
_VALID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY = "serve_app.request_id"


def request_id_of(scope: Scope) -> str:
    """The id that `RequestIds` gave to this request."""
    request_id: str = scope[_KEY]
    return request_id


class RequestIds:
    """Takes the client's id, or makes one, and sends it with every response; pure ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = scope[_KEY] = given if _VALID.fullmatch(given) else uuid4().hex

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with log_context({"request_id": request_id}):
            await self._app(scope, receive, stamped)


class EchoedOutside:
    """For a server that sends the request's own id back, as Ray Serve does: drops ours where it is the same one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def once(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get(HEADER) == Headers(scope=scope).get(HEADER):
                    del headers[HEADER]
            await send(message)

        await self._app(scope, receive, once)
