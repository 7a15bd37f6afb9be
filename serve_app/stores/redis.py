"""The Redis client, which measures its calls, and the translation of Redis's errors."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import hiredis
from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, RedisError, ResponseError

from serve_app.config import read_secret
from serve_app.errors import StoreCorrupt, StoreUnavailable
from serve_app.observability.metrics import NULL_METRICS, measure_call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve_app.config import RedisSettings
    from serve_app.ports import Metrics

MAX_CONNECTIONS = 64
"""Of one process; a command waits for a free one, up to its time-out."""

RETRY_PAUSE_S = 0.05
RETRIES_DURING_RESTART = 30
"""For a process that can only wait for an embedded Redis to restart: 1.5 s."""

BLOCKING = {"XREAD"}
"""Commands that wait on purpose; their time says nothing."""

_OF_ONE_KEY = re.compile(r"WRONGTYPE|user_script|not an integer|not a (?:valid )?float|stream ID|XADD")
_OF_THE_SERVER = re.compile(r"\b(?:OOM|MISCONF|READONLY|NOREPLICAS|LOADING|MASTERDOWN|BUSY|NOPERM|NOAUTH|NOSCRIPT)\b")
"""Errors of the server. If one is raised in a script, its text names the script, too, and matches both patterns."""


def create_redis_client(settings: RedisSettings, url: str, retries: int = 1, metrics: Metrics = NULL_METRICS) -> Redis:
    """Return a client of the server at `url`, not yet connected.

    Text that UTF-8 cannot encode is replaced, both ways: one value must not fail the others of its pipeline.
    A command is retried only if the connection is lost, every `RETRY_PAUSE_S`: the server may have restarted. It fails
    after `settings.timeout_s`, where redis-py's own defaults block for about four seconds.
    """
    password = read_secret(settings.password_env).get_secret_value() if settings.password_env else None
    pool = BlockingConnectionPool.from_url(
        url,
        password=password,
        decode_responses=True,
        encoding_errors="replace",
        max_connections=MAX_CONNECTIONS,
        timeout=settings.timeout_s,
        socket_timeout=settings.timeout_s,
        socket_connect_timeout=settings.timeout_s,
        retry=Retry(ConstantBackoff(RETRY_PAUSE_S), retries, supported_errors=(RedisConnectionError,)),
    )
    pool.connection_class = PACKING.get(pool.connection_class, pool.connection_class)
    client = MeasuredRedis.from_pool(pool)
    client.metrics = metrics  # type: ignore[attr-defined]  # redis-py says `Redis` of any subclass
    return client


class _PackingMixin:
    """Packs commands in C.

    A script call takes 5 µs. The Python code of redis-py's asyncio client takes 40.
    """

    def pack_command(self, *args: Any) -> list[bytes]:
        try:
            return [hiredis.pack_command((*args[0].encode().split(), *args[1:]))]
        except (AttributeError, TypeError, UnicodeError):  # bytes as the name, another type, or text to be replaced
            packed: list[bytes] = super().pack_command(*args)  # type: ignore[misc]  # of the connection beside it
            return packed


class _PackingConnection(_PackingMixin, Connection):
    """A plain connection."""


class _PackingSSLConnection(_PackingMixin, SSLConnection):
    """A connection over TLS."""


PACKING: dict[Any, Any] = {Connection: _PackingConnection, SSLConnection: _PackingSSLConnection}


class MeasuredRedis(Redis):
    """A Redis client that measures each round trip."""

    metrics: Metrics = NULL_METRICS

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        execute: Any = super().execute_command
        if args[0] in BLOCKING:
            return await execute(*args, **options)
        with measure_call(self.metrics, "redis"):
            return await execute(*args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:  # noqa: FBT001, FBT002 - redis-py's signature
        pipe = MeasuredPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.metrics = self.metrics
        return pipe


class MeasuredPipeline(Pipeline):
    """A pipeline, measured as one round trip."""

    metrics: Metrics = NULL_METRICS

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - redis-py's signature
        with measure_call(self.metrics, "redis"):
            return await super().execute(raise_on_error)


def is_wrong_type(reply: object) -> bool:
    """Return whether a command of a pipeline met a key of another type."""
    return isinstance(reply, RedisError) and str(reply).startswith("WRONGTYPE")


def is_key_error(reply: object) -> bool:
    """Return whether an error is about one key or argument, and not about the server."""
    if isinstance(reply, DataError):
        return True
    text = str(reply)
    return type(reply) is ResponseError and bool(_OF_ONE_KEY.search(text)) and not _OF_THE_SERVER.search(text)


def to_store_error(error: BaseException) -> StoreUnavailable:
    """Return our error for one of Redis's."""
    if is_key_error(error):
        return StoreCorrupt("What Redis holds under this key cannot be read")
    return StoreUnavailable(f"Redis did not answer ({type(error).__name__})")


@contextmanager
def translate_redis_errors() -> Iterator[None]:
    """Raise Redis's errors in the block as ours.

    Raises:
        StoreUnavailable: the server did not answer, or refused.
        StoreCorrupt: it answered, and a key holds what it must not.
    """
    try:
        yield
    except (RedisError, OSError) as error:
        raise to_store_error(error) from error
