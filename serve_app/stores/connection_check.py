"""Does a store that was named by URL answer, and does it take our credentials?"""

from __future__ import annotations

import logging
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from serve_app.config import EMBEDDED, read_environment
from serve_app.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve_app.config import MilvusSettings, RedisSettings

TIMEOUT_S = 3.0
"""A healthy store takes milliseconds, and a start waits for this."""


def find_redis_problems(settings: RedisSettings) -> Iterator[Problem]:
    """One PING, where the Redis is not embedded."""
    if settings.url == EMBEDDED:
        return
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
    from redis.retry import Retry

    limits = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S, "retry": Retry(NoBackoff(), 0)}
    try:
        with Redis.from_url(settings.url, password=_secret(settings.password_env), **limits) as client:
            client.ping()
    except (AuthenticationError, NoPermissionError):
        mend = "Name the variable that holds the right one: redis.password_env"
        yield Problem("redis.url", "Redis answers, but refuses the password", mend)
    except (RedisError, OSError, ValueError, TypeError) as error:  # the last two: a query string it does not know
        yield Problem("redis.url", f"Redis does not answer ({_line(error)})", "Start it, or mend the address")


def find_milvus_problems(settings: MilvusSettings) -> Iterator[Problem]:
    """One list of collections, where the Milvus is not embedded: unlike a version, a list needs the token."""
    if settings.url == EMBEDDED:
        return
    import grpc
    from pymilvus import MilvusClient
    from pymilvus.exceptions import MilvusException

    token = _secret(settings.token_env) or ""
    try:
        with _silent("pymilvus"), closing(MilvusClient(settings.url, token=token, timeout=TIMEOUT_S)) as client:
            client.list_collections(timeout=TIMEOUT_S)
    except (MilvusException, grpc.RpcError, OSError, ValueError) as error:
        if _is_refusal(error) or _is_refusal(error.__cause__):
            mend = "Name the variable that holds the right one, user:password: milvus.token_env"
            yield Problem("milvus.url", "Milvus answers, but refuses the token", mend)
        else:
            what = getattr(error, "message", None) or _line(error)
            yield Problem("milvus.url", f"Milvus does not answer ({what})", "Start it, or mend the address")


def _secret(name: str | None) -> str | None:
    return read_environment().get(name) if name else None


def _is_refusal(error: BaseException | None) -> bool:
    """Only gRPC's status, which pymilvus leaves in the cause, tells a wrong token from a server that is down."""
    import grpc

    return isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNAUTHENTICATED


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Without the tracebacks that a library logs of errors it raises as well."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
