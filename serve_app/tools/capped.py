"""An MCP server's answers over HTTP: each request gets a reply that can be read, whatever the server does.

A message that grows beyond the limit is read no further. In its place, and in place of a broken connection, an HTTP
error or a page of HTML, the client gets an error of that request's id, as if the server had sent it: it would otherwise
wait to the call's end. `fault_of` knows these errors, and what a server means by its own.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import TYPE_CHECKING, Any, Literal

import httpx

from serve_app.tools.egress import EgressRefused
from serve_app.tools.failures import is_server_fault
from serve_app.values.sanitize import sanitize_text, truncate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp.types import ErrorData

Fault = Literal["too_long", "no_session", "not_reached", "lost", "server_fault", "refused"]
"""`no_session` and `not_reached` are certain: the request was not taken."""
CODE = -32099
"""Of our errors: one of those that JSON-RPC leaves to implementations."""
MARK = secrets.token_hex(8)
"""Tells our errors from those of a server, which may use any code."""
CLOSED = -32000
"""The code of the client for a connection that ended; servers use it for much else, too."""
SESSION_HEADER = "mcp-session-id"
NO_SESSION = re.compile(
    r"(no valid|unknown|invalid|missing|bad|expired|stale)\b.{0,40}\bsession"
    r"|session\b.{0,60}\b(not found|unknown|expired|invalid|terminated|does not exist|not exist|closed|gone)"
    r"|not (been )?initiali[sz]ed",
    re.IGNORECASE | re.DOTALL,
)
"""What servers of many SDKs say after a restart, under the codes -32000, -32001, -32600 and others."""
HTTP_NO_SESSION = {404, 410}
READ_OF_ERROR = 2_000
LEAST_BYTES = 1_000_000
ENVELOPE = 12
"""A text in its JSON may take six times its bytes, and stands there twice where a tool has an output schema."""
ENDS_OF_EVENTS = (b"\n\n", b"\r\r", b"\r\n\r\n")
ACCEPTED = 202
READABLE = ("application/json", "text/event-stream")
OVERLAP = 3
"""Bytes of the last chunk in which an end may have begun."""


class CappedTransport(httpx.AsyncBaseTransport):
    """Passes on answers whose text may take `max_bytes`, each message of a stream for itself, and errors as replies."""

    def __init__(self, inner: httpx.AsyncBaseTransport, max_bytes: int) -> None:
        self._inner = inner
        self._limit = max(LEAST_BYTES, ENVELOPE * max_bytes)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.headers["Accept-Encoding"] = "identity"
        if request.method != "POST":
            return self._passed(request, await self._inner.handle_async_request(request), b"")
        try:
            response = await self._inner.handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, EgressRefused) as error:
            return _reply(request, "not_reached", repr(error))
        except httpx.TransportError as error:
            return _reply(request, "lost", repr(error))
        kind = response.headers.get("content-type", "")
        if response.is_success and (response.status_code == ACCEPTED or kind.startswith(READABLE)):
            return self._passed(request, response, _error(request, "lost", "the connection broke"))
        return await _failed(request, response)

    def _passed(self, request: httpx.Request, response: httpx.Response, lost: bytes) -> httpx.Response:
        encoded = response.headers.get("content-encoding", "identity") != "identity"
        limit = 0 if encoded else self._limit
        streams = response.headers.get("content-type", "").startswith("text/event-stream")
        too_long = _error(request if lost else None, "too_long", "the answer is too long")
        body = (events_within if streams else _whole)(response, limit, too_long, lost)
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


async def _whole(response: httpx.Response, limit: int, too_long: bytes, lost: bytes) -> AsyncIterator[bytes]:
    """The body, or the error in its place."""
    body = bytearray()
    try:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > limit:
                yield too_long
                return
    except httpx.TransportError:
        if not lost:
            raise
        yield lost
        return
    yield bytes(body)


async def events_within(
    response: httpx.Response, limit: int, too_long: bytes, lost: bytes = b""
) -> AsyncIterator[bytes]:
    """The events; one that is too long becomes an event of a kind that nobody reads, and the error follows.

    A stream that ends without ids, and so cannot be taken up again, ends with the error `lost`: who has had an answer
    by then reads no further.
    """
    edge, size, resumable = b"", 0, False
    try:
        async for chunk in response.aiter_raw():
            seen = edge + chunk
            resumable = resumable or seen.startswith(b"id:") or b"\nid:" in seen
            ends = [place + len(end) for end in ENDS_OF_EVENTS if (place := seen.rfind(end)) >= 0]
            size = len(seen) - max(ends) if ends else size + len(chunk)
            if size > limit:
                yield _event(too_long)
                return
            edge = seen[-OVERLAP:]
            yield chunk
    except httpx.TransportError:
        if resumable or not lost:
            raise
    if lost and not resumable:
        yield _event(lost)


def _event(message: bytes) -> bytes:
    return b"\nevent: discarded\n\nevent: message\ndata: " + message + b"\n\n"


def fault_of(error: ErrorData) -> Fault | None:
    """What an error says of the connection or the session; None for one that is an answer of the server's own."""
    if isinstance(error.data, dict) and error.data.get("mark") == MARK:
        kind: Fault = error.data["kind"]
        return kind
    if NO_SESSION.search(error.message):
        return "no_session"
    return "lost" if error.code == CLOSED and "closed" in error.message.lower() else None


async def _failed(request: httpx.Request, response: httpx.Response) -> httpx.Response:
    """The reply to a request that the server has answered with an HTTP error, or with what is no message."""
    body = b""
    try:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > READ_OF_ERROR:
                break
    except httpx.TransportError as error:
        body += repr(error).encode()
    finally:
        await response.aclose()
    said = truncate(sanitize_text(body.decode("utf-8", "replace")), READ_OF_ERROR)
    what = f"HTTP {response.status_code}: {said}"
    status = response.status_code
    in_session = SESSION_HEADER in request.headers
    if in_session and (status in HTTP_NO_SESSION or (not response.is_success and NO_SESSION.search(said))):
        return _reply(request, "no_session", what)
    if is_server_fault(status):
        return _reply(request, "server_fault", what)
    return _reply(request, "lost" if response.is_success else "refused", what)


def _reply(request: httpx.Request, kind: Fault, message: str) -> httpx.Response:
    """A response that carries the error; to a message that wants no reply, that it was taken."""
    error = _error(request, kind, message)
    if not error:
        return httpx.Response(ACCEPTED, request=request)
    return httpx.Response(200, headers={"content-type": "application/json"}, content=error, request=request)


def _error(request: httpx.Request | None, kind: Fault, message: str) -> bytes:
    """The error as the reply to `request`; nothing where none is due."""
    asked: Any = json.loads(request.content) if request else {}
    if "id" not in asked or "method" not in asked:
        return b""
    error = {"code": CODE, "message": message, "data": {"mark": MARK, "kind": kind}}
    return json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": error}).encode()
