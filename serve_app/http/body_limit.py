"""How much of a body is read, and for how long?"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from serve_app.http.faults import BodyTimeout, BodyTooLarge
from serve_app.http.paths import path_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serve_app.config import HttpSettings
    from serve_app.http.refusing import Refusing

READ_S = 60.0
"""For a whole body: 16 MB need 2 Mbit/s; a client that stalls on purpose holds its place no longer."""
SOON_S = 2.0
"""Within which a body is there that nobody holds back, on a machine that is full as well; 200 that drip keep others
waiting for no longer."""
MOST_SLOW = 50
"""Bodies that may take longer at the same time: each is one of the calls that a replica takes at once."""

WITH_BODY = {"POST", "PUT", "PATCH"}


class BodyLimit:
    """Reads a body up to its route's limit before the application starts; pure ASGI."""

    def __init__(self, app: ASGIApp, settings: HttpSettings, refuse: Refusing) -> None:
        self._app = app
        self._settings = settings
        self._refuse = refuse
        self._unread = set[asyncio.Timeout]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in WITH_BODY:
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except (BodyTooLarge, BodyTimeout) as error:
            await self._refuse(error, scope, receive, send)
            return
        if body is not None:
            await self._app(scope, replayed(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None when the client has gone."""
        knowledge = path_of(scope).startswith("/knowledge")
        limit = self._settings.max_knowledge_body_bytes if knowledge else self._settings.max_chat_body_bytes
        if _declared(scope) > limit:
            raise _too_large(limit)
        body = bytearray()
        try:
            async with self._patience():
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
            raise body_timeout() from None

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        """`READ_S`, or `SOON_S` where so many others are waited for already."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(READ_S) as patience:
            self._unread.add(patience)
            judging = loop.call_later(SOON_S, self._judge, patience)
            try:
                yield
            finally:
                judging.cancel()
                self._unread.discard(patience)

    def _judge(self, patience: asyncio.Timeout) -> None:
        if len(self._unread) > MOST_SLOW:
            self._unread.discard(patience)
            patience.reschedule(asyncio.get_running_loop().time())


def body_timeout() -> BodyTimeout:
    """What a client is told that was waited for in vain."""
    return BodyTimeout("The body did not arrive in time; send it at once")


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {limit} bytes; send less at once")


def _declared(scope: Scope) -> int:
    length = Headers(scope=scope).get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


def replayed(body: bytes, receive: Receive, *, whole: bool = True) -> Receive:
    """`receive` as an application expects it: the body that has come, then whatever comes after."""
    unread = [body]

    async def replay() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": not whole}
        return await receive()

    return replay
