"""How is a request refused before anything of it is read?"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from serve_app.http.errors import answer_to
from serve_app.http.faults import BodyTimeout

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from serve_app.errors import ServeAppError

LINGER_S = 2.0
"""How long what follows a refused body is thrown away: closed at once, TCP resets, and the refusal is lost."""
MOST_LINGERING = 50
"""Refused bodies that are waited for at the same time: each is one of the calls that a replica takes at once, and who
sends them need not have a key."""


class Refusing:
    """Refuses requests; one object counts for all of an application."""

    def __init__(self) -> None:
        self._lingering = 0

    async def __call__(self, error: ServeAppError, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at once; where a body comes, let the client finish for a moment, and close."""
        response = answer_to(error, scope)
        if not _has_body(scope):
            await response(scope, receive, send)
            return
        response.headers["Connection"] = "close"
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        if not isinstance(error, BodyTimeout) and self._lingering < MOST_LINGERING:
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


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers
