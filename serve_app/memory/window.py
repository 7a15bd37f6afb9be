"""What of a conversation does the model see again?

A conversation is a Redis list of exchanges, appended and never rewritten, so that a turn costs the same however long
the conversation is. The window is its tail.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pydantic import ValidationError

from serve_app.errors import NotFound
from serve_app.stores.redis import translated
from serve_app.values import Exchange, Session

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from serve_app.config import MemorySettings
    from serve_app.stores.lease import Lease
    from serve_app.values import Context

logger = logging.getLogger(__name__)

# Of a run that has appended already nothing is appended: the client repeats a script whose reply was lost.
APPEND_IF_HELD = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
local last = redis.call('LINDEX', KEYS[1], -1)
if last and string.sub(last, 1, #ARGV[4]) == ARGV[4] then return 1 end
redis.call('RPUSH', KEYS[1], ARGV[2])
return redis.call('EXPIRE', KEYS[1], ARGV[3])
"""


def _key(context: Context) -> str:
    return f"serve_app:session:{{{context.tenant}:{context.session_id}}}:exchanges"


class Window:
    """The conversations in Redis."""

    def __init__(self, redis: Redis, settings: MemorySettings) -> None:
        self._redis = redis
        self._settings = settings
        self._append = redis.register_script(APPEND_IF_HELD)

    async def recall(self, context: Context) -> list[Exchange]:
        """The last exchanges of the session, oldest first.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        if self._settings.window == 0:
            return []
        with translated():
            kept = await self._redis.lrange(_key(context), -self._settings.window, -1)
        return _read(kept)

    async def append(self, context: Context, exchange: Exchange, lease: Lease) -> bool:
        """Keep `exchange`, once, if `lease` is still held; whether it is kept.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        kept = exchange.model_dump_json()
        of_this_run = kept[: kept.index(exchange.run_id) + len(exchange.run_id)]
        with translated():
            appended = await self._append(
                keys=[_key(context), lease.key], args=[lease.holder, kept, self._settings.ttl_s, of_this_run]
            )
        return bool(appended)

    async def session(self, context: Context, limit: int) -> Session:
        """The latest `limit` exchanges.

        Raises:
            NotFound: there is no such conversation.
            StoreUnavailable: Redis did not answer.
        """
        with translated():
            async with self._redis.pipeline(transaction=True) as pipe:
                key = _key(context)
                pipe.llen(key)
                pipe.ttl(key)
                pipe.lrange(key, -limit, -1)
                turns, expires_in_s, kept = await pipe.execute()
        if not turns:
            raise _no_such(context)
        exchanges = _read(kept)
        return Session(
            session_id=context.session_id, turns=turns, expires_in_s=max(0, expires_in_s), exchanges=exchanges
        )

    async def forget(self, context: Context, lease: Lease) -> None:
        """Delete the conversation, and end the right of a running turn to add to it.

        Raises:
            NotFound: there is no such conversation.
            StoreUnavailable: Redis did not answer.
        """
        with translated():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.delete(_key(context))
                pipe.delete(lease.key)
                deleted, _ = await pipe.execute()
        if not deleted:
            raise _no_such(context)


def _read(kept: list[str | bytes]) -> list[Exchange]:
    """Without those that do not parse: one exchange of another version must not end a conversation."""
    exchanges = []
    for each in kept:
        try:
            exchanges.append(Exchange.model_validate_json(each))
        except ValidationError as error:
            logger.warning("an exchange is left out, it does not parse: %s", error.errors()[0]["msg"])
    return exchanges


def _no_such(context: Context) -> NotFound:
    return NotFound(f"There is no session {context.session_id}")
