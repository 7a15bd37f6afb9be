"""Who was told a moment ago that there is no room, and need not be asked for again?

To carry a request from Serve's proxy to an ingress and back costs both more than to refuse it, so a flood of refusals
takes the processors from the turns. When an ingress refuses a key, the proxy itself refuses what else the key asks for
within `WINDOW_S`. Then it lets one request pass in a window, twice as many in each next one, until the ingress refuses
again: about as many pass as places become free. Another key's requests pass untouched.

A proxy belongs to no application, so what it refuses is counted apart from the responses of an ingress.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import Response

from serve_app.http.request_ids import HEADER, RequestIds, request_id_of
from serve_app.observability.metric_catalogue import REQUESTS_SHED

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serve_app.ports import Metrics

    Who = tuple[str, str]

WINDOW_S = 0.1
FREE_FROM = 32
"""Requests that pass in one window without a refusal: then there is room again."""
MOST = 1000
"""Keys that are remembered at the same time; what is refused to others is asked for each time."""
LOOK_S = 1.0
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


@dataclass(slots=True)
class Refused:
    """A key to which an ingress has refused something, and how many of its requests pass meanwhile."""

    refusal: Refusal
    until: float
    """The end of the window."""
    passes: int = 0
    """In this window."""
    passed: int = 0

    def again(self, refusal: Refusal, now: float) -> None:
        """Another one was refused: for a window, nothing passes."""
        self.refusal, self.until, self.passes = refusal, now + WINDOW_S, 0

    def lets_pass(self, now: float) -> bool:
        if now >= self.until:
            self.until, self.passes, self.passed = now + WINDOW_S, max(1, 2 * self.passes), 0
        self.passed += 1
        return self.passed <= self.passes


class Shedding:
    """Says a refusal again to whoever has just been refused; pure ASGI, in Serve's proxies."""

    def __init__(self, app: ASGIApp, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._metrics = metrics
        self._clock = clock
        self._refused: dict[Who, Refused] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        who = scope["path"], Headers(scope=scope).get("Authorization", "")
        refused = self._refused.get(who)
        if refused and not refused.lets_pass(self._clock()):
            self._metrics.count(REQUESTS_SHED, code=refused.refusal.code)
            await RequestIds(refused.refusal)(scope, receive, send)
            return
        if refused and refused.passes >= FREE_FROM:
            del self._refused[who]
        start: Message = {}

        async def heard(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            elif start["status"] in STATUSES and not message.get("more_body", False):
                self._hear(who, start["status"], Headers(raw=start["headers"]), message.get("body", b""))
            await send(message)

        await self._app(scope, receive, heard)

    def _hear(self, who: Who, status: int, headers: Headers, body: bytes) -> None:
        """An ingress has answered with such a status."""
        code = _code(body)
        if code not in CODES or HEADER not in headers:
            return
        now, refusal = self._clock(), Refusal(status, headers, body, code)
        if known := self._refused.get(who):
            known.again(refusal, now)
        elif len(self._refused) < MOST:
            known = self._refused[who] = Refused(refusal, now + WINDOW_S)
            self._look_later(who, known)

    def _look_later(self, who: Who, known: Refused) -> None:
        asyncio.get_running_loop().call_later(LOOK_S, self._look, who, known)

    def _look(self, who: Who, known: Refused) -> None:
        """Forget the key when it has not come back, and tell what was refused until now."""
        self._metrics.flush()
        if self._refused.get(who) is not known:
            return
        if self._clock() < known.until + LOOK_S:
            self._look_later(who, known)
        else:
            del self._refused[who]


def _code(body: bytes) -> str:
    """The code in an error body, ours or OpenAI's."""
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""
