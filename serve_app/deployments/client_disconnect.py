"""Translates Ray Serve's cancellation of a request body into an ASGI disconnect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray.exceptions import TaskCancelledError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class ClientDisconnectMiddleware:
    """Reports a client that disconnects within its body as ASGI does; Serve raises `TaskCancelledError` instead."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_or_disconnect() -> Message:
            try:
                return await receive()
            except TaskCancelledError:
                return {"type": "http.disconnect"}

        await self._app(scope, receive_or_disconnect, send)
