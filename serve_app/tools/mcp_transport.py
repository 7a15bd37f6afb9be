"""The HTTP transport to an MCP server: every request gets a readable reply.

A message over the size limit is not read to its end. Instead of it, and instead of a broken connection, an HTTP error
or an HTML page, the client gets a JSON-RPC error with the request's id, as if the server had sent it. Without it, the
client would wait until the call's time-out. `classify_error` recognizes these errors, and those of servers.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import TYPE_CHECKING, Any, Literal

import httpx

from serve_app.tools.egress import EgressRefused
from serve_app.tools.tool import is_server_error
from serve_app.values.sanitize import sanitize_text, truncate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp.types import ErrorData

Fault = Literal["too_long", "no_session", "not_reached", "lost", "server_fault", "refused"]
"""With `no_session` and `not_reached` the call surely did not happen."""
CODE = -32099
"""The JSON-RPC code of our errors, from the range for implementations."""
MARK = secrets.token_hex(8)
"""Marks our errors: a server may use any code."""
CLOSED = -32000
"""The MCP client's code for a closed connection; servers use it for other errors too."""
SESSION_HEADER = "mcp-session-id"
NO_SESSION = re.compile(
    r"(no valid|unknown|invalid|missing|bad|expired|stale)\b.{0,40}\bsession"
    r"|session\b.{0,60}\b(not found|unknown|expired|invalid|terminated|does not exist|not exist|closed|gone)"
    r"|not (been )?initiali[sz]ed",
    re.IGNORECASE | re.DOTALL,
)
"""Messages of servers that do not know the session, as many SDKs write them after a restart, under any code."""
HTTP_NO_SESSION = {404, 410}
MAX_ERROR_BYTES = 2_000
MIN_LIMIT_BYTES = 1_000_000
JSON_OVERHEAD = 12
"""JSON may take six times the bytes of its text, and repeats the text if the tool has an output schema."""
EVENT_ENDS = (b"\n\n", b"\r\r", b"\r\n\r\n")
ACCEPTED = 202
MESSAGE_TYPES = ("application/json", "text/event-stream")
OVERLAP = 3
"""Bytes of a chunk that may be the start of an event's end."""


class McpTransport(httpx.AsyncBaseTransport):
    """Passes on messages of at most `max_bytes` of text; turns failures into JSON-RPC errors."""

    def __init__(self, inner: httpx.AsyncBaseTransport, max_bytes: int) -> None:
        self._inner = inner
        self._limit = max(MIN_LIMIT_BYTES, JSON_OVERHEAD * max_bytes)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.headers["Accept-Encoding"] = "identity"
        if request.method != "POST":
            return self._pass_on(request, await self._inner.handle_async_request(request), b"")
        try:
            response = await self._inner.handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, EgressRefused) as error:
            return _error_response(request, "not_reached", repr(error))
        except httpx.TransportError as error:
            return _error_response(request, "lost", repr(error))
        kind = response.headers.get("content-type", "")
        if response.is_success and (response.status_code == ACCEPTED or kind.startswith(MESSAGE_TYPES)):
            return self._pass_on(request, response, _error(request, "lost", "the connection broke"))
        return await _failure_response(request, response)

    def _pass_on(self, request: httpx.Request, response: httpx.Response, lost: bytes) -> httpx.Response:
        encoded = response.headers.get("content-encoding", "identity") != "identity"
        limit = 0 if encoded else self._limit
        streams = response.headers.get("content-type", "").startswith("text/event-stream")
        too_long = _error(request if lost else None, "too_long", "the answer is too long")
        body = (limit_event_size if streams else _limit_body_size)(response, limit, too_long, lost)
        headers = [
            each for each in response.headers.raw if each[0].lower() not in {b"content-length", b"content-encoding"}
        ]
        return httpx.Response(response.status_code, headers=headers, stream=_Body(body, response))

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Body(httpx.AsyncByteStream):
    """A response body from an iterator of chunks."""

    def __init__(self, chunks: AsyncIterator[bytes], response: httpx.Response) -> None:
        self._chunks = chunks
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def aclose(self) -> None:
        await self._response.aclose()


async def _limit_body_size(response: httpx.Response, limit: int, too_long: bytes, lost: bytes) -> AsyncIterator[bytes]:
    """The body; an error instead if it is too long or the connection breaks."""
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


async def limit_event_size(
    response: httpx.Response, limit: int, too_long: bytes, lost: bytes = b""
) -> AsyncIterator[bytes]:
    """The events of a stream; an error follows one that is too long.

    A stream without event ids cannot be resumed, so it ends with the error `lost`. A client that has its reply by then
    does not read that far.
    """
    edge, size, resumable = b"", 0, False
    try:
        async for chunk in response.aiter_raw():
            seen = edge + chunk
            resumable = resumable or seen.startswith(b"id:") or b"\nid:" in seen
            ends = [place + len(end) for end in EVENT_ENDS if (place := seen.rfind(end)) >= 0]
            size = len(seen) - max(ends) if ends else size + len(chunk)
            if size > limit:
                yield _error_event(too_long)
                return
            edge = seen[-OVERLAP:]
            yield chunk
    except httpx.TransportError:
        if resumable or not lost:
            raise
    if lost and not resumable:
        yield _error_event(lost)


def _error_event(message: bytes) -> bytes:
    return b"\nevent: discarded\n\nevent: message\ndata: " + message + b"\n\n"


def classify_error(error: ErrorData) -> Fault | None:
    """What an error means for the session; None for a reply to the call."""
    if isinstance(error.data, dict) and error.data.get("mark") == MARK:
        kind: Fault = error.data["kind"]
        return kind
    if NO_SESSION.search(error.message):
        return "no_session"
    return "lost" if error.code == CLOSED and "closed" in error.message.lower() else None


async def _failure_response(request: httpx.Request, response: httpx.Response) -> httpx.Response:
    """The JSON-RPC error for an HTTP error, or for a response that is no message."""
    body = b""
    try:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_ERROR_BYTES:
                break
    except httpx.TransportError as error:
        body += repr(error).encode()
    finally:
        await response.aclose()
    text = truncate(sanitize_text(body.decode("utf-8", "replace")), MAX_ERROR_BYTES)
    message = f"HTTP {response.status_code}: {text}"
    status = response.status_code
    in_session = SESSION_HEADER in request.headers
    if in_session and (status in HTTP_NO_SESSION or (not response.is_success and NO_SESSION.search(text))):
        return _error_response(request, "no_session", message)
    if is_server_error(status):
        return _error_response(request, "server_fault", message)
    return _error_response(request, "lost" if response.is_success else "refused", message)


def _error_response(request: httpx.Request, kind: Fault, message: str) -> httpx.Response:
    """A response with the error; for a notification, which has no reply, a plain 202."""
    error = _error(request, kind, message)
    if not error:
        return httpx.Response(ACCEPTED, request=request)
    return httpx.Response(200, headers={"content-type": "application/json"}, content=error, request=request)


def _error(request: httpx.Request | None, kind: Fault, message: str) -> bytes:
    """The error as the reply to `request`; empty if the request expects no reply."""
    sent: Any = json.loads(request.content) if request else {}
    if "id" not in sent or "method" not in sent:
        return b""
    error = {"code": CODE, "message": message, "data": {"mark": MARK, "kind": kind}}
    return json.dumps({"jsonrpc": "2.0", "id": sent["id"], "error": error}).encode()
