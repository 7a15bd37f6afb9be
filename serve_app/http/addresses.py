"""From which address does a request come?

`scope["client"]` is what uvicorn saw: under Serve's own proxy the other end of the connection, or, where that is this
machine, the last address of `X-Forwarded-For`; under HAProxy always HAProxy itself, which adds no header of its own.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Network, IPv6Network

    from starlette.types import Scope

    Address = IPv4Address | IPv6Address
    Network = IPv4Network | IPv6Network

HOPS = 20
"""Looked at, from the nearest on: a chain of proxies is shorter, and a header may be as long as its sender likes."""
NOBODY = "unknown"


def networks(written: Iterable[str]) -> tuple[Network, ...]:
    """The networks that the configuration names."""
    return tuple(map(ip_network, written))


def address_of(scope: Scope, trusted: tuple[Network, ...]) -> str:
    """The nearest address that is no trusted proxy's; of IPv6 the /64, which one customer has all of."""
    client = scope.get("client")
    found = _parsed(client[0]) if client else None
    if found is None:
        return NOBODY
    for hop in _forwarded(scope) if trusted else ():
        before = _parsed(hop)
        if before is None or not _within(found, trusted):
            break
        found = before
    return str(found) if found.version == 4 else str(ip_network((found, 64), strict=False))  # noqa: PLR2004 - IPv4


def _forwarded(scope: Scope) -> list[str]:
    listed = ",".join(Headers(scope=scope).getlist("X-Forwarded-For"))
    return [each.strip() for each in listed.rsplit(",", HOPS)[-HOPS:]][::-1]


def _within(address: Address, trusted: tuple[Network, ...]) -> bool:
    return any(address in network for network in trusted)


def _parsed(written: str) -> Address | None:
    """Some proxies add the port."""
    host = written.partition("]")[0].removeprefix("[")
    host = host.partition(":")[0] if host.count(":") == 1 else host
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
