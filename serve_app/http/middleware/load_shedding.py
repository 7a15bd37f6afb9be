"""Load shedding in Serve's proxies: repeats an ingress's refusal without calling the ingress.

To carry a request from Serve's proxy to an ingress and back costs both of them more than to refuse it, so a flood of
refusals takes CPU time from the turns. When an ingress refuses a key, the proxy refuses all that the key sends within
`WINDOW_S`. Then it lets 1 request pass in the next window, then 2, 4, 8 …, until the ingress refuses again: about as
many pass as places become free. Requests of other keys pass.

A proxy belongs to no application, so what it refuses is counted apart from the responses of an ingress.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import Response

from serve_app.http.middleware.headers import RequestIdMiddleware
from serve_app.http.middleware.telemetry import RefusalSampler
from serve_app.http.request_context import REQUEST_ID, request_id_of
from serve_app.observability.metric_catalogue import REQUESTS_SHED

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serve_app.ports import Metrics

    Sender = tuple[str, str]
    """Path and `Authorization` header."""

logger = logging.getLogger(__name__)

WINDOW_S = 0.1
ROOM_FROM = 32
"""When so many requests may pass in a window, and the ingress has refused none, there is room again: all pass."""
MAX_SENDERS = 1000
"""Senders that are remembered at the same time; requests of further ones always reach the ingress."""
CHECK_EVERY_S = 1.0
STATUSES = {429, 503}
CODES = {"overloaded", "rate_limited"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal of an ingress, which can be repeated to other requests."""

    status: int
    headers: Headers
    body: bytes
    code: str
    reason: str

    async def repeat(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the refusal with the id of this request."""
        first_id, this_id = self.headers[REQUEST_ID].encode(), request_id_of(scope).encode()
        dropped = {REQUEST_ID.lower(), "content-length"}
        headers = {name: value for name, value in self.headers.items() if name not in dropped}
        await Response(self.body.replace(first_id, this_id), self.status, headers)(scope, receive, send)


@dataclass(slots=True)
class SenderState:
    """The last refusal of a sender, and its requests that pass in this window."""

    refusal: Refusal
    window_ends_at: float
    may_pass: int = 0
    passed: int = 0

    def refuse_again(self, refusal: Refusal, now: float) -> None:
        """Let nothing pass for a window."""
        self.refusal, self.window_ends_at, self.may_pass = refusal, now + WINDOW_S, 0

    def try_pass(self, now: float) -> bool:
        """Whether one more request may reach the ingress."""
        if now >= self.window_ends_at:
            self.window_ends_at, self.may_pass, self.passed = now + WINDOW_S, max(1, 2 * self.may_pass), 0
        self.passed += 1
        return self.passed <= self.may_pass


class LoadSheddingMiddleware:
    """Repeats a refusal to a sender that has just been refused, without calling the ingress."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        log: logging.Logger = logger,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._clock = clock
        self._log = log
        self._sampler = RefusalSampler(clock)
        self._senders: dict[Sender, SenderState] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        sender = scope["path"], Headers(scope=scope).get("Authorization", "")
        state = self._senders.get(sender)
        if state and not state.try_pass(self._clock()):
            self._metrics.count(REQUESTS_SHED, code=state.refusal.code)
            await RequestIdMiddleware(state.refusal.repeat)(scope, receive, send)
            self._log_refusal(scope, state.refusal)
            return
        if state and state.may_pass >= ROOM_FROM:
            del self._senders[sender]
        start: Message = {}

        async def send_and_note(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            elif start["status"] in STATUSES and not message.get("more_body", False):
                self._note_refusal(sender, start["status"], Headers(raw=start["headers"]), message.get("body", b""))
            await send(message)

        await self._app(scope, receive, send_and_note)

    def _log_refusal(self, scope: Scope, refusal: Refusal) -> None:
        """Log a sample of the refusals, in words: the handlers of Serve's proxies drop fields."""
        left_out = self._sampler.sample(refusal.reason)
        if left_out is not None:
            fields = refusal.reason, request_id_of(scope), left_out
            self._log.info("turn_refused reason=%s request_id=%s left_out=%d", *fields)

    def _note_refusal(self, sender: Sender, status: int, headers: Headers, body: bytes) -> None:
        """Remember the refusal, unless the response is another error of the same status."""
        code, reason = _error_code(body)
        if code not in CODES or REQUEST_ID not in headers:
            return
        now, refusal = self._clock(), Refusal(status, headers, body, code, reason)
        if state := self._senders.get(sender):
            state.refuse_again(refusal, now)
        elif len(self._senders) < MAX_SENDERS:
            state = self._senders[sender] = SenderState(refusal, now + WINDOW_S)
            self._check_later(sender, state)

    def _check_later(self, sender: Sender, state: SenderState) -> None:
        asyncio.get_running_loop().call_later(CHECK_EVERY_S, self._check, sender, state)

    def _check(self, sender: Sender, state: SenderState) -> None:
        """Forget a sender that has not come back, and export what was counted until now."""
        self._metrics.flush()
        if self._senders.get(sender) is not state:
            return
        if self._clock() < state.window_ends_at + CHECK_EVERY_S:
            self._check_later(sender, state)
        else:
            del self._senders[sender]


def _error_code(body: bytes) -> tuple[str, str]:
    """Code and reason in an error body, ours or OpenAI's."""
    try:
        error = json.loads(body)["error"]
        return str(error["code"]), str(error.get("reason", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", ""
