"""Checks of Redis and Milvus: at the start, and of Redis while the service runs."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.retry import Retry

from serve_app.config import EMBEDDED, read_environment
from serve_app.errors import Problem, StoreUnavailable
from serve_app.stores.redis import translate_redis_errors
from serve_app.values import DependencyCheck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from redis.asyncio import Redis

    from serve_app.config import MilvusSettings, RedisSettings

CONNECT_TIMEOUT_S = 3.0
"""At the start: a healthy store takes milliseconds, and the start waits for the check."""
PING_TIMEOUT_S = 1.0
"""Less than a readiness probe waits, so that the probe learns what hangs."""
MAX_CLOCK_SKEW_S = 2.0
"""A turn never notices it; synchronised clocks are a hundred times closer."""


def find_redis_problems(settings: RedisSettings) -> Iterator[Problem]:
    """Send one PING, unless Redis is embedded, and yield the problem found."""
    if settings.url == EMBEDDED:
        return
    try:
        with redis.Redis.from_url(
            settings.url,
            password=_secret(settings.password_env),
            socket_timeout=CONNECT_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            client.ping()
    except (AuthenticationError, NoPermissionError):
        fix = "Name the variable that holds the right one: redis.password_env"
        yield Problem("redis.url", "Redis answers, but refuses the password", fix)
    except (RedisError, OSError, ValueError, TypeError) as error:  # the last two: a query string it does not know
        yield Problem("redis.url", f"Redis does not answer ({_line(error)})", "Start it, or correct the address")


def find_milvus_problems(settings: MilvusSettings) -> Iterator[Problem]:
    """List the collections, unless Milvus is embedded, and yield the problem found.

    A list needs the token, which the server's version does not.
    """
    if settings.url == EMBEDDED:
        return
    import grpc
    from pymilvus import MilvusClient
    from pymilvus.exceptions import MilvusException

    token = _secret(settings.token_env) or ""
    try:
        with _silent("pymilvus"), closing(MilvusClient(settings.url, token=token, timeout=CONNECT_TIMEOUT_S)) as client:
            client.list_collections(timeout=CONNECT_TIMEOUT_S)
    except (MilvusException, grpc.RpcError, OSError, ValueError) as error:
        if _is_refusal(error) or _is_refusal(error.__cause__):
            fix = "Name the variable that holds the right one, user:password: milvus.token_env"
            yield Problem("milvus.url", "Milvus answers, but refuses the token", fix)
        else:
            what = getattr(error, "message", None) or _line(error)
            yield Problem("milvus.url", f"Milvus does not answer ({what})", "Start it, or correct the address")


class RedisHealth:
    """The health of the Redis of one process.

    Turns are answered without Redis, but a process that has never reached it probably has a wrong address. Until then
    Redis is a required dependency, so that no turn is sent here.
    """

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._clock = clock
        self._answered = False

    async def checks(self) -> list[DependencyCheck]:
        """Check that Redis answers, and that this machine's clock agrees with its clock."""
        sent_at = self._clock()
        try:
            with translate_redis_errors():
                async with asyncio.timeout(PING_TIMEOUT_S):
                    seconds, microseconds = await self._redis.time()
        except StoreUnavailable as error:
            return [DependencyCheck(name="redis", ok=False, reason=error.message, required=not self._answered)]
        self._answered = True
        return [
            DependencyCheck(name="redis", ok=True),
            check_clock(sent_at, seconds + microseconds / 1e6, self._clock()),
        ]


def check_clock(sent_at: float, server_time: float, received_at: float) -> DependencyCheck:
    """Compare the local clock with `server_time`, which was read between `sent_at` and `received_at`."""
    ahead_s = max(sent_at - server_time, 0.0) or min(received_at - server_time, 0.0)
    if abs(ahead_s) <= MAX_CLOCK_SKEW_S:
        return DependencyCheck(name="clock", ok=True, required=False)
    does = "ahead of Redis's: requests end too early here" if ahead_s > 0 else "behind Redis's: requests may end late"
    reason = f"The clock of this machine is {abs(ahead_s):.0f} s {does}. Synchronise the clocks"
    return DependencyCheck(name="clock", ok=False, reason=reason, required=False)


def _secret(name: str | None) -> str | None:
    return read_environment().get(name) if name else None


def _is_refusal(error: BaseException | None) -> bool:
    """Return whether the server refuses the token, by the gRPC status in the error's cause."""
    import grpc

    return isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNAUTHENTICATED


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Suppress the tracebacks that a library logs of errors it also raises."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
