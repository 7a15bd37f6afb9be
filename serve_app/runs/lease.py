"""Whose turn is it in a session? One turn of a session runs at a time, whichever replicas are asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.errors import SessionBusy
from serve_app.stores.lease import Lease, hold

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from redis.asyncio import Redis

    from serve_app.values import Context


def lease_of(context: Context) -> Lease:
    """The right of this run to its session."""
    return Lease(f"serve_app:session:{{{context.tenant}:{context.session_id}}}:lease", context.run_id)


def session_held(redis: Redis, context: Context) -> AbstractAsyncContextManager[Lease]:
    """Hold the session for this run, waiting for another turn until the deadline.

    Raises:
        SessionBusy: the other turn was still running then.
        StoreUnavailable: Redis did not answer.
    """
    busy = SessionBusy("Another turn of this session is still running")
    return hold(redis, lease_of(context), context.deadline, busy)
