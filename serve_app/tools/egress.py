"""The SSRF guard: decides which addresses a tool may connect to.

A tool connects only to the hosts of its own URLs, which the configuration names. A host name may still resolve to an
internal address. So the name is resolved once per request, every address must be public unless the host is listed in
`egress.private_hosts`, and the connection goes to an address that was checked: DNS rebinding gains nothing. TLS and the
Host header use the name.

`ALWAYS_BLOCKED` cannot be opened by any setting: cloud metadata addresses, and addresses that belong to no host.
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

ALWAYS_BLOCKED = [
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
    """The host has an address to which the tool may not connect."""


def embedded_ipv4(address: Address) -> Address:
    """The IPv4 address inside an IPv6 address (NAT64, mapped, 6to4); otherwise the address itself."""
    if isinstance(address, IPv6Address):
        if address in NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def is_always_blocked(address: Address) -> bool:
    """Whether no setting can allow the address."""
    inner = embedded_ipv4(address)
    return any(inner in network for network in ALWAYS_BLOCKED)


def is_public(address: Address) -> bool:
    """Whether the address belongs to the public internet."""
    inner = embedded_ipv4(address)
    return inner.is_global and not (
        inner.is_multicast or inner.is_reserved or inner in SITE_LOCAL or is_always_blocked(inner)
    )


class EgressPolicy:
    """The rules of the guard; `private_hosts` are `host` or `host:port`."""

    def __init__(self, private_hosts: Iterable[str]) -> None:
        self._private = frozenset(each.lower() for each in private_hosts)

    async def resolve(self, host: str, port: int) -> list[str]:
        """The addresses of `host`, all of them allowed.

        Raises:
            EgressRefused: one of them is not allowed.
            httpx.ConnectError: the name does not resolve.
        """
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"the name {host} does not resolve") from error
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        for each in addresses:
            if not self.allows(host, port, ip_address(each)):
                fix = "list the host in egress.private_hosts"
                logger.error("address_refused", extra={"host": f"{host}:{port}", "address": each, "fix": fix})
                raise EgressRefused(host)
        return addresses

    def allows(self, host: str, port: int, address: Address) -> bool:
        """Whether a connection to `host` may go to `address`."""
        if is_always_blocked(address):
            return False
        name = f"[{host}]" if ":" in host else host
        return is_public(address) or not self._private.isdisjoint({name.lower(), f"{name.lower()}:{port}"})


class SsrfGuardTransport(httpx.AsyncBaseTransport):
    """An httpx transport that connects only to addresses that the policy allows."""

    def __init__(self, policy: EgressPolicy) -> None:
        self._policy = policy
        self._inner = httpx.AsyncHTTPTransport(verify=tls_context(), trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        host = url.raw_host.decode("ascii")
        port = url.port or (443 if url.scheme == "https" else 80)
        *others, last = await self._policy.resolve(host, port)
        for address in others:
            try:
                return await self._inner.handle_async_request(_with_address(request, host, address))
            except httpx.ConnectError:
                continue
        return await self._inner.handle_async_request(_with_address(request, host, last))

    async def aclose(self) -> None:
        await self._inner.aclose()


def _with_address(request: httpx.Request, host: str, address: str) -> httpx.Request:
    """The same request to `address`; its Host header already has the name."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": host},
    )


@cache
def tls_context() -> ssl.SSLContext:
    """The TLS context of all tools, made once: loading the certificates blocks for 20-40 ms."""
    return ssl.create_default_context()
