"""How long is a client waited for that does not read its response?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SEND_S = 30.0
"""For one piece of a response to be taken: a tenth of a connection's worst pause would do, a sleeping laptop never."""


class _DoesNotRead(ConnectionError):
    """The client took nothing for `SEND_S`."""


class SlowReaders:
    """Gives up a response whose client does not read, so that its place is free again; pure ASGI.

    Whatever sends sees a lost connection, as when the client leaves; a run goes on.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        lost = False

        async def patient(message: Message) -> None:
            nonlocal lost
            if lost:
                raise _DoesNotRead
            try:
                async with asyncio.timeout(SEND_S):
                    await send(message)
            except TimeoutError:
                lost = True
                raise _DoesNotRead from None

        try:
            await self._app(scope, receive, patient)
        except _DoesNotRead:
            return
