"""A session with an MCP server, begun anew whenever it breaks, while calls of the one before come to their end."""

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

from serve_app.resilience.retry import insist
from serve_app.tools.capped import CODE, MARK, fault_of
from serve_app.tools.failures import Lost, ServerFault, Unreachable
from serve_app.tools.schema import Arguments
from serve_app.values.sanitize import sanitize_json, sanitize_text, truncate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from serve_app.values import Effect

    Streams = tuple[Any, Any]
    Connect = Callable[[], AbstractAsyncContextManager[Streams]]

logger = logging.getLogger(__name__)

PING_S = 2.0
PAUSE_S = 1.0
"""Between two sessions, so that a server that dies at once is not started all the time."""
REJOIN_S = 5.0
"""How long a call waits for a session that is begun anew: about as long as a small server takes to restart."""
MAX_TOOLS = 500
"""Of one server: more than any model can choose among."""
MAX_PAGES = 100
MAX_DESCRIPTION = 4_000
GONE = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream)
ID = re.compile(r'"id"\s*:\s*(\d+)')


class Reply(BaseModel):
    """What a server says to a call, as loosely as it may say it: the deed is done whatever the form."""

    model_config = ConfigDict(extra="allow")
    content: Any = None
    structuredContent: Any = None  # noqa: N815 - MCP's own name
    isError: Any = False  # noqa: N815 - likewise


class _Listed(BaseModel):
    model_config = ConfigDict(extra="allow")
    tools: list[Any] = []
    nextCursor: Any = None  # noqa: N815 - MCP's own name


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool as its server offers it."""

    description: str
    arguments: Arguments


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as the server gets it."""

    tool: str
    given: Mapping[str, Any]
    meta: dict[str, Any] | None


@dataclass(slots=True)
class _Joined:
    """One session and its calls."""

    session: ClientSession
    calls: set[asyncio.Task[Any]] = field(default_factory=set)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    """Set where there is something to look at: the session is in doubt, its list has changed, or it is over."""
    doubted: bool = False
    changed: bool = False

    def end(self) -> None:
        self.over.set()
        self.stirred.set()


class McpServer:
    """The tools of one server, and a session in which they are called."""

    def __init__(self, name: str, connect: Connect, connect_timeout_s: float) -> None:
        self.offered: dict[str, Offered] = {}
        """As they were last listed, also while the server is away."""
        self._name = name
        self._connect = connect
        self._connect_timeout_s = connect_timeout_s
        self._joined: _Joined | None = None
        self._there = asyncio.Event()
        self._lost_at = float("-inf")
        self._holding: asyncio.Task[None] | None = None
        self._living: set[asyncio.Task[None]] = set()
        self._away = False

    @property
    def there(self) -> bool:
        """Whether a call has a chance: there is a session, or was one a moment ago."""
        return self._joined is not None or time.monotonic() - self._lost_at < REJOIN_S

    def start(self) -> None:
        """Look for the server from now on."""
        if self._holding is None:
            self._holding = asyncio.create_task(self._hold())

    async def call(self, asked: Asked, effect: Effect) -> Reply:
        """What the tool says; asked once more in a new session where the first is gone and the effect allows it.

        Raises:
            Unreachable: the call was surely not taken.
            Lost: the session ended meanwhile.
            ServerFault: the server does not manage.
            McpError: the server does not take the call.
        """
        joined = await self._session_now()
        try:
            return await self._once(joined, asked)
        except (Unreachable, Lost) as error:
            self._replace(joined, error)
            if isinstance(error, Lost) and effect == "effect":
                raise
            try:
                joined = await self._session_now()
            except Unreachable:
                raise error from None
        return await self._once(joined, asked)

    async def close(self) -> None:
        tasks = [*self._living, *([self._holding] if self._holding else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _session_now(self) -> _Joined:
        """The session, or the one that is being begun."""
        try:
            async with asyncio.timeout(REJOIN_S):
                while self._joined is None:
                    await self._there.wait()
                return self._joined
        except TimeoutError:
            raise Unreachable from None

    async def _once(self, joined: _Joined, asked: Asked) -> Reply:
        meta = RequestParams.Meta.model_validate(asked.meta) if asked.meta else None
        params = CallToolRequestParams(name=asked.tool, arguments=dict(asked.given), _meta=meta)
        calling = asyncio.create_task(joined.session.send_request(ClientRequest(CallToolRequest(params=params)), Reply))
        joined.calls.add(calling)
        calling.add_done_callback(joined.calls.discard)
        try:
            return await calling
        except asyncio.CancelledError:
            waiting = asyncio.current_task()
            if waiting and not waiting.cancelling():
                raise Lost from None
            joined.doubted = True  # whoever waited has given up
            joined.stirred.set()
            raise
        except GONE as error:  # the message was not handed over
            raise Unreachable from error
        except McpError as error:
            fault = fault_of(error.error)
            if fault in {"no_session", "not_reached"}:
                raise Unreachable from error
            if fault == "lost":
                raise Lost from error
            if fault == "server_fault":
                raise ServerFault(truncate(error.error.message, 200)) from error
            raise

    def _replace(self, joined: _Joined, error: Exception) -> None:
        """Begin another session; the calls that are under way in this one come to their end."""
        if self._joined is joined:
            logger.info("mcp_session_lost", extra={"server": self._name, "error": repr(error.__cause__ or error)})
            self._leave()
        joined.end()

    def _leave(self) -> None:
        self._joined = None
        self._lost_at = time.monotonic()
        self._there.clear()

    async def _hold(self) -> None:
        while True:
            joined = await insist(self._join, self._report)
            begun = time.monotonic()
            self._joined = joined
            self._there.set()
            if self._away:
                self._away = False
                logger.warning("mcp_server_found", extra={"server": self._name})
            await joined.over.wait()
            if self._joined is joined:
                self._leave()
            await asyncio.sleep(max(0.0, PAUSE_S - (time.monotonic() - begun)))

    def _report(self, error: BaseException | None) -> None:
        if not self._away:
            self._away = True
            logger.warning("mcp_server_missing", extra={"server": self._name, "error": repr(error)})

    async def _join(self) -> _Joined:
        """A session that has begun; it lives in a task of its own, as its streams must end where they began."""
        begun: asyncio.Future[_Joined] = asyncio.get_running_loop().create_future()
        living = asyncio.create_task(self._live(begun))
        self._living.add(living)
        living.add_done_callback(self._living.discard)
        either: set[asyncio.Future[Any]] = {living, begun}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if begun.done():
            return begun.result()
        living.result()
        raise Unreachable

    async def _live(self, begun: asyncio.Future[_Joined]) -> None:
        """One session, to its end; raises where it does not come to one."""
        joined: _Joined | None = None
        try:
            async with (
                self._connect() as (read, write),
                _mended(read) as (clean, ended),
                ClientSession(clean, write, message_handler=lambda each: self._notice(joined, each)) as session,
            ):
                joined = _Joined(session)
                async with asyncio.timeout(self._connect_timeout_s):
                    await session.initialize()
                    self.offered = await self._list(session)
                begun.set_result(joined)
                ended.append(joined.end)
                await self._watch(joined)
                if joined.calls:
                    await asyncio.wait(joined.calls)
        except Exception as error:
            if not begun.done():
                raise
            logger.info("mcp_session_lost", extra={"server": self._name, "error": repr(error)})
        finally:
            if joined:
                joined.end()
                for each in list(joined.calls):  # the session is over: they would wait for ever
                    each.cancel()

    async def _notice(self, joined: _Joined | None, message: Any) -> None:
        if joined and isinstance(message, ServerNotification) and isinstance(message.root, ToolListChangedNotification):
            joined.changed = True
            joined.stirred.set()

    async def _watch(self, joined: _Joined) -> None:
        """Keep the list of tools fresh, and look after a session in doubt, until it is over."""
        while not joined.over.is_set():
            await joined.stirred.wait()
            joined.stirred.clear()
            if joined.changed and not joined.over.is_set():
                joined.changed = False
                try:
                    async with asyncio.timeout(self._connect_timeout_s):
                        self.offered = await self._list(joined.session)
                except (TimeoutError, McpError, ValidationError) as error:
                    logger.warning("mcp_list_failed", extra={"server": self._name, "error": repr(error)})
            while joined.doubted and not joined.over.is_set():
                joined.doubted = not await _answers(joined.session)
                if joined.doubted and not joined.calls:  # a server that is busy with others answers no ping
                    joined.end()

    async def _list(self, session: ClientSession) -> dict[str, Offered]:
        """The server's tools; one that is malformed is left out, and takes no other with it."""
        listed: list[Any] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            params = PaginatedRequestParams(cursor=cursor) if cursor else None
            page = await session.send_request(ClientRequest(ListToolsRequest(params=params)), _Listed)
            listed += page.tools
            cursor = page.nextCursor if isinstance(page.nextCursor, str) else None
            if not cursor or len(listed) >= MAX_TOOLS:
                break
        found: dict[str, Offered] = {}
        for each in listed[:MAX_TOOLS]:
            try:
                found.setdefault(each["name"], _offered(each))
            except Exception as error:  # noqa: BLE001 - one tool of many, in whatever form
                said = truncate(sanitize_text(repr(error)), 200)
                logger.warning("tool_unusable", extra={"server": self._name, "tool": str(each)[:200], "error": said})
        return found


def _offered(tool: dict[str, Any]) -> Offered:
    """A tool as it was listed."""
    if not isinstance(tool["name"], str):
        raise TypeError("its name is no text")
    description = tool.get("description") or tool.get("title") or ""
    said = truncate(sanitize_text(str(description)), MAX_DESCRIPTION)
    schema = sanitize_json(tool.get("inputSchema") or {"type": "object"})
    return Offered(said, Arguments(schema))


async def _answers(session: ClientSession) -> bool:
    try:
        async with asyncio.timeout(PING_S):
            await session.send_ping()
    except (TimeoutError, McpError, *GONE) as error:
        return isinstance(error, McpError) and fault_of(error.error) is None  # an error is an answer
    return True


@asynccontextmanager
async def _mended(read: Any) -> AsyncIterator[tuple[Any, list[Callable[[], None]]]]:
    """The server's messages, those that strict readers refuse made valid; and what to do when they end."""
    send, clean = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    ended: list[Callable[[], None]] = []

    async def pump() -> None:
        try:
            async for message in read:
                await send.send(_readable(message) if isinstance(message, ValidationError) else message)
        except GONE:
            pass
        finally:
            send.close()
            for each in ended:
                each()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(pump)
            try:
                yield clean, ended
            finally:
                group.cancel_scope.cancel()
    finally:
        for stream in (send, clean, read):
            stream.close()


def _readable(error: ValidationError) -> SessionMessage | Exception:
    """The message that could not be read, with its text made valid; else an error under the id that it has."""
    given = error.errors(include_url=False)[0].get("input")
    text = given.decode("utf-8", "replace") if isinstance(given, bytes) else str(given)
    try:
        return SessionMessage(JSONRPCMessage.model_validate(sanitize_json(json.loads(text, strict=False))))
    except (ValueError, RecursionError):
        named = ID.search(text[:1000]) or ID.search(text[-1000:])
        if named is None:
            return error
        lost = ErrorData(code=CODE, message="the answer cannot be read", data={"mark": MARK, "kind": "lost"})
        return SessionMessage(JSONRPCMessage(JSONRPCError(jsonrpc="2.0", id=int(named[1]), error=lost)))
