"""How is Redis reached, and how does its failure become ours?"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, RedisError, ResponseError

from serve_app.config import read_secret
from serve_app.errors import StoreCorrupt, StoreUnavailable
from serve_app.observability.null import NULL_METRICS
from serve_app.stores.telemetry import MeasuredRedis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.asyncio import Redis

    from serve_app.config import RedisSettings
    from serve_app.ports import Metrics

MAX_CONNECTIONS = 64
"""Of one process; a command that finds all of them in use waits for one, up to its time-out."""

RETRY_PAUSE_S = 0.05
RETRIES_DURING_RESTART = 30
"""Tries again of a process that has nothing better to do than to wait for an embedded Redis: 1.5 s."""

_OF_ONE_KEY = re.compile(r"WRONGTYPE|user_script|not an integer|not a (?:valid )?float|stream ID|XADD")
_OF_THE_SERVER = re.compile(r"\b(?:OOM|MISCONF|READONLY|NOREPLICAS|LOADING|MASTERDOWN|BUSY|NOPERM|NOAUTH|NOSCRIPT)\b")
"""A script's error names the script, whatever went wrong in it."""


def create_redis_client(
    settings: RedisSettings, url: str, tries_again: int = 1, metrics: Metrics = NULL_METRICS
) -> Redis:
    """A client of the server at `url`, not yet connected.

    Text that UTF-8 cannot say is replaced, both ways: one value must not fail the others of its pipeline.
    A command is tried again on a lost connection only, every `PAUSE_S`: the server may have restarted. It gives up
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
        retry=Retry(ConstantBackoff(RETRY_PAUSE_S), tries_again, supported_errors=(RedisConnectionError,)),
    )
    client = MeasuredRedis.from_pool(pool)
    client.metrics = metrics  # type: ignore[attr-defined]  # redis-py says `Redis` of any subclass
    return client


def is_wrong_type(reply: object) -> bool:
    """Whether a command of a pipeline met a key of another type than its own."""
    return isinstance(reply, RedisError) and str(reply).startswith("WRONGTYPE")


def is_key_error(reply: object) -> bool:
    """Whether a failure says that one key, or one argument, is wrong, and nothing of the server."""
    if isinstance(reply, DataError):
        return True
    text = str(reply)
    return type(reply) is ResponseError and bool(_OF_ONE_KEY.search(text)) and not _OF_THE_SERVER.search(text)


def to_store_error(error: BaseException) -> StoreUnavailable:
    """Redis's failure as ours."""
    if is_key_error(error):
        return StoreCorrupt("What Redis keeps of this cannot be read")
    return StoreUnavailable(f"Redis did not answer ({type(error).__name__})")


@contextmanager
def translate_redis_errors() -> Iterator[None]:
    """Redis's failures, raised as ours.

    Raises:
        StoreUnavailable: the server did not answer, or refused.
        StoreCorrupt: it answered, and a key holds what it must not.
    """
    try:
        yield
    except (RedisError, OSError) as error:
        raise to_store_error(error) from error
