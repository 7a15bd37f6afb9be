"""A tool of an MCP server, or all of them, as ours, whether or not the server is there."""

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
from serve_app.tools.capped import CappedTransport, fault_of
from serve_app.tools.egress import CheckedTransport, Egress
from serve_app.tools.failures import Unreachable
from serve_app.tools.mcp_session import Asked
from serve_app.tools.tool import Said, absent, spec_of
from serve_app.values import make_tool_name
from serve_app.values.sanitize import sanitize_json, sanitize_text, truncate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from serve_app.config import McpToolSettings, ToolSettings
    from serve_app.tools.mcp_session import Connect, McpServer, Offered
    from serve_app.values import IdempotencyKey, ToolSpec

logger = logging.getLogger(__name__)

KEY = "idempotencyKey"
"""In a call's `_meta`, where MCP leaves room for what a client has to say beside the arguments."""
LEAVES = 1_000
"""Values of a structured answer that are looked for in its text."""
NAME_CHARACTERS = 64


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
        known = spec_of(self._name, self._settings, offered.description, offered.arguments.schema)
        return known if self._server.there else known.model_copy(update={"ready": False})

    @property
    def _offered(self) -> Offered | None:
        return self._server.offered.get(self._mcp.tool or self._name)

    def start(self) -> None:
        self._server.start()

    def read(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return self._offered.arguments.read(arguments) if self._offered else arguments

    async def ask(self, given: Mapping[str, Any], key: IdempotencyKey) -> Said:
        if self._offered is None:
            raise Unreachable
        effect = self._settings.effect
        meta = None if effect == "pure" else {KEY: str(key)}
        try:
            reply = await self._server.call(Asked(self._mcp.tool or self._name, given, meta), effect)
        except McpError as error:
            if fault_of(error.error) == "too_long":
                what = f"it is longer than {self._mcp.max_response_bytes} bytes, and was not read"
                return Said(f"({self._name} gave an answer that cannot be told: {what})", well=effect != "pure")
            said = truncate(sanitize_text(str(error.error.message)), self._mcp.max_response_bytes)
            return Said(f"error: {self._name} does not take the call: {said}", well=False)
        text = truncate(_text(reply.content, reply.structuredContent), self._mcp.max_response_bytes)
        return Said(f"error: {self._name} says: {text}", well=False) if reply.isError else Said(text)

    async def close(self) -> None:
        await self._server.close()


class McpTools:
    """All tools of a server under the names that they have here; in `Tool`'s place until they are known."""

    def __init__(
        self, name: str, settings: ToolSettings, mcp: McpToolSettings, server: McpServer, taken: Collection[str]
    ) -> None:
        """`taken` are the names that other tools have."""
        self._name = name
        self._settings = settings
        self._mcp = mcp
        self._server = server
        self._taken = frozenset(taken)
        self._known: Mapping[str, Offered] = {}
        self._tools: dict[str, McpTool] = {}

    @property
    def spec(self) -> ToolSpec:
        """What is told while the server has never been there."""
        return absent(self._name, self._settings)

    @property
    def there(self) -> bool:
        """Whether the server is there."""
        return self._server.there and bool(self._server.offered)

    @property
    def tools(self) -> dict[str, McpTool]:
        """The tools as the server last listed them; a name that is taken already gets a number."""
        if self._known is not self._server.offered:
            self._known = self._server.offered
            found: dict[str, McpTool] = {}
            for original in sorted(self._known):
                name = _free(make_tool_name(self._mcp.prefix + original), {*self._taken, *found})
                found[name] = self._tool(name, original)
            self._tools = found
        return self._tools

    def settings_of(self, name: str) -> ToolSettings:
        """The entry's settings, as they hold for one of its tools."""
        return self.tools[name]._settings  # noqa: SLF001 - they are made here

    def _tool(self, name: str, original: str) -> McpTool:
        effect = self._mcp.effects.get(original, self._settings.effect)
        attempts = 1 if effect == "effect" else self._settings.attempts
        settings = self._settings.model_copy(update={"effect": effect, "attempts": attempts})
        return McpTool(name, settings, self._mcp.model_copy(update={"tool": original}), self._server)

    def start(self) -> None:
        self._server.start()

    def read(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments

    async def ask(self, given: Mapping[str, Any], key: IdempotencyKey) -> Said:  # noqa: ARG002 - see the port
        raise Unreachable

    async def close(self) -> None:
        await self._server.close()


def connection(mcp: McpToolSettings, rules: Egress) -> Connect:
    """How the server is reached.

    Raises:
        InvalidConfiguration: a secret is not set.
    """
    if mcp.url:
        headers = {header: read_secret(variable).get_secret_value() for header, variable in mcp.headers_env.items()}
        return _by_url(mcp.url, headers, rules, mcp.max_response_bytes)
    command, *args = mcp.command or []
    given = {variable: read_secret(variable).get_secret_value() for variable in mcp.environment}
    program = StdioServerParameters(command=command, args=args, env=given, encoding_error_handler="replace")
    return lambda: stdio_client(program)


def _by_url(url: str, headers: dict[str, str], rules: Egress, max_bytes: int) -> Connect:
    @asynccontextmanager
    async def connect() -> AsyncIterator[tuple[Any, Any]]:
        transport = CappedTransport(CheckedTransport(rules), max_bytes)
        client = httpx.AsyncClient(transport=transport, headers=headers, timeout=None, trust_env=False)  # noqa: S113 - a call has its own
        async with client, streamable_http_client(url, http_client=client) as (read, write, _):
            yield read, write

    return connect


def _free(name: str, taken: Collection[str]) -> str:
    """The name, or the same with the first number under which it is free."""
    free, number = name, 2
    while free in taken:
        ending = f"_{number}"
        free, number = name[: NAME_CHARACTERS - len(ending)] + ending, number + 1
    return free


def _text(content: Any, structured: Any) -> str:
    """What a model can read of an answer's blocks, and of its structured content where they do not say the same."""
    blocks = content if isinstance(content, list) else [] if content is None else [content]
    text = "\n".join(filter(None, map(_block, blocks)))
    if structured is not None and not _says(text, structured):
        said = json.dumps(sanitize_json(structured), ensure_ascii=False)
        text = f"{text}\n{said}" if text else said
    return sanitize_text(text) or "(no content)"


def _block(block: Any) -> str:
    """A block as text; of what is no text, what it is."""
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
    told = [str(inner[word]) for word in ("name", "uri", "mimeType", "description") if inner.get(word)]
    data = inner.get("data") or inner.get("blob")
    if isinstance(data, str):
        told.append(f"{len(data) * 3 // 4:,} bytes")
    if not told:
        return json.dumps(sanitize_json(block), ensure_ascii=False)
    return f"[{kind}: {', '.join(told)}]"


def _says(text: str, structured: Any) -> bool:
    """Whether a text has all values of a structured answer."""
    written = text.casefold()
    open_, seen = [structured], 0
    while open_ and seen < LEAVES:
        value = open_.pop()
        seen += 1
        if isinstance(value, dict):
            open_.extend(value.values())
        elif isinstance(value, list):
            open_.extend(value)
        elif value is not None and str(value).casefold() not in written:
            inner = json.dumps(value)[1:-1].casefold() if isinstance(value, str) else None
            if inner is None or inner not in written:
                return False
    return bool(text)
