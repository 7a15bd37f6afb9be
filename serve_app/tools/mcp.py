"""How does a tool of an MCP server become one of ours, whether or not the server is there?"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import anyio
import httpx
from langchain_core.tools import ToolException
from langchain_mcp_adapters.sessions import create_session
from langchain_mcp_adapters.tools import load_mcp_tools
from mcp import McpError
from mcp.types import CONNECTION_CLOSED

from serve_app.config import secret
from serve_app.resilience.retry import insist
from serve_app.tools.capped import TOO_LONG, CappedTransport
from serve_app.tools.egress import CheckedTransport, Egress
from serve_app.tools.failures import Lost, Unreachable
from serve_app.tools.schema import Arguments
from serve_app.tools.tool import Said, absent, spec_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langchain_core.tools import BaseTool
    from langchain_mcp_adapters.interceptors import MCPToolCallRequest
    from mcp import ClientSession
    from mcp.types import CallToolResult

    from serve_app.config import McpToolSettings, ToolSettings
    from serve_app.values import IdempotencyKey, ToolSpec

logger = logging.getLogger(__name__)

PING_S = 2.0
PAUSE_S = 1.0
"""Between two sessions, so that a server that dies at once is not started all the time."""
SESSION_ENDED = 32600
KEY = "idempotencyKey"
"""In a call's `_meta`, where MCP leaves room for what a client has to say beside the arguments."""
GONE = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream)


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as the server gets it."""

    given: Mapping[str, Any]
    meta: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool as its server offers it."""

    tool: BaseTool
    arguments: Arguments


class McpServer:
    """A session with one server, which is begun anew whenever it breaks."""

    def __init__(self, name: str, connection: dict[str, Any], connect_timeout_s: float) -> None:
        self.offered: dict[str, Offered] = {}
        self._name = name
        self._connection = connection
        self._connect_timeout_s = connect_timeout_s
        self._doubted = asyncio.Event()
        self._calls: set[asyncio.Task[Any]] = set()
        self._holding: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look for the server from now on."""
        if self._holding is None:
            self._holding = asyncio.create_task(self._hold())

    async def call(self, tool: BaseTool, asked: Asked) -> Any:
        """What the tool says.

        Raises:
            Lost: the session ended meanwhile.
        """
        calling = asyncio.create_task(tool.ainvoke({"runtime": asked}))
        self._calls.add(calling)
        calling.add_done_callback(self._calls.discard)
        try:
            return await calling
        except asyncio.CancelledError:
            waiting = asyncio.current_task()
            if waiting and not waiting.cancelling():
                raise Lost from None
            self._doubted.set()  # whoever waited has given up
            raise
        except GONE as error:
            raise Lost from error
        except McpError as error:
            if error.error.code not in {CONNECTION_CLOSED, SESSION_ENDED}:
                raise
            self._doubted.set()
            raise Lost from error

    async def close(self) -> None:
        if self._holding:
            self._holding.cancel()
            await asyncio.gather(self._holding, return_exceptions=True)

    async def _hold(self) -> None:
        while True:
            await insist(self._session, self._report)
            await asyncio.sleep(PAUSE_S)

    def _report(self, error: BaseException | None) -> None:
        logger.warning("MCP server %s is not there: %r", self._name, error)

    async def _session(self) -> None:
        """One session, to its end; raises where it does not come to one."""
        begun = False
        try:
            async with create_session(self._connection) as session:  # type: ignore[arg-type]
                async with asyncio.timeout(self._connect_timeout_s):
                    await session.initialize()
                    tools = await load_mcp_tools(
                        session, tool_interceptors=[_direct(session)], handle_tool_errors=False
                    )
                begun = True
                self.offered = {tool.name: offered for tool in tools if (offered := self._usable(tool))}
                try:
                    await self._until_it_breaks(session)
                finally:
                    self._end()
        except Exception as error:
            if not begun:
                raise
            self._report(error)

    def _end(self) -> None:
        """The session is over: its calls would wait for ever."""
        self.offered = {}
        for each in self._calls:
            each.cancel()

    async def _until_it_breaks(self, session: Any) -> None:
        while True:
            self._doubted.clear()
            await self._doubted.wait()
            async with asyncio.timeout(PING_S):
                await session.send_ping()

    def _usable(self, tool: BaseTool) -> Offered | None:
        try:
            return Offered(tool, Arguments(dict(tool.args_schema)))  # type: ignore[arg-type]
        except (ValueError, TypeError) as error:
            logger.warning("tool %s of MCP server %s cannot be called: %s", tool.name, self._name, error)
            return None


class McpTool:
    """One tool of a server; implements `Tool`."""

    def __init__(self, name: str, settings: ToolSettings, mcp: McpToolSettings, server: McpServer) -> None:
        self._name = name
        self._settings = settings
        self._mcp = mcp
        self._server = server

    @property
    def spec(self) -> ToolSpec:
        offered = self._offered
        if offered is None:
            return absent(self._name, self._settings)
        return spec_of(self._name, self._settings, offered.tool.description, offered.arguments.schema)

    @property
    def _offered(self) -> Offered | None:
        return self._server.offered.get(self._mcp.tool or self._name)

    def start(self) -> None:
        self._server.start()

    def read(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return self._offered.arguments.read(arguments) if self._offered else arguments

    async def ask(self, given: Mapping[str, Any], key: IdempotencyKey) -> Said:
        offered = self._offered
        if offered is None:
            raise Unreachable
        try:
            meta = None if self._settings.effect == "pure" else {KEY: str(key)}
            content = await self._server.call(offered.tool, Asked(given, meta))
        except ToolException as error:
            return self._said(f"error: {self._name} says: {error}", well=False)
        except McpError as error:
            if error.error.code == TOO_LONG:
                return self._too_long()
            return self._said(f"error: {self._name} does not take the call", well=False)
        return self._said(_text(content), well=True)

    async def close(self) -> None:
        await self._server.close()

    def _said(self, text: str, *, well: bool) -> Said:
        return self._too_long() if len(text.encode()) > self._mcp.max_response_bytes else Said(text, well)

    def _too_long(self) -> Said:
        what = f"it is longer than {self._mcp.max_response_bytes} bytes"
        return Said(f"error: {self._name} gave no answer that can be used: {what}", well=False)


def _direct(session: ClientSession) -> Any:
    """An interceptor that makes the call itself: the adapters' own way has no place for `_meta`."""

    async def call(request: MCPToolCallRequest, _: object) -> CallToolResult:
        asked = cast("Asked", request.runtime)
        return await session.call_tool(request.name, dict(asked.given), meta=asked.meta)

    return call


def connection(mcp: McpToolSettings, rules: Egress) -> dict[str, Any]:
    """How the server is reached.

    Raises:
        InvalidConfiguration: a secret is not set.
    """

    def client(
        headers: dict[str, str] | None = None, timeout: httpx.Timeout | None = None, auth: httpx.Auth | None = None
    ) -> httpx.AsyncClient:
        transport = CappedTransport(CheckedTransport(rules), mcp.max_response_bytes)
        return httpx.AsyncClient(transport=transport, headers=headers, timeout=timeout, auth=auth, trust_env=False)

    if mcp.url:
        headers = {header: secret(variable).get_secret_value() for header, variable in mcp.headers_env.items()}
        return {"transport": "streamable_http", "url": mcp.url, "headers": headers, "httpx_client_factory": client}
    command, *args = mcp.command or []
    given = {variable: secret(variable).get_secret_value() for variable in mcp.environment}
    return {"transport": "stdio", "command": command, "args": args, "env": given}


def _text(content: Any) -> str:
    """What a model can read of MCP's content blocks."""
    blocks = content if isinstance(content, list) else [content]
    texts = [block if isinstance(block, str) else block.get("text", f"[{block.get('type')}]") for block in blocks]
    return "\n".join(texts) or "(no content)"
