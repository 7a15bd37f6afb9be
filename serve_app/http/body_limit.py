"""How much of a body is read, and for how long?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from serve_app.http.faults import BodyTimeout, BodyTooLarge
from serve_app.http.paths import path_of
from serve_app.http.refusing import refuse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serve_app.config import HttpSettings

READ_S = 60.0
"""For a whole body: 16 MB need 2 Mbit/s; a client that stalls on purpose holds its place no longer."""

_WITH_BODY = {"POST", "PUT", "PATCH"}


class BodyLimit:
    """Reads a body up to its route's limit before the application starts; pure ASGI."""

    def __init__(self, app: ASGIApp, settings: HttpSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in _WITH_BODY:
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except (BodyTooLarge, BodyTimeout) as error:
            await refuse(error, scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None when the client has gone."""
        knowledge = path_of(scope).startswith("/knowledge")
        limit = self._settings.max_knowledge_body_bytes if knowledge else self._settings.max_chat_body_bytes
        if _declared(scope) > limit:
            raise _too_large(limit)
        body = bytearray()
        try:
            async with asyncio.timeout(READ_S):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise _too_large(limit)
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise BodyTimeout(f"The body did not arrive within {READ_S:.0f} seconds") from None


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {limit} bytes; send less at once")


def _declared(scope: Scope) -> int:
    length = Headers(scope=scope).get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


def _replay(body: bytes, receive: Receive) -> Receive:
    """`receive` as the application expects it: the body, then whatever comes after."""
    unread = [body]

    async def replay() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        return await receive()

    return replay
