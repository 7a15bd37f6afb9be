"""Makes tools of an MCP server: one that the settings name, or all."""

from __future__ import annotations

import json
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
from mcp import McpError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from serve_app.config import read_secret
from serve_app.tools.egress import EgressPolicy, SsrfGuardTransport
from serve_app.tools.mcp_session import McpCall
from serve_app.tools.mcp_transport import McpTransport, classify_error
from serve_app.tools.tool import ToolReply, ToolUnreachable, spec_of, unavailable_spec
from serve_app.values import make_tool_name
from serve_app.values.sanitize import sanitize_json, sanitize_text, truncate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from serve_app.config import McpToolSettings, ToolSettings
    from serve_app.tools.mcp_session import Connect, McpServer, McpToolEntry
    from serve_app.values import IdempotencyKey, ToolSpec

logger = logging.getLogger(__name__)

IDEMPOTENCY_KEY = "idempotencyKey"
"""The key's name in a call's `_meta`, where MCP puts what is no argument."""
MAX_COMPARED_VALUES = 1_000
"""Values of a structured result that are compared with its text."""
MAX_NAME_CHARACTERS = 64


class McpTool:
    """One tool of a server; implements `Tool`."""

    def __init__(self, name: str, settings: ToolSettings, mcp: McpToolSettings, server: McpServer) -> None:
        self._name = name
        self._settings = settings
        self._mcp = mcp
        self._server = server

    @property
    def spec(self) -> ToolSpec:
        entry = self._tool_entry
        if entry is None:
            return unavailable_spec(self._name, self._settings)
        known = spec_of(self._name, self._settings, entry.description, entry.arguments.schema)
        return known if self._server.available else known.model_copy(update={"ready": False})

    @property
    def _tool_entry(self) -> McpToolEntry | None:
        return self._server.tools.get(self._mcp.tool or self._name)

    def start(self) -> None:
        self._server.start()

    def read_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return self._tool_entry.arguments.read(arguments) if self._tool_entry else arguments

    async def call(self, arguments: Mapping[str, Any], key: IdempotencyKey) -> ToolReply:
        if self._tool_entry is None:
            raise ToolUnreachable
        effect = self._settings.effect
        meta = None if effect == "pure" else {IDEMPOTENCY_KEY: str(key)}
        try:
            reply = await self._server.call(McpCall(self._mcp.tool or self._name, arguments, meta), effect)
        except McpError as error:
            if classify_error(error.error) == "too_long":
                problem = f"it is longer than {self._mcp.max_response_bytes} bytes, and was not read"
                return ToolReply(f"({self._name} gave an answer that cannot be told: {problem})", ok=effect != "pure")
            message = truncate(sanitize_text(str(error.error.message)), self._mcp.max_response_bytes)
            return ToolReply(f"error: {self._name} does not take the call: {message}", ok=False)
        text = truncate(_reply_text(reply.content, reply.structuredContent), self._mcp.max_response_bytes)
        return ToolReply(f"error: {self._name} says: {text}", ok=False) if reply.isError else ToolReply(text)

    async def close(self) -> None:
        await self._server.close()


class McpServerTools:
    """All tools of a server; implements `ToolServer`, and `Tool` until they are listed."""

    def __init__(
        self,
        name: str,
        settings: ToolSettings,
        mcp: McpToolSettings,
        server: McpServer,
        reserved_names: Collection[str],
    ) -> None:
        """`reserved_names` are the names of other tools."""
        self._name = name
        self._settings = settings
        self._mcp = mcp
        self._server = server
        self._reserved_names = frozenset(reserved_names)
        self._known: Mapping[str, McpToolEntry] = {}
        self._tools: dict[str, McpTool] = {}

    @property
    def spec(self) -> ToolSpec:
        """The placeholder while the server has never been connected."""
        return unavailable_spec(self._name, self._settings)

    @property
    def available(self) -> bool:
        """Whether the server is connected and has tools."""
        return self._server.available and bool(self._server.tools)

    @property
    def tools(self) -> dict[str, McpTool]:
        """The tools that the server last listed; a name in use gets a number."""
        if self._known is not self._server.tools:
            self._known = self._server.tools
            found: dict[str, McpTool] = {}
            for original in sorted(self._known):
                name = _unused_name(make_tool_name(self._mcp.prefix + original), {*self._reserved_names, *found})
                found[name] = self._build(name, original)
            self._tools = found
        return self._tools

    def settings_of(self, name: str) -> ToolSettings:
        """The entry's settings, as they apply to one of its tools."""
        return self.tools[name]._settings  # noqa: SLF001 - this class builds them

    def _build(self, name: str, original: str) -> McpTool:
        effect = self._mcp.effects.get(original, self._settings.effect)
        attempts = 1 if effect == "effect" else self._settings.attempts
        settings = self._settings.model_copy(update={"effect": effect, "attempts": attempts})
        return McpTool(name, settings, self._mcp.model_copy(update={"tool": original}), self._server)

    def start(self) -> None:
        self._server.start()

    def read_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments

    async def call(self, arguments: Mapping[str, Any], key: IdempotencyKey) -> ToolReply:  # noqa: ARG002 - the protocol's
        raise ToolUnreachable

    async def close(self) -> None:
        await self._server.close()


def mcp_connector(mcp: McpToolSettings, egress: EgressPolicy) -> Connect:
    """A function that opens the server's streams: by HTTP, or by starting its program.

    Raises:
        InvalidConfiguration: a secret is not set.
    """
    if mcp.url:
        headers = {header: read_secret(variable).get_secret_value() for header, variable in mcp.headers_env.items()}
        return _http_connector(mcp.url, headers, egress, mcp.max_response_bytes)
    command, *args = mcp.command or []
    environment = {variable: read_secret(variable).get_secret_value() for variable in mcp.environment}
    program = StdioServerParameters(command=command, args=args, env=environment, encoding_error_handler="replace")
    return lambda: stdio_client(program)


def _http_connector(url: str, headers: dict[str, str], egress: EgressPolicy, max_bytes: int) -> Connect:
    @asynccontextmanager
    async def connect() -> AsyncIterator[tuple[Any, Any]]:
        transport = McpTransport(SsrfGuardTransport(egress), max_bytes)
        client = httpx.AsyncClient(transport=transport, headers=headers, timeout=None, trust_env=False)  # noqa: S113 - each call has its own
        async with client, streamable_http_client(url, http_client=client) as (read, write, _):
            yield read, write

    return connect


def _unused_name(name: str, used: Collection[str]) -> str:
    """The name; if it is in use, the name with the first free number."""
    free, number = name, 2
    while free in used:
        ending = f"_{number}"
        free, number = name[: MAX_NAME_CHARACTERS - len(ending)] + ending, number + 1
    return free


def _reply_text(content: Any, structured: Any) -> str:
    """A result as text: its content blocks, and structured content that they lack."""
    blocks = content if isinstance(content, list) else [] if content is None else [content]
    text = "\n".join(filter(None, map(_block_text, blocks)))
    if structured is not None and not _contains_values(text, structured):
        as_json = json.dumps(sanitize_json(structured), ensure_ascii=False)
        text = f"{text}\n{as_json}" if text else as_json
    return sanitize_text(text) or "(no content)"


def _block_text(block: Any) -> str:
    """A content block as text; a description of a block that is no text."""
    if not isinstance(block, dict):
        return block if isinstance(block, str) else json.dumps(sanitize_json(block), ensure_ascii=False)
    if isinstance(block.get("text"), str):
        return str(block["text"])
    kind = str(block.get("type"))
    inner = block.get("resource") if kind == "resource" else block
    if not isinstance(inner, dict):
        inner = {}
    if isinstance(inner.get("text"), str):
        return str(inner["text"])
    facts = [str(inner[word]) for word in ("name", "uri", "mimeType", "description") if inner.get(word)]
    data = inner.get("data") or inner.get("blob")
    if isinstance(data, str):
        facts.append(f"{len(data) * 3 // 4:,} bytes")
    if not facts:
        return json.dumps(sanitize_json(block), ensure_ascii=False)
    return f"[{kind}: {', '.join(facts)}]"


def _contains_values(text: str, structured: Any) -> bool:
    """Whether a text contains all values of a structured result."""
    lower = text.casefold()
    pending, seen = [structured], 0
    while pending and seen < MAX_COMPARED_VALUES:
        value = pending.pop()
        seen += 1
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif value is not None and str(value).casefold() not in lower:
            inner = json.dumps(value)[1:-1].casefold() if isinstance(value, str) else None
            if inner is None or inner not in lower:
                return False
    return bool(text)
