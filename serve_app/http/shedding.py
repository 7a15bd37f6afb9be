"""Who was told a moment ago that there is no room, and need not be asked for again?

To carry a request from Serve's proxy to an ingress and back costs both more than to refuse it, so a flood of refusals
takes the processors from the turns. What an ingress refuses to a key is refused to it by the proxy itself for the next
`WINDOW_S`; the next request asks again. Another key's requests pass.

A proxy belongs to no application, so what it refuses is counted apart from the responses of an ingress.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import Response

from serve_app.http.request_ids import HEADER, RequestIds, request_id_of
from serve_app.observability.catalogue import REQUESTS_SHED

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serve_app.ports import Metrics

    Who = tuple[str, str]

WINDOW_S = 0.1
MOST = 1000
"""Keys that are remembered at the same time; what is refused to others is asked for each time."""
STATUSES = {429, 503}
CODES = {"overloaded", "rate_limited"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an ingress said; an ASGI application that says it again, with the id of the request at hand."""

    status: int
    headers: Headers
    body: bytes
    code: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        before, now = self.headers[HEADER].encode(), request_id_of(scope).encode()
        kept = {name: value for name, value in self.headers.items() if name not in {HEADER.lower(), "content-length"}}
        await Response(self.body.replace(before, now), self.status, kept)(scope, receive, send)


class Shedding:
    """Says a refusal again to whoever has just been refused; pure ASGI, in Serve's proxies."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._told: dict[Who, Refusal] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        who = scope["path"], Headers(scope=scope).get("Authorization", "")
        if refusal := self._told.get(who):
            self._metrics.count(REQUESTS_SHED, code=refusal.code)
            await RequestIds(refusal)(scope, receive, send)
            return
        start: Message = {}

        async def heard(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            elif start["status"] in STATUSES and not message.get("more_body", False):
                self._remember(who, start["status"], Headers(raw=start["headers"]), message.get("body", b""))
            await send(message)

        await self._app(scope, receive, heard)

    def _remember(self, who: Who, status: int, headers: Headers, body: bytes) -> None:
        code = _code(body)
        if code in CODES and HEADER in headers and len(self._told) < MOST:
            self._told[who] = Refusal(status, headers, body, code)
            asyncio.get_running_loop().call_later(WINDOW_S, self._forget, who)

    def _forget(self, who: Who) -> None:
        self._told.pop(who, None)
        self._metrics.hand_over()


def _code(body: bytes) -> str:
    """The code in an error body, ours or OpenAI's."""
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""
