"""Responses whose client does not read them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SEND_S = 30.0
"""Give up when the client accepts no data for so long: far longer than a pause of a slow connection."""


class _ClientStalled(ConnectionError):
    """The client accepted no data for `SEND_S`."""


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
