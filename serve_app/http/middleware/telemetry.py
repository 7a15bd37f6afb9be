"""Telemetry of responses: their metrics, and the log of refused turns."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.routing import Match

from serve_app.errors import Internal
from serve_app.http.admission import is_turn
from serve_app.http.errors import STATUS_BY_CODE
from serve_app.http.request_context import caller_of, failure_of, is_authenticated, path_of
from serve_app.observability.metric_catalogue import RESPONSE_S, RESPONSES, TURNS_REFUSED
from serve_app.resilience.gcra import GcraLimit, LocalRateLimiter
from serve_app.values import RunLogLine

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serve_app.ports import Metrics
    from serve_app.stores.log_store import RequestLogStore
    from serve_app.values import Failure

logger = logging.getLogger(__name__)

UNMATCHED = "unmatched"
"""The route label of every unknown path: a client may invent any number of paths."""
OK = "ok"
DISCONNECTED_STATUS, DISCONNECTED = "499", "client_left"
"""The labels of a request whose client disconnected before its response."""
REFUSAL_EVENT = "turn_refused"
REFUSALS_LOGGED = GcraLimit(per_minute=60, burst=10)
"""Refusals that are logged for each reason and tenant: one a second, and ten at once after a pause."""
MAX_REFUSAL_KEYS = 1000


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


class RefusalSampler:
    """Chooses the refusals that are logged, and counts those that are not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._limiter = LocalRateLimiter(REFUSALS_LOGGED, MAX_REFUSAL_KEYS, clock)
        self._left_out = Counter[str]()

    def sample(self, key: str) -> int | None:
        """Return None if the refusal is not to be logged.

        Else return how many of the same key were left out since the last one that was logged.
        """
        if self._limiter.take(key) == 0:
            return self._left_out.pop(key, 0)
        if key in self._left_out or len(self._left_out) < MAX_REFUSAL_KEYS:
            self._left_out[key] += 1
        return None


class RefusalLogMiddleware:
    """Counts every refused turn by its reason, and logs a sample of them.

    A refused turn is one that is answered with an error before it has a run. With a `store`, `serve-app logs --request`
    finds what is logged; the store never delays the response.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, store: RequestLogStore | None, *, keys_required: bool = False
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._store = store
        self._keys_required = keys_required
        self._sampler = RefusalSampler()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_turn(scope):
            await self._app(scope, receive, send)
            return

        async def send_and_log(message: Message) -> None:
            if message["type"] == "http.response.start" and (failure := failure_of(scope)):
                self._log_refusal(scope, failure)
            await send(message)

        await self._app(scope, receive, send_and_log)

    def _log_refusal(self, scope: Scope, failure: Failure) -> None:
        self._metrics.count(TURNS_REFUSED, reason=failure.reason)
        known = is_authenticated(scope) or not self._keys_required
        tenant = caller_of(scope).tenant if known else ""
        left_out = self._sampler.sample(f"{failure.reason} {tenant}")
        if left_out is None:
            return
        fields = {
            "reason": failure.reason,
            "code": failure.code,
            "text": failure.message,
            "path": path_of(scope),
            "left_out": left_out,
        }
        ids = {"tenant": tenant or None, "request_id": failure.request_id}
        logger.info(REFUSAL_EVENT, extra={**fields, **ids})
        if self._store:
            at = datetime.now(UTC).isoformat(timespec="milliseconds")
            fields["request_id"] = failure.request_id
            line = RunLogLine(ts=at, level="INFO", process="Ingress", event=REFUSAL_EVENT, fields=fields)
            self._store.add_line(tenant, failure.request_id, line)
