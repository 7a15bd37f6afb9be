"""How much of an MCP server's answer is read?

A message that grows beyond the limit is read no further. The server's client, which waits for a reply and would wait to
the call's end, is told an error of that id in its place, as if the server had said so.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TOO_LONG = -32099
"""The error's code, of those that JSON-RPC leaves to implementations."""
LEAST_BYTES = 1_000_000
ENVELOPE = 12
"""A text in its JSON may take six times its bytes, and stands there twice where a tool has an output schema."""
ENDS_OF_EVENTS = (b"\n\n", b"\r\r", b"\r\n\r\n")
OVERLAP = 3
"""Bytes of the last chunk in which an end may have begun."""


class CappedTransport(httpx.AsyncBaseTransport):
    """Passes on answers whose text may take `max_bytes`, each message of a stream for itself."""

    def __init__(self, inner: httpx.AsyncBaseTransport, max_bytes: int) -> None:
        self._inner = inner
        self._limit = max(LEAST_BYTES, ENVELOPE * max_bytes)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.headers["Accept-Encoding"] = "identity"
        response = await self._inner.handle_async_request(request)
        encoded = response.headers.get("content-encoding", "identity") != "identity"
        limit = 0 if encoded else self._limit
        streams = response.headers.get("content-type", "").startswith("text/event-stream")
        body = (events_within if streams else _whole)(response, limit, _refusal(request))
        headers = [
            each for each in response.headers.raw if each[0].lower() not in {b"content-length", b"content-encoding"}
        ]
        return httpx.Response(response.status_code, headers=headers, stream=_Body(body, response))

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Body(httpx.AsyncByteStream):
    """What is passed on of a response."""

    def __init__(self, chunks: AsyncIterator[bytes], response: httpx.Response) -> None:
        self._chunks = chunks
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def aclose(self) -> None:
        await self._response.aclose()


async def _whole(response: httpx.Response, limit: int, refusal: bytes) -> AsyncIterator[bytes]:
    """The body, or the refusal in its place."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            yield refusal
            return
    yield bytes(body)


async def events_within(response: httpx.Response, limit: int, refusal: bytes) -> AsyncIterator[bytes]:
    """The events; one that is too long becomes an event of a kind that nobody reads, and the refusal follows."""
    edge, size = b"", 0
    async for chunk in response.aiter_raw():
        seen = edge + chunk
        ends = [place + len(end) for end in ENDS_OF_EVENTS if (place := seen.rfind(end)) >= 0]
        size = len(seen) - max(ends) if ends else size + len(chunk)
        if size > limit:
            yield b"\nevent: discarded\n\nevent: message\ndata: " + refusal + b"\n\n"
            return
        edge = seen[-OVERLAP:]
        yield chunk


def _refusal(request: httpx.Request) -> bytes:
    """The reply to `request` that says that there is none which may be read; nothing where none is due."""
    if request.method != "POST":
        return b""
    asked = json.loads(request.content)
    error = {"code": TOO_LONG, "message": "the answer is too long"}
    return json.dumps({"jsonrpc": "2.0", "id": asked.get("id"), "error": error}).encode()
