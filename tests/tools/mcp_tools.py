"""Runs MCP servers and calls their tools, for the tests."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from listening import free_port

from serve_app.config import McpToolSettings, ToolSettings
from serve_app.tools.registry import ToolRegistry
from serve_app.values import Context, IdempotencyKey, ToolRequest, ToolResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SERVER = str(Path(__file__).parent / "mcp_server.py")
COMMAND = [sys.executable, SERVER]
KEY = IdempotencyKey("run:0:0")


def mcp_settings(timeout_s: float = 10, **mcp: Any) -> ToolSettings:
    return ToolSettings(mcp=McpToolSettings(**(mcp or {"command": COMMAND})), attempts=1, timeout_s=timeout_s)


@asynccontextmanager
async def running(tools: dict[str, ToolSettings]) -> AsyncIterator[ToolRegistry]:
    registry = ToolRegistry(tools, [], ["127.0.0.1"])
    registry.start()
    try:
        yield registry
    finally:
        await registry.close()


@asynccontextmanager
async def served(port: int) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(*COMMAND, str(port))
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@contextmanager
def started_server() -> Iterator[str]:
    """A server in a process of its own; its URL."""
    port = free_port()
    process = subprocess.Popen([*COMMAND, str(port)])
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


async def ready(registry: ToolRegistry, *, wanted: bool = True, timeout_s: float = 30) -> None:
    """Wait until all tools are there, or none is."""
    until = time.monotonic() + timeout_s
    while any(spec.ready != wanted for spec in await registry.specs()):
        assert time.monotonic() < until
        await asyncio.sleep(0.05)


async def call(registry: ToolRegistry, called: str, /, **arguments: Any) -> ToolResult:
    context = Context(request_id="r", run_id="r", session_id="s", deadline=time.time() + 30)
    return await registry.call(context, ToolRequest(id="c", name=called, arguments=arguments), KEY)


async def answered(registry: ToolRegistry, called: str, /, **arguments: Any) -> ToolResult:
    """What the tool says once its server has started; none of the calls before was taken."""
    for _ in range(10):
        result = await call(registry, called, **arguments)
        if result.status == "ok":
            break
        assert result.status in {"error", "refused"}
        await asyncio.sleep(0.5)
    return result
