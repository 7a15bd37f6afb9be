"""Kinds of rude clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HEAD = "POST {path}/agent/chat HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
UNFINISHED_HEADERS = "GET {path}/healthz HTTP/1.1\r\nX-Slow: "
UNFINISHED_BODY = HEAD + "Content-Length: 9999\r\n\r\n{{"
DRIPPING, DEAF, LARGE = 200, 100, 2
DEAF_PER_S = 10
"""What they ask for is work as any other's: what it costs that they hold on is seen when it is done."""
SETTLED_S = {"do not read": 1 + DEAF / DEAF_PER_S}
"""After which a kind does what it does and nothing else; of the others, a second."""
MANY_HEADERS = "".join(f"X-{number}: 1\r\n" for number in range(10_000))
PIECE = b"x" * 65536
LARGE_BYTES = 100_000_000

Outcomes = Counter[str]


async def _opened(url: str, receive_bytes: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    raw = socket.socket()
    if receive_bytes:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    raw.settimeout(0)
    await asyncio.get_running_loop().sock_connect(raw, (parts.hostname, parts.port))
    return await asyncio.open_connection(sock=raw, limit=receive_bytes or 65536)


async def _drip(url: str, first: str, outcomes: Outcomes) -> None:
    """What comes first, then a byte a second, until the service has answered or hung up."""
    reader, writer = await _opened(url)
    try:
        writer.write(first.format(path=urlsplit(url).path).encode())
        answered = asyncio.create_task(reader.readline())
        while not answered.done():
            writer.write(b"x")
            await writer.drain()
            await asyncio.wait({answered}, timeout=1)
        outcomes[_status(answered.result())] += 1
    except ConnectionError:
        outcomes["cut off"] += 1
    finally:
        writer.close()


async def _deaf(url: str, number: int, outcomes: Outcomes) -> None:
    """Asks for a stream when it is its turn, and reads nothing of it."""
    await asyncio.sleep(number / DEAF_PER_S)
    body = json.dumps({"user_input": "hello", "session_id": f"deaf-{number}", "stream": True}).encode()
    _, writer = await _opened(url, 2048)
    try:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        head = HEAD.format(path=urlsplit(url).path) + f"Content-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        outcomes["deaf"] += 1
        await asyncio.sleep(3600)
    finally:
        writer.close()


async def _many_headers(url: str, outcomes: Outcomes) -> None:
    """One request after another."""
    while True:
        reader, writer = await _opened(url)
        try:
            writer.write(f"GET {urlsplit(url).path}/healthz HTTP/1.1\r\nHost: a\r\n{MANY_HEADERS}\r\n".encode())
            outcomes[_status(await reader.readline())] += 1
        except ConnectionError:
            outcomes["cut off"] += 1
        finally:
            writer.close()
        await asyncio.sleep(0.5)


async def _large(url: str, outcomes: Outcomes) -> None:
    while True:
        reader, writer = await _opened(url)
        try:
            writer.write(f"{HEAD.format(path=urlsplit(url).path)}Content-Length: {LARGE_BYTES}\r\n\r\n".encode())
            answered = asyncio.create_task(reader.readline())
            for _ in range(LARGE_BYTES // len(PIECE)):
                if answered.done():
                    break
                writer.write(PIECE)
                await writer.drain()
                await asyncio.sleep(0.001)
            outcomes[_status(await answered)] += 1
        except ConnectionError:
            outcomes["cut off"] += 1
        finally:
            writer.close()
        await asyncio.sleep(0.5)


def _status(line: bytes) -> str:
    return line.split()[1].decode() if line else "cut off"


KINDS = {
    "headers drip": lambda url, outcomes: [_drip(url, UNFINISHED_HEADERS, outcomes) for _ in range(DRIPPING)],
    "bodies drip": lambda url, outcomes: [_drip(url, UNFINISHED_BODY, outcomes) for _ in range(DRIPPING)],
    "do not read": lambda url, outcomes: [_deaf(url, number, outcomes) for number in range(DEAF)],
    "10,000 headers": lambda url, outcomes: [_many_headers(url, outcomes)],
    "100 MB": lambda url, outcomes: [_large(url, outcomes) for _ in range(LARGE)],
}
"""What the service at a URL is done to, and what it says of it."""


@asynccontextmanager
async def rudely(url: str, kind: str) -> AsyncIterator[Outcomes]:
    """Clients of this kind, all there when the block begins and to its end; what they were answered."""
    outcomes: Outcomes = Counter()
    clients = [asyncio.create_task(each) for each in KINDS[kind](url, outcomes)]
    await asyncio.sleep(SETTLED_S.get(kind, 1))
    try:
        yield outcomes
    finally:
        for each in clients:
            each.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*clients, return_exceptions=True)
