"""Limits on bodies: size and time of a request, and responses that nobody reads."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from serve_app.errors import BodyTimeout, BodyTooLarge
from serve_app.http.errors import error_response
from serve_app.http.middleware.headers import RequestIdMiddleware
from serve_app.http.request_context import path_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serve_app.config import HttpSettings
    from serve_app.errors import ServeAppError

BODY_TIMEOUT_S = 60.0
"""For a whole body: 16 MB need 2 Mbit/s. A client that stalls on purpose is cut after this time."""
SLOW_AFTER_S = 2.0
"""A normal client sends its body within this time, even on a busy machine."""
MAX_SLOW_BODIES = 50
"""Bodies that may be slow at the same time, because each takes one of the calls that a replica serves at once. A body
that is slow beyond this number is cut at `SLOW_AFTER_S`."""
BUFFER_BYTES = 64 * 1024
"""The proxy buffers so much of a body and passes the rest on as it comes: a thousand clients take 64 MB."""
LINGER_S = 2.0
"""How long the rest of a rejected body is read and thrown away. If the server closed at once, TCP would reset the
connection and the client would lose the response."""
MAX_LINGERING = 50
"""Rejected bodies that are read at the same time: each takes one of the calls that a replica serves at once, and the
client may have no key."""
SEND_S = 30.0
"""Give up when the client accepts no data for so long: far longer than a pause of a slow connection."""

METHODS_WITH_BODY = {"POST", "PUT", "PATCH"}


class EarlyRejection:
    """Rejects requests before their body is read.

    One object is shared by all middleware, because it counts the rejected bodies of the whole application.
    """

    def __init__(self) -> None:
        self._lingering = 0

    async def __call__(self, error: ServeAppError, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response at once, read the body for `LINGER_S`, and close the connection."""
        response = error_response(error, scope)
        if not _has_body(scope):
            await response(scope, receive, send)
            return
        response.headers["Connection"] = "close"
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        if not isinstance(error, BodyTimeout) and self._lingering < MAX_LINGERING:
            await self._linger(receive)
        await send({"type": "http.response.body", "body": b""})

    async def _linger(self, receive: Receive) -> None:
        self._lingering += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    while (await receive()).get("more_body", False):
                        pass
        finally:
            self._lingering -= 1


class BodyLimitMiddleware:
    """Reads a body up to its route's limit before the application starts."""

    def __init__(self, app: ASGIApp, settings: HttpSettings, reject: EarlyRejection) -> None:
        self._app = app
        self._settings = settings
        self._reject = reject
        self._unread = set[asyncio.Timeout]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in METHODS_WITH_BODY:
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read_body(scope, receive)
        except (BodyTooLarge, BodyTimeout) as error:
            await self._reject(error, scope, receive, send)
            return
        if body is not None:
            await self._app(scope, replay_body(body, receive), send)

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None when the client has disconnected."""
        knowledge = path_of(scope).startswith("/knowledge")
        limit = self._settings.max_knowledge_body_bytes if knowledge else self._settings.max_chat_body_bytes
        if _content_length(scope) > limit:
            raise _body_too_large(limit)
        body = bytearray()
        try:
            async with self._body_timeout():
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise _body_too_large(limit)
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise body_timeout() from None

    @asynccontextmanager
    async def _body_timeout(self) -> AsyncIterator[None]:
        """Time out after `BODY_TIMEOUT_S`, or after `SLOW_AFTER_S` while too many others are slow."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(BODY_TIMEOUT_S) as timeout:
            self._unread.add(timeout)
            check = loop.call_later(SLOW_AFTER_S, self._cut_if_too_many, timeout)
            try:
                yield
            finally:
                check.cancel()
                self._unread.discard(timeout)

    def _cut_if_too_many(self, timeout: asyncio.Timeout) -> None:
        if len(self._unread) > MAX_SLOW_BODIES:
            self._unread.discard(timeout)
            timeout.reschedule(asyncio.get_running_loop().time())


class BodyBufferMiddleware:
    """Buffers a body in Serve's proxy, up to `BUFFER_BYTES`, before Ray Serve sees the request.

    Serve's proxy passes each piece of a body to the replica in a call of its own, so that a single byte costs as much
    as a whole turn. nginx buffers bodies; this does so where clients reach Serve without nginx.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._reject = EarlyRejection()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in METHODS_WITH_BODY:
            await self._app(scope, receive, send)
            return
        body, whole = bytearray(), False
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while not whole and len(body) < BUFFER_BYTES:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    whole = not message.get("more_body", False)
        except TimeoutError:
            await RequestIdMiddleware(self._reject_slow)(scope, receive, send)
            return
        await self._app(scope, replay_body(bytes(body), receive, whole=whole), send)

    async def _reject_slow(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._reject(body_timeout(), scope, receive, send)


class SlowReaderMiddleware:
    """Gives up a response whose client does not read it, to free its place.

    The application sees a lost connection, as when the client disconnects. The run goes on.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        lost = False

        async def send_in_time(message: Message) -> None:
            nonlocal lost
            if lost:
                raise _ClientStalled
            try:
                async with asyncio.timeout(SEND_S):
                    await send(message)
            except TimeoutError:
                lost = True
                raise _ClientStalled from None

        try:
            await self._app(scope, receive, send_in_time)
        except _ClientStalled:
            return


class _ClientStalled(ConnectionError):
    """The client accepted no data for `SEND_S`."""


def body_timeout() -> BodyTimeout:
    """The error of a body that did not arrive in time."""
    return BodyTimeout("The body did not arrive in time; send it at once")


def replay_body(body: bytes, receive: Receive, *, whole: bool = True) -> Receive:
    """Make a `receive` that gives the body that was read, then what comes after it."""
    unread = [body]

    async def replay() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": not whole}
        return await receive()

    return replay


def _body_too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {limit} bytes; send less at once")


def _content_length(scope: Scope) -> int:
    length = Headers(scope=scope).get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers
