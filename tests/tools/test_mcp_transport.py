"""Size limits of an MCP server's messages. Against a server that never stops sending."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import httpx
import pytest
from httpx_sse import EventSource
from hypothesis import given
from hypothesis import strategies as st
from mcp.types import ErrorData

from serve_app.tools.mcp_transport import MIN_LIMIT_BYTES, McpTransport, classify_error, limit_event_size

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CALL = {"jsonrpc": "2.0", "id": 7, "method": "tools/call"}


class Talker:
    """An HTTP server that says `first`, then `more` for ever; `sent` counts."""

    def __init__(self, kind: str, first: bytes, more: bytes, headers: bytes = b"") -> None:
        self._head = b"HTTP/1.1 200 OK\r\nContent-Type: " + kind.encode() + b"\r\n" + headers + b"\r\n"
        self._first, self._more = first, more
        self.sent = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self._head + self._first)
        with suppress(ConnectionError):
            while self._more and self.sent < 100 * MIN_LIMIT_BYTES:
                writer.write(self._more)
                self.sent += len(self._more)
                await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def reached(talker: Talker) -> AsyncIterator[httpx.AsyncClient]:
    async with await asyncio.start_server(talker, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with httpx.AsyncClient(transport=McpTransport(httpx.AsyncHTTPTransport(), 10), base_url=url) as client:
            yield client


async def test_a_body_that_does_not_end_is_an_error_of_the_calls_own_id() -> None:
    talker = Talker("application/json", b'{"jsonrpc": "2.0", "id": 7, "result": "', b"x" * 65536)
    async with reached(talker) as client:
        reply = (await client.post("/", json=CALL)).json()
    assert (reply["id"], classify_error(ErrorData(**reply["error"]))) == (7, "too_long")
    assert talker.sent < 20 * MIN_LIMIT_BYTES


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
async def test_an_event_that_does_not_end_is_discarded_and_an_error_follows(newline: bytes) -> None:
    note = b"event: message" + newline + b'data: {"note": 1}' + newline * 2
    talker = Talker("text/event-stream", note * 3 + b'data: {"result": "', b"x" * 65536)
    async with reached(talker) as client, client.stream("POST", "/", json=CALL) as response:
        events = [event async for event in EventSource(response).aiter_sse()]
    assert [event.event for event in events] == ["message"] * 3 + ["discarded", "message"]
    reply = json.loads(events[-1].data)
    assert (reply["id"], classify_error(ErrorData(**reply["error"]))) == (7, "too_long")
    assert talker.sent < 20 * MIN_LIMIT_BYTES


async def test_a_stream_of_short_events_goes_on() -> None:
    talker = Talker("text/event-stream", b"", b'data: {"note": 1}\n\n' * 1000)
    async with reached(talker) as client, client.stream("GET", "/") as response:
        read = 0
        async for chunk in response.aiter_raw():
            read += len(chunk)
            if read > 5 * MIN_LIMIT_BYTES:
                break
    assert read > 5 * MIN_LIMIT_BYTES


async def test_an_answer_that_is_compressed_though_nobody_asked_is_not_unpacked() -> None:
    talker = Talker("application/json", b"", b"x" * 65536, b"Content-Encoding: gzip\r\n")
    async with reached(talker) as client:
        reply = (await client.post("/", json=CALL)).json()
    assert classify_error(ErrorData(**reply["error"])) == "too_long"


@given(st.lists(st.integers(0, 30), max_size=8), st.integers(1, 40), st.sampled_from(["\n", "\r\n", "\r"]))
def test_events_are_passed_on_as_they_are_however_they_are_cut_until_one_is_too_long(
    sizes: list[int], step: int, newline: str
) -> None:
    events = [f"data: {'x' * size}{newline * 2}".encode() for size in sizes]
    whole, limit = b"".join(events), 24
    chunks = [whole[place : place + step] for place in range(0, len(whole), step)]

    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def read() -> bytes:
        response = httpx.Response(200, content=stream())
        return b"".join([chunk async for chunk in limit_event_size(response, limit, b"refused")])

    reply = asyncio.run(read())
    passed, _, refusal = reply.partition(b"\nevent: discarded")
    assert whole.startswith(passed)
    if all(len(event) <= limit for event in events):
        assert (passed, refusal) == (whole, b"")
    if step == 1:
        assert bool(refusal) == any(len(event) - 1 > limit for event in events)
