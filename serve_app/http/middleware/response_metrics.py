"""Metrics of responses: their number by route, status and error code, and their duration."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.routing import Match

from serve_app.errors import Internal
from serve_app.http.errors import STATUS_BY_CODE
from serve_app.observability.metric_catalogue import RESPONSE_S, RESPONSES

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serve_app.ports import Metrics

UNMATCHED = "unmatched"
"""The route label of every unknown path: a client may invent any number of paths."""
OK = "ok"
DISCONNECTED_STATUS, DISCONNECTED = "499", "client_left"
"""The labels of a request whose client disconnected before its response."""


class ResponseMetricsMiddleware:
    """Counts and times every response."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, outcome = time.monotonic(), ResponseOutcome()

        async def send_and_note(message: Message) -> None:
            outcome.note(message)
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
            outcome.status = outcome.status or DISCONNECTED_STATUS  # without a response, the client has disconnected
        except asyncio.CancelledError:
            outcome.status = outcome.status or DISCONNECTED_STATUS
            raise
        finally:
            route = route_template(scope)
            status = outcome.status or str(Internal.status)
            self._metrics.count(RESPONSES, route=route, status=status, code=outcome.code)
            self._metrics.observe(RESPONSE_S, time.monotonic() - started, route=route)


@dataclass(slots=True)
class ResponseOutcome:
    """The status of a response, and its body where it is an error."""

    status: str = ""
    body: bytes = b""

    def note(self, message: Message) -> None:
        """Note the status, and the body of an error."""
        if message["type"] == "http.response.start":
            self.status = str(message["status"])
        elif self.status >= "400":
            self.body += message.get("body", b"")

    @property
    def code(self) -> str:
        """One of the service's error codes, or `ok`."""
        if self.status == DISCONNECTED_STATUS:
            return DISCONNECTED
        if self.status and self.status < "400":
            return OK
        try:
            code = json.loads(self.body)["error"]["code"]
        except (ValueError, LookupError, TypeError):
            return Internal.code
        return code if code in STATUS_BY_CODE else Internal.code


def route_template(scope: Scope) -> str:
    """The path template of the request's route, such as `/agent/runs/{run_id}`."""
    if "route" not in scope:  # refused before routing
        matching = (route for route in scope["app"].routes if route.matches(scope)[0] is not Match.NONE)
        scope = {**scope, "route": next(matching, None)}
    return str(getattr(scope["route"], "path", UNMATCHED))
