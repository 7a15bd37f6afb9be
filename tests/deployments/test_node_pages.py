"""Does a node that is gone, that hangs or that fails keep nobody waiting for the others?"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from serve_app.deployments import replica_metrics
from serve_app.deployments.replica_metrics import create_metrics
from serve_app.observability.metric_catalogue import TURNS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HANGS_S = 0.3


@asynccontextmanager
async def node(answer: bytes) -> AsyncIterator[str]:
    """The address of a node that answers so; without an answer it hangs."""

    over, served = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if not answer:
            await over.wait()
        writer.close()
        await writer.wait_closed()
        served.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        over.set()
        await served.wait()


async def _asked(address: str) -> str | None:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await replica_metrics._read_page(client, address)


def _http(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


async def test_a_nodes_page_is_its_text() -> None:
    async with node(_http("200 OK", "ray_up 1\n")) as address:
        assert await _asked(address) == "ray_up 1\n"


@pytest.mark.parametrize("answer", [_http("500 Oops", "a secret"), b"no HTTP\r\n\r\n"])
async def test_a_page_that_is_an_error_is_none(answer: bytes) -> None:
    async with node(answer) as address:
        assert await _asked(address) is None


async def test_a_node_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_metrics, "PAGE_S", HANGS_S)
    async with node(b"") as address:
        begun = time.monotonic()
        assert await _asked(address) is None
    assert HANGS_S <= time.monotonic() - begun < 5 * HANGS_S


async def test_a_node_that_is_gone_is_none() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        assert await _asked(f"127.0.0.1:{held.getsockname()[1]}") is None


def test_a_service_that_does_not_measure_itself_asks_nothing_of_ray() -> None:
    create_metrics(exported=False).count(TURNS, status="success", variant="stable")
