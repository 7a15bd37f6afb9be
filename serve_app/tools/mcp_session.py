"""Keeps a session with an MCP server, and replaces it when it breaks."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from mcp import ClientSession, McpError
from mcp.shared.message import SessionMessage
from mcp.types import (
    CallToolRequest,
    CallToolRequestParams,
    ClientRequest,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    ListToolsRequest,
    PaginatedRequestParams,
    RequestParams,
    ServerNotification,
    ToolListChangedNotification,
)
from pydantic import BaseModel, ConfigDict, ValidationError

from serve_app.resilience.retry import retry_forever
from serve_app.tools.arguments import ArgumentsReader
from serve_app.tools.mcp_transport import CODE, MARK, classify_error
from serve_app.tools.tool import ConnectionLost, ToolServerError, ToolUnreachable
from serve_app.values.sanitize import sanitize_json, sanitize_text, truncate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from serve_app.values import Effect

    Streams = tuple[Any, Any]
    Connect = Callable[[], AbstractAsyncContextManager[Streams]]

logger = logging.getLogger(__name__)

PING_S = 2.0
MIN_SESSION_INTERVAL_S = 1.0
"""Between the starts of two sessions, so that a server that crashes at once is not started all the time."""
RECONNECT_WAIT_S = 5.0
"""How long a call waits for a new session: about the time in which a small server restarts."""
MAX_TOOLS = 500
"""Tools of one server that are used: more than any model can choose from."""
MAX_PAGES = 100
MAX_DESCRIPTION = 4_000
STREAM_CLOSED = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream)
_ID = re.compile(r'"id"\s*:\s*(\d+)')


class McpReply(BaseModel):
    """A server's result of a call, hardly validated: the call has happened, whatever its form."""

    model_config = ConfigDict(extra="allow")
    content: Any = None
    structuredContent: Any = None  # noqa: N815 - MCP's own name
    isError: Any = False  # noqa: N815 - likewise


class _ToolPage(BaseModel):
    """One page of a server's list of tools."""

    model_config = ConfigDict(extra="allow")
    tools: list[Any] = []
    nextCursor: Any = None  # noqa: N815 - MCP's own name


@dataclass(frozen=True, slots=True)
class McpToolEntry:
    """A tool as its server lists it."""

    description: str
    arguments: ArgumentsReader


@dataclass(frozen=True, slots=True)
class McpCall:
    """A call as the server receives it."""

    tool: str
    arguments: Mapping[str, Any]
    meta: dict[str, Any] | None


@dataclass(slots=True)
class _Session:
    """One session and the calls in it."""

    session: ClientSession
    calls: set[asyncio.Task[Any]] = field(default_factory=set)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    attention: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the session needs a ping, its list of tools has changed, or it has ended."""
    needs_ping: bool = False
    list_changed: bool = False

    def end(self) -> None:
        self.ended.set()
        self.attention.set()


class McpServer:
    """One MCP server: the tools that it lists, and the current session."""

    def __init__(self, name: str, connect: Connect, connect_timeout_s: float) -> None:
        self.tools: dict[str, McpToolEntry] = {}
        """The tools as they were last listed; they stay while the server is away."""
        self._name = name
        self._connect = connect
        self._connect_timeout_s = connect_timeout_s
        self._session: _Session | None = None
        self._connected = asyncio.Event()
        self._lost_at = float("-inf")
        self._keeper: asyncio.Task[None] | None = None
        self._sessions: set[asyncio.Task[None]] = set()
        self._away = False

    @property
    def available(self) -> bool:
        """Whether there is a session, or was one a moment ago."""
        return self._session is not None or time.monotonic() - self._lost_at < RECONNECT_WAIT_S

    def start(self) -> None:
        """Keep a session from now on, in the background."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_session())

    async def call(self, call: McpCall, effect: Effect) -> McpReply:
        """Make a call; repeat it once in a new session if the effect allows that.

        Raises:
            ToolUnreachable: the call surely did not happen.
            ConnectionLost: the session ended during the call.
            ToolServerError: the server is overloaded or broken.
            McpError: the server refuses the call.
        """
        session = await self._current_session()
        try:
            return await self._send(session, call)
        except (ToolUnreachable, ConnectionLost) as error:
            self._replace(session, error)
            if isinstance(error, ConnectionLost) and effect == "effect":
                raise
            try:
                session = await self._current_session()
            except ToolUnreachable:
                raise error from None
        return await self._send(session, call)

    async def close(self) -> None:
        tasks = [*self._sessions, *([self._keeper] if self._keeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _current_session(self) -> _Session:
        """The session; waits a while for one that is being started."""
        try:
            async with asyncio.timeout(RECONNECT_WAIT_S):
                while self._session is None:
                    await self._connected.wait()
                return self._session
        except TimeoutError:
            raise ToolUnreachable from None

    async def _send(self, session: _Session, call: McpCall) -> McpReply:
        meta = RequestParams.Meta.model_validate(call.meta) if call.meta else None
        params = CallToolRequestParams(name=call.tool, arguments=dict(call.arguments), _meta=meta)
        sending = asyncio.create_task(
            session.session.send_request(ClientRequest(CallToolRequest(params=params)), McpReply)
        )
        session.calls.add(sending)
        sending.add_done_callback(session.calls.discard)
        try:
            return await sending
        except asyncio.CancelledError:
            waiting = asyncio.current_task()
            if waiting and not waiting.cancelling():
                raise ConnectionLost from None
            session.needs_ping = True  # the caller has given up: the server may hang
            session.attention.set()
            raise
        except STREAM_CLOSED as error:  # the message was not sent
            raise ToolUnreachable from error
        except McpError as error:
            fault = classify_error(error.error)
            if fault in {"no_session", "not_reached"}:
                raise ToolUnreachable from error
            if fault == "lost":
                raise ConnectionLost from error
            if fault == "server_fault":
                raise ToolServerError(truncate(error.error.message, 200)) from error
            raise

    def _replace(self, session: _Session, error: Exception) -> None:
        """Start another session; the other calls in this one may still finish."""
        if self._session is session:
            logger.info("mcp_session_lost", extra={"server": self._name, "error": repr(error.__cause__ or error)})
            self._forget_session()
        session.end()

    def _forget_session(self) -> None:
        self._session = None
        self._lost_at = time.monotonic()
        self._connected.clear()

    async def _keep_session(self) -> None:
        while True:
            session = await retry_forever(self._start_session, self._log_missing)
            started = time.monotonic()
            self._session = session
            self._connected.set()
            if self._away:
                self._away = False
                logger.warning("mcp_server_found", extra={"server": self._name})
            await session.ended.wait()
            if self._session is session:
                self._forget_session()
            await asyncio.sleep(max(0.0, MIN_SESSION_INTERVAL_S - (time.monotonic() - started)))

    def _log_missing(self, error: BaseException | None) -> None:
        if not self._away:
            self._away = True
            logger.warning("mcp_server_missing", extra={"server": self._name, "error": repr(error)})

    async def _start_session(self) -> _Session:
        """Start a session in its own task, which opens and closes its streams."""
        started: asyncio.Future[_Session] = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(self._run_session(started))
        self._sessions.add(running)
        running.add_done_callback(self._sessions.discard)
        either: set[asyncio.Future[Any]] = {running, started}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            return started.result()
        running.result()
        raise ToolUnreachable

    async def _run_session(self, started: asyncio.Future[_Session]) -> None:
        """Run one session to its end; raises if it cannot be started."""
        current: _Session | None = None
        try:
            async with (
                self._connect() as (read, write),
                _repair_messages(read) as (clean, on_end),
                ClientSession(clean, write, message_handler=lambda each: self._on_message(current, each)) as session,
            ):
                current = _Session(session)
                async with asyncio.timeout(self._connect_timeout_s):
                    await session.initialize()
                    self.tools = await self._list_tools(session)
                started.set_result(current)
                on_end.append(current.end)
                await self._watch(current)
                if current.calls:
                    await asyncio.wait(current.calls)
        except Exception as error:
            if not started.done():
                raise
            logger.info("mcp_session_lost", extra={"server": self._name, "error": repr(error)})
        finally:
            if current:
                current.end()
                for each in list(current.calls):  # no reply will come
                    each.cancel()

    async def _on_message(self, current: _Session | None, message: Any) -> None:
        if (
            current
            and isinstance(message, ServerNotification)
            and isinstance(message.root, ToolListChangedNotification)
        ):
            current.list_changed = True
            current.attention.set()

    async def _watch(self, session: _Session) -> None:
        """Refresh the changed list of tools, and ping after a call that was given up."""
        while not session.ended.is_set():
            await session.attention.wait()
            session.attention.clear()
            if session.list_changed and not session.ended.is_set():
                session.list_changed = False
                try:
                    async with asyncio.timeout(self._connect_timeout_s):
                        self.tools = await self._list_tools(session.session)
                except (TimeoutError, McpError, ValidationError) as error:
                    logger.warning("mcp_list_failed", extra={"server": self._name, "error": repr(error)})
            while session.needs_ping and not session.ended.is_set():
                session.needs_ping = not await _answers_ping(session.session)
                if session.needs_ping and not session.calls:  # a server that is busy with others answers no ping
                    session.end()

    async def _list_tools(self, session: ClientSession) -> dict[str, McpToolEntry]:
        """The server's tools; a malformed one is left out alone."""
        entries: list[Any] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            params = PaginatedRequestParams(cursor=cursor) if cursor else None
            page = await session.send_request(ClientRequest(ListToolsRequest(params=params)), _ToolPage)
            entries += page.tools
            cursor = page.nextCursor if isinstance(page.nextCursor, str) else None
            if not cursor or len(entries) >= MAX_TOOLS:
                break
        found: dict[str, McpToolEntry] = {}
        for each in entries[:MAX_TOOLS]:
            try:
                found.setdefault(each["name"], _read_entry(each))
            except Exception as error:  # noqa: BLE001 - one tool of many, in whatever form
                problem = truncate(sanitize_text(repr(error)), 200)
                logger.warning("tool_unusable", extra={"server": self._name, "tool": str(each)[:200], "error": problem})
        return found


def _read_entry(tool: dict[str, Any]) -> McpToolEntry:
    """The tool of an entry in a server's list."""
    if not isinstance(tool["name"], str):
        raise TypeError("its name is no text")
    description = tool.get("description") or tool.get("title") or ""
    text = truncate(sanitize_text(str(description)), MAX_DESCRIPTION)
    schema = sanitize_json(tool.get("inputSchema") or {"type": "object"})
    return McpToolEntry(text, ArgumentsReader(schema))


async def _answers_ping(session: ClientSession) -> bool:
    try:
        async with asyncio.timeout(PING_S):
            await session.send_ping()
    except (TimeoutError, McpError, *STREAM_CLOSED) as error:
        return isinstance(error, McpError) and classify_error(error.error) is None  # an error is an answer
    return True


@asynccontextmanager
async def _repair_messages(read: Any) -> AsyncIterator[tuple[Any, list[Callable[[], None]]]]:
    """The server's messages, invalid ones repaired; and a list of callbacks for their end."""
    send, clean = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    on_end: list[Callable[[], None]] = []

    async def pump() -> None:
        try:
            async for message in read:
                await send.send(_repair(message) if isinstance(message, ValidationError) else message)
        except STREAM_CLOSED:
            pass
        finally:
            send.close()
            for each in on_end:
                each()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(pump)
            try:
                yield clean, on_end
            finally:
                group.cancel_scope.cancel()
    finally:
        for stream in (send, clean, read):
            stream.close()


def _repair(error: ValidationError) -> SessionMessage | Exception:
    """The message made valid; if that fails, an error reply to its request."""
    received = error.errors(include_url=False)[0].get("input")
    text = received.decode("utf-8", "replace") if isinstance(received, bytes) else str(received)
    try:
        return SessionMessage(JSONRPCMessage.model_validate(sanitize_json(json.loads(text, strict=False))))
    except (ValueError, RecursionError):
        found_id = _ID.search(text[:1000]) or _ID.search(text[-1000:])
        if found_id is None:
            return error
        lost = ErrorData(code=CODE, message="the answer cannot be read", data={"mark": MARK, "kind": "lost"})
        return SessionMessage(JSONRPCMessage(JSONRPCError(jsonrpc="2.0", id=int(found_id[1]), error=lost)))
