"""Is a request's body there before Ray Serve hears of the request?

Serve's proxy passes each piece of a body to the replica in a call of its own, so a byte costs as much as a turn's
question. nginx collects bodies; where clients reach Serve without it, its own proxies do so with this.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from serve_app.http.body_limit import READ_S, WITH_BODY, body_timeout, replayed
from serve_app.http.refusing import Refusing
from serve_app.http.request_ids import RequestIds

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

ENOUGH_BYTES = 64 * 1024
"""A longer body is passed on as it comes from here on: it is large, and a thousand clients' fit in 64 MB."""


class WholeBodies:
    """Waits for the body, or for the first `ENOUGH_BYTES` of it; pure ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._refuse = Refusing()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in WITH_BODY:
            await self._app(scope, receive, send)
            return
        body, whole = bytearray(), False
        try:
            async with asyncio.timeout(READ_S):
                while not whole and len(body) < ENOUGH_BYTES:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    whole = not message.get("more_body", False)
        except TimeoutError:
            await RequestIds(self._timed_out)(scope, receive, send)
            return
        await self._app(scope, replayed(bytes(body), receive, whole=whole), send)

    async def _timed_out(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._refuse(body_timeout(), scope, receive, send)
