"""How is each response counted?"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.routing import Match

from serve_app.errors import Internal
from serve_app.http.errors import STATUS
from serve_app.observability.metric_catalogue import RESPONSE_S, RESPONSES

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serve_app.ports import Metrics

UNMATCHED = "unmatched"
"""The route of a path that there is not: a client may invent any number of them."""
OK = "ok"
LEFT_STATUS, LEFT = "499", "client_left"
"""What is counted where a client left before it was answered."""


class Measured:
    """Counts what the application answers, and for how long it did; pure ASGI, around everything else."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, told = time.monotonic(), Told()

        async def heard(message: Message) -> None:
            told.hear(message)
            await send(message)

        try:
            await self._app(scope, receive, heard)
            told.status = told.status or LEFT_STATUS  # whoever answers nobody has seen the client leave
        except asyncio.CancelledError:
            told.status = told.status or LEFT_STATUS
            raise
        finally:
            route = route_of(scope)
            status = told.status or str(Internal.status)
            self._metrics.count(RESPONSES, route=route, status=status, code=told.code)
            self._metrics.observe(RESPONSE_S, time.monotonic() - begun, route=route)


@dataclass(slots=True)
class Told:
    """What a response has said so far."""

    status: str = ""
    body: bytes = b""

    def hear(self, message: Message) -> None:
        """Take note of the status, and of the body of an error."""
        if message["type"] == "http.response.start":
            self.status = str(message["status"])
        elif self.status >= "400":
            self.body += message.get("body", b"")

    @property
    def code(self) -> str:
        """The error's code; `ok` where it is none, one of the service's own in any case."""
        if self.status == LEFT_STATUS:
            return LEFT
        if self.status and self.status < "400":
            return OK
        try:
            code = json.loads(self.body)["error"]["code"]
        except (ValueError, LookupError, TypeError):
            return Internal.code
        return code if code in STATUS else Internal.code


def route_of(scope: Scope) -> str:
    """The template of the request's route."""
    if "route" not in scope:  # refused before it was looked for
        found = (route for route in scope["app"].routes if route.matches(scope)[0] is not Match.NONE)
        scope = {**scope, "route": next(found, None)}
    return str(getattr(scope["route"], "path", UNMATCHED))
