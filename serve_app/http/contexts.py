"""For whom, as which run, and until when is a request served?"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from serve_app.errors import DeadlineExceeded
from serve_app.http.cache_control import HEADER as CACHE_CONTROL
from serve_app.http.cache_control import cache_use
from serve_app.http.callers import caller_of, metering_of
from serve_app.http.request_ids import request_id_of
from serve_app.observability.traceparent import HEADER, valid_traceparent
from serve_app.resilience.deadline import local_deadline, remaining_s
from serve_app.values import Context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

GRACE_S = 2.0
"""Past the deadline: whoever is asked keeps it too, and its own word on it is the better one."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """Makes the context that a request carries through every hop."""

    turn_timeout_s: float
    clock: Callable[[], float] = time.time

    def of(
        self, request: Request, session_id: str = "", run_id: str | None = None, timeout_s: float | None = None
    ) -> Context:
        """Without `run_id` for a new run; the empty session id, which no client can choose, is for no conversation."""
        whole_s = timeout_s or self.turn_timeout_s
        caller = caller_of(request.scope)
        return Context(
            request_id=request_id_of(request.scope),
            run_id=run_id or uuid4().hex,
            session_id=session_id,
            tenant=caller.tenant,
            key_id=caller.key_id,
            metering=metering_of(request.scope),
            deadline=self.clock() + whole_s,
            timeout_s=whole_s,
            cache=cache_use(request.headers.getlist(CACHE_CONTROL)),
            traceparent=valid_traceparent(request.headers.get(HEADER)),
        )


def patience_s(context: Context) -> float:
    """How long the answer to `context` is waited for."""
    return remaining_s(local_deadline(context)) + GRACE_S


@asynccontextmanager
async def within(limit_s: float, message: str = "The request's time ran out") -> AsyncIterator[None]:
    """Give the block up after `limit_s` seconds.

    Raises:
        DeadlineExceeded: it was given up.
    """
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError:
        raise DeadlineExceeded(message) from None
