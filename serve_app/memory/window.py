"""What of a conversation does the model see again?

A conversation is a Redis list of exchanges, appended and never rewritten, so that a turn costs the same however long
the conversation is. The window is its tail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.errors import NotFound
from serve_app.stores.redis import translated
from serve_app.values import Exchange, Session

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from serve_app.config import MemorySettings
    from serve_app.values import Context

APPEND_IF_HELD = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
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
        return [Exchange.model_validate_json(each) for each in kept]

    async def append(self, context: Context, exchange: Exchange, lease_key: str) -> bool:
        """Keep `exchange` if `lease_key` still holds this run's id; whether it did.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        with translated():
            kept = await self._append(
                keys=[_key(context), lease_key],
                args=[context.run_id, exchange.model_dump_json(), self._settings.ttl_s],
            )
        return bool(kept)

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
        exchanges = [Exchange.model_validate_json(each) for each in kept]
        return Session(
            session_id=context.session_id, turns=turns, expires_in_s=max(0, expires_in_s), exchanges=exchanges
        )

    async def forget(self, context: Context) -> None:
        """Delete the conversation.

        Raises:
            NotFound: there is no such conversation.
            StoreUnavailable: Redis did not answer.
        """
        with translated():
            deleted = await self._redis.delete(_key(context))
        if not deleted:
            raise _no_such(context)


def _no_such(context: Context) -> NotFound:
    return NotFound(f"There is no session {context.session_id}")
