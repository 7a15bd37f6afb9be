"""The running service opens only the ports that configs/ports.md lists."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections import Counter
from typing import TYPE_CHECKING

import psutil
from running_service import ROOT

if TYPE_CHECKING:
    from running_service import Service

ROW = re.compile(r"\| [^|]+ \| `([^`]+)` \| ((?:loopback|node|all)(?:, node)?) \|")


def documented_ports() -> dict[str, Counter[str]]:
    """Which process may listen on what, by the table; the first process that fits is meant."""
    text = (ROOT / "configs" / "ports.md").read_text(encoding="utf-8")
    listed: dict[str, Counter[str]] = {}
    for process, where in ROW.findall(text):
        listed.setdefault(process, Counter()).update(where.split(", "))
    return dict(sorted(listed.items(), key=lambda row: -len(row[0])))  # `ray::` is any other of Ray's


def _where(address: str) -> str:
    ip = ipaddress.ip_address(address.removeprefix("::ffff:"))
    return "all" if ip.is_unspecified else "loopback" if ip.is_loopback else "node"


def listening() -> list[tuple[str, Counter[str]]]:
    """The command line of each process, and where it listens: two clusters on a machine share some fixed ports."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            sockets = [each for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
            found.append((" ".join(process.cmdline()), Counter(_where(each.laddr.ip) for each in sockets)))
    return found


def test_no_port_is_open_that_the_table_does_not_tell_of(service: Service) -> None:
    service.wait_until_ready(30)
    table, unknown = documented_ports(), []
    for line, sockets in listening():
        allowed = next((where for process, where in table.items() if process in line), Counter[str]())
        if more := sockets - allowed:
            unknown.append((line[:120], dict(more)))
    assert unknown == []


def test_the_table_has_no_process_that_is_not_there(service: Service) -> None:
    service.wait_until_ready(30)
    lines = [line for line, _ in listening()]
    elsewhere = {"serve run"}  # here a test is the driver
    assert [
        each for each in documented_ports() if each not in elsewhere and not any(each in line for line in lines)
    ] == []
