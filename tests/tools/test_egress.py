"""Addresses that a tool may connect to, and URLs that arguments can make."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from serve_app.tools.egress import ALWAYS_BLOCKED, EgressPolicy, is_always_blocked, is_public
from serve_app.tools.http_tool import fill_template, url_text
from serve_app.tools.tool import WrongArguments

PRIVATE = [
    "127.0.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.1.1",
    "100.64.0.1",
    "198.18.0.1",
    "::1",
    "fe80::1",
    "fc00::1",
    "fec0::1",
    "::ffff:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "2002:0a00:0001::1",
    "::127.0.0.1",
    "2001::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_leads_inside_needs_to_be_listed(address: str) -> None:
    found = ip_address(address)
    assert not is_public(found)
    assert not EgressPolicy([]).allows("h", 80, found)
    assert EgressPolicy(["h"]).allows("h", 80, found) != is_always_blocked(found)
    assert not EgressPolicy(["other", "h:81"]).allows("h", 80, found)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::8.8.8.8", "2002:0808:0808::1"])
def test_an_address_of_the_open_internet_needs_no_list(address: str) -> None:
    assert EgressPolicy([]).allows("h", 80, ip_address(address))


@given(address=st.sampled_from(ALWAYS_BLOCKED).flatmap(lambda network: st.ip_addresses(network=str(network))))
def test_what_no_list_opens_stays_closed_in_every_spelling(address: IPv4Address | IPv6Address) -> None:
    spellings: list[Any] = [address]
    if isinstance(address, IPv4Address):
        spellings += [IPv6Address(f"::ffff:{address}"), IPv6Address(f"64:ff9b::{address}")]
        spellings += [IPv6Address((0x2002 << 112) | (int(address) << 80))]
    for each in spellings:
        assert not EgressPolicy(["h", "h:80"]).allows("h", 80, each)


@given(address=st.ip_addresses(v=4))
def test_an_address_in_disguise_is_judged_as_what_it_is(address: IPv4Address) -> None:
    for disguise in (IPv6Address(f"::ffff:{address}"), IPv6Address(f"64:ff9b::{address}")):
        assert EgressPolicy([]).allows("h", 80, disguise) == EgressPolicy([]).allows("h", 80, address)


@given(address=st.ip_addresses())
def test_nothing_is_public_that_the_registries_keep(address: IPv4Address | IPv6Address) -> None:
    if is_public(address):
        assert address.is_global
        assert not any((address.is_private, address.is_loopback, address.is_link_local, address.is_multicast))


@given(
    first=st.one_of(st.text(), st.integers(), st.booleans(), st.lists(st.text(), max_size=2)),
    second=st.text(),
)
def test_no_argument_leaves_its_place_in_the_url(first: Any, second: str) -> None:
    template = "https://user.example:8443/v1/{first}/items;x/{first}{second}?q={second}&r=1#top"
    try:
        url = fill_template(template, {"first": first, "second": second})
    except UnicodeEncodeError:
        assume(False)  # noqa: FBT003 - a lone surrogate is no text
    except WrongArguments:
        texts = [url_text(first), url_text(first) + second]
        assert "" in texts or {".", ".."} & {step for text in texts for step in re.split(r"[/\\\\]", text)}
        return
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "user.example:8443", "top")
    path = [unquote(each) for each in parts.path.split("/")]
    assert path == ["", "v1", url_text(first), "items;x", url_text(first) + second]
    assert [unquote(each) for each in parts.query.split("&")] == [f"q={second}", "r=1"]
