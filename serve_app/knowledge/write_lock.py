"""Which process may write to the collection? One at a time: concurrent writers are unsafe on Milvus Lite."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from serve_app.errors import Overloaded
from serve_app.stores.lease import LEASE_MS, Lease, hold_lease

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from redis.asyncio import Redis


def writing(redis: Redis, collection: str, deadline: float) -> AbstractAsyncContextManager[Lease]:
    """Hold the right to write to `collection`, waiting for another writer until `deadline`.

    Raises:
        Overloaded: the other writer was still at work then.
        StoreUnavailable: Redis did not answer.
    """
    busy = Overloaded("Other documents are being indexed", retry_after_s=LEASE_MS / 1000)
    return hold_lease(redis, Lease(f"{collection}:writer", uuid4().hex), deadline, busy)
