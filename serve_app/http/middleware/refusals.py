"""Log events and metric of refused turns."""

from __future__ import annotations

import logging
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from serve_app.http.middleware.admission import is_turn
from serve_app.http.request_context import caller_of, failure_of, is_authenticated, path_of
from serve_app.observability.metric_catalogue import TURNS_REFUSED
from serve_app.resilience.gcra import GcraLimit, LocalRateLimiter
from serve_app.values import RunLogLine

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serve_app.ports import Metrics
    from serve_app.stores.request_log import RequestLogStore
    from serve_app.values import Failure

logger = logging.getLogger(__name__)

EVENT = "turn_refused"
LOGGED = GcraLimit(per_minute=60, burst=10)
"""Refusals that are logged for each reason and tenant: one a second, and ten at once after a pause."""
MAX_KEYS = 1000


class RefusalSampler:
    """Chooses the refusals that are logged, and counts those that are not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._limiter = LocalRateLimiter(LOGGED, MAX_KEYS, clock)
        self._left_out = Counter[str]()

    def sample(self, key: str) -> int | None:
        """Return None if the refusal is not to be logged.

        Else return how many of the same key were left out since the last one that was logged.
        """
        if self._limiter.take(key) == 0:
            return self._left_out.pop(key, 0)
        if key in self._left_out or len(self._left_out) < MAX_KEYS:
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
        logger.info(EVENT, extra={**fields, **ids})
        if self._store:
            at = datetime.now(UTC).isoformat(timespec="milliseconds")
            fields["request_id"] = failure.request_id
            line = RunLogLine(ts=at, level="INFO", process="Ingress", event=EVENT, fields=fields)
            self._store.add_line(tenant, failure.request_id, line)
