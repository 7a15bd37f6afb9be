"""The address of a client is its own, whatever its headers say."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.http.request_context import UNKNOWN_ADDRESS, client_address, parse_networks

PROXIES = parse_networks(["10.0.0.0/8", "127.0.0.1", "fd00::/8"])


def scope_of(client: str | None, *forwarded: str) -> dict[str, Any]:
    headers = [(b"x-forwarded-for", each.encode("latin-1")) for each in forwarded]
    return {"type": "http", "client": (client, 1234) if client else None, "headers": headers}


@pytest.mark.parametrize(
    ("client", "forwarded", "expected"),
    [
        ("192.0.2.7", [], "192.0.2.7"),
        ("192.0.2.7", ["198.51.100.1"], "192.0.2.7"),  # anybody can write the header
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.5, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.5, 198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.5", "198.51.100.1,127.0.0.1"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["198.51.100.1:5678"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["", ",,"], "10.0.0.1"),
        ("10.0.0.1", ["\xff" * 100_000], "10.0.0.1"),
        ("10.0.0.1", [", ".join(["198.51.100.1"] + ["10.0.0.9"] * 5000)], "10.0.0.9"),
        ("fd00::1", ["[2001:db8:1:2:3:4:5:6]:443"], "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", [], "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", [], "192.0.2.7"),
        ("/run/socket", [], UNKNOWN_ADDRESS),
        (None, [], UNKNOWN_ADDRESS),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_nearest_address_that_is_no_trusted_proxys_counts(client, forwarded, expected) -> None:
    assert client_address(scope_of(client, *forwarded), PROXIES) == expected


def test_where_no_proxy_is_trusted_the_header_says_nothing() -> None:
    assert client_address(scope_of("127.0.0.1", "198.51.100.1"), ()) == "127.0.0.1"
