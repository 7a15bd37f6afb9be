"""How does the application learn from Serve that a client has left?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray.exceptions import TaskCancelledError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class ClientsLeave:
    """Tells a client that leaves within its body as ASGI does: Serve raises what cancels a task; pure ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def received() -> Message:
            try:
                return await receive()
            except TaskCancelledError:
                return {"type": "http.disconnect"}

        await self._app(scope, received, send)
