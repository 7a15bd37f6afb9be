"""Checks, at the start, that Redis and Milvus answer and accept our credentials."""

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
"""A healthy store takes milliseconds, and the start waits for the check."""


def find_redis_problems(settings: RedisSettings) -> Iterator[Problem]:
    """Send one PING, unless Redis is embedded, and yield the problem found."""
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
        with _silent("pymilvus"), closing(MilvusClient(settings.url, token=token, timeout=TIMEOUT_S)) as client:
            client.list_collections(timeout=TIMEOUT_S)
    except (MilvusException, grpc.RpcError, OSError, ValueError) as error:
        if _is_refusal(error) or _is_refusal(error.__cause__):
            fix = "Name the variable that holds the right one, user:password: milvus.token_env"
            yield Problem("milvus.url", "Milvus answers, but refuses the token", fix)
        else:
            what = getattr(error, "message", None) or _line(error)
            yield Problem("milvus.url", f"Milvus does not answer ({what})", "Start it, or correct the address")


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
