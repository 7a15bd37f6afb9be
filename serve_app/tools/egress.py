"""Where may a tool connect to?

A tool contacts the hosts of its own URLs only, which the configuration names. A name can still lead inside: its
addresses are looked up once per request, each must be public unless the host is listed, and the connection goes to an
address that was checked, so that a name that changes its mind in between gains nothing. TLS and the Host header keep
the name.

No list opens `NEVER`: the addresses at which clouds hand out a machine's credentials, and those that are no host's.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterable

logger = logging.getLogger(__name__)

Address = IPv4Address | IPv6Address

NEVER = [
    ip_network(each)
    for each in (
        "0.0.0.0/8",
        "100.100.100.200/32",  # Alibaba's metadata
        "168.63.129.16/32",  # Azure's host
        "169.254.169.254/32",  # AWS, Azure, Google, OpenStack
        "169.254.170.2/32",  # AWS containers
        "169.254.170.23/32",
        "192.0.0.192/32",  # Oracle
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::/128",
        "fd00:ec2::/32",  # AWS
        "fd20:ce::254/128",  # Google
        "ff00::/8",
    )
]
NAT64 = ip_network("64:ff9b::/96")
SITE_LOCAL = ip_network("fec0::/10")


class EgressRefused(Exception):
    """The host has an address that the tool may not connect to."""


def embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, or the address itself."""
    if isinstance(address, IPv6Address):
        if address in NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def refused_always(address: Address) -> bool:
    """Whether no configuration allows the address."""
    inner = embedded(address)
    return any(inner in network for network in NEVER)


def public(address: Address) -> bool:
    """Whether the address belongs to the open internet."""
    inner = embedded(address)
    return inner.is_global and not (
        inner.is_multicast or inner.is_reserved or inner in SITE_LOCAL or refused_always(inner)
    )


class Egress:
    """The rules; `private_hosts` are `host` or `host:port`."""

    def __init__(self, private_hosts: Iterable[str]) -> None:
        self._private = frozenset(each.lower() for each in private_hosts)

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of `host`, all of which may be connected to.

        Raises:
            EgressRefused: one of them may not.
            httpx.ConnectError: the name is unknown.
        """
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"the name {host} does not resolve") from error
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        for each in addresses:
            if not self.allows(host, port, ip_address(each)):
                mend = "list the host in egress.private_hosts"
                logger.error("address_refused", extra={"host": f"{host}:{port}", "address": each, "mend": mend})
                raise EgressRefused(host)
        return addresses

    def allows(self, host: str, port: int, address: Address) -> bool:
        """Whether a connection to `host` may go to `address`."""
        if refused_always(address):
            return False
        name = f"[{host}]" if ":" in host else host
        return public(address) or not self._private.isdisjoint({name.lower(), f"{name.lower()}:{port}"})


class CheckedTransport(httpx.AsyncBaseTransport):
    """Sends each request to an address that the rules allow."""

    def __init__(self, rules: Egress) -> None:
        self._rules = rules
        self._inner = httpx.AsyncHTTPTransport(verify=certificates(), trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        host = url.raw_host.decode("ascii")
        port = url.port or (443 if url.scheme == "https" else 80)
        *others, last = await self._rules.addresses(host, port)
        for address in others:
            try:
                return await self._inner.handle_async_request(_addressed(request, host, address))
            except httpx.ConnectError:
                continue
        return await self._inner.handle_async_request(_addressed(request, host, last))

    async def aclose(self) -> None:
        await self._inner.aclose()


def _addressed(request: httpx.Request, host: str, address: str) -> httpx.Request:
    """The same request, to `address`; the header Host is there already."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": host},
    )


@cache
def certificates() -> ssl.SSLContext:
    """Loading them takes 20-40 ms of the event loop: once."""
    return ssl.create_default_context()
