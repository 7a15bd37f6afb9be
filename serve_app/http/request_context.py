"""Request data that middleware and routes share: request id, caller, path, address, deadline.

Middleware stores the request id, the caller and the metering in the ASGI scope; routes make a `Context` of them, which
goes with the request through every process.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING
from uuid import uuid4

from starlette._utils import get_route_path
from starlette.datastructures import Headers

from serve_app.errors import DeadlineExceeded, InvalidRequest
from serve_app.observability.traceparent import HEADER as TRACEPARENT
from serve_app.observability.traceparent import valid_traceparent
from serve_app.resilience.deadline import local_deadline, remaining_s
from serve_app.values import Caller, Context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from ipaddress import IPv4Network, IPv6Network

    from starlette.requests import Request
    from starlette.types import Scope

    from serve_app.values import CacheControl, Failure, Metering

    Address = IPv4Address | IPv6Address
    Network = IPv4Network | IPv6Network

REQUEST_ID = "X-Request-Id"
CACHE_CONTROL = "Cache-Control"
GRACE_S = 2.0
"""Waited past the deadline: the process that is called keeps the deadline too, and its own error says more."""
MAX_HOPS = 20
"""Addresses of `X-Forwarded-For` that are read, from the nearest on. A client may send a header of any length."""
UNKNOWN_ADDRESS = "unknown"
ANONYMOUS = Caller()

_RELOAD = {"no-cache", "max-age=0"}
"""A browser sends the second when it reloads a page."""
_REQUEST_ID_KEY = "serve_app.request_id"
_CALLER_KEY = "serve_app.caller"
_METERING_KEY = "serve_app.metering"
_FAILURE_KEY = "serve_app.failure"


def make_context(
    request: Request,
    turn_timeout_s: float,
    session_id: str = "",
    run_id: str | None = None,
    min_timeout_s: float = 0.0,
) -> Context:
    """Make the `Context` of a request, without `run_id` that of a new run.

    An empty session id is for a turn without a session.
    """
    timeout_s = max(turn_timeout_s, min_timeout_s)
    caller = caller_of(request.scope)
    return Context(
        request_id=request_id_of(request.scope),
        run_id=run_id or uuid4().hex,
        session_id=session_id,
        tenant=caller.tenant,
        key_id=caller.key_id,
        metering=metering_of(request.scope),
        deadline=time.time() + timeout_s,
        timeout_s=timeout_s,
        cache=parse_cache_control(request.headers.getlist(CACHE_CONTROL)),
        traceparent=valid_traceparent(request.headers.get(TRACEPARENT)),
    )


def answer_timeout_s(context: Context) -> float:
    """How long a route waits for a result: until the deadline and `GRACE_S` more."""
    return remaining_s(local_deadline(context)) + GRACE_S


@asynccontextmanager
async def time_limit(limit_s: float, message: str = "The request's time ran out") -> AsyncIterator[None]:
    """Cancel the block after `limit_s` seconds.

    Raises:
        DeadlineExceeded: the block was cancelled.
    """
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError:
        raise DeadlineExceeded(message) from None


def request_id_of(scope: Scope) -> str:
    """The request's id, as `RequestIdMiddleware` has set it."""
    request_id: str = scope[_REQUEST_ID_KEY]
    return request_id


def set_request_id(scope: Scope, request_id: str) -> None:
    """Give the request its id."""
    scope[_REQUEST_ID_KEY] = request_id


def is_authenticated(scope: Scope) -> bool:
    """Whether the request has shown a valid key."""
    return _CALLER_KEY in scope


def caller_of(scope: Scope) -> Caller:
    """The authenticated caller; an anonymous one of the default tenant where no keys are required."""
    caller: Caller = scope.get(_CALLER_KEY, ANONYMOUS)
    return caller


def set_caller(scope: Scope, caller: Caller) -> None:
    """Store the authenticated caller."""
    scope[_CALLER_KEY] = caller


def metering_of(scope: Scope) -> Metering | None:
    """The token limits to which the turn's tokens are charged."""
    metering: Metering | None = scope.get(_METERING_KEY)
    return metering


def set_metering(scope: Scope, metering: Metering | None) -> None:
    """Store the token limits to which the turn's tokens are charged."""
    scope[_METERING_KEY] = metering


def failure_of(scope: Scope) -> Failure | None:
    """The error with which the request is answered.

    None if there is no error, or if the turn has a run: the run's log tells how it failed.
    """
    failure: Failure | None = scope.get(_FAILURE_KEY)
    return failure


def set_failure(scope: Scope, failure: Failure) -> None:
    """Store the error with which the request is answered."""
    scope[_FAILURE_KEY] = failure


def path_of(scope: Scope) -> str:
    """The path that routes are matched with, without the application's prefix.

    A line break at the end is removed: the `$` of a route's pattern matches before it too.
    """
    path: str = get_route_path(scope)
    return path.removesuffix("\n")


def require_single_header(request: Request, name: str) -> None:
    """Refuse a header that was sent twice, because either value may be the intended one.

    Raises:
        InvalidRequest: the header came more than once.
    """
    if len(request.headers.getlist(name)) > 1:
        raise InvalidRequest(f"Header {name!r} came more than once; send it once")


def parse_cache_control(values: Iterable[str]) -> CacheControl:
    """Read `Cache-Control` of a request (RFC 9111), from one or several header lines.

    Other directives are ignored.
    """
    directives = {each.strip().lower() for each in ",".join(values).split(",")}
    if "no-store" in directives:
        return "no-store"
    return "no-cache" if directives & _RELOAD else ""


def parse_networks(networks: Iterable[str]) -> tuple[Network, ...]:
    """Parse configured networks such as `10.0.0.0/8`."""
    return tuple(map(ip_network, networks))


def client_address(scope: Scope, trusted: tuple[Network, ...]) -> str:
    """The nearest address that is not a trusted proxy.

    For IPv6 it is the /64 network, because a customer owns a whole one.

    `scope["client"]` comes from uvicorn. Behind Serve's own proxy it is the peer of the connection, or the last address
    of `X-Forwarded-For` where the peer is this machine. Behind HAProxy it is always HAProxy, which adds no header.
    """
    client = scope.get("client")
    address = _parse_address(client[0]) if client else None
    if address is None:
        return UNKNOWN_ADDRESS
    for hop in _forwarded_hops(scope) if trusted else ():
        previous = _parse_address(hop)
        if previous is None or not any(address in network for network in trusted):
            break
        address = previous
    return str(address) if address.version == 4 else str(ip_network((address, 64), strict=False))  # noqa: PLR2004 - IPv4


def _forwarded_hops(scope: Scope) -> list[str]:
    """Addresses of `X-Forwarded-For`, the nearest first."""
    hops = ",".join(Headers(scope=scope).getlist("X-Forwarded-For"))
    return [each.strip() for each in hops.rsplit(",", MAX_HOPS)[-MAX_HOPS:]][::-1]


def _parse_address(text: str) -> Address | None:
    """Parse an address; some proxies add the port."""
    host = text.partition("]")[0].removeprefix("[")
    host = host.partition(":")[0] if host.count(":") == 1 else host
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
