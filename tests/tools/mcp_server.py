"""An MCP server for the tests: over stdio, or over HTTP at the port that is given."""

from __future__ import annotations

import asyncio
import os
import sys

from mcp.server.fastmcp import Context, FastMCP

server = FastMCP("tests", port=int(sys.argv[1]) if len(sys.argv) > 1 else 0, log_level="ERROR")


@server.tool()
async def greet(name: str, times: int = 1) -> str:
    """Greet someone."""
    return " ".join(["hello " + name] * times)


@server.tool()
async def fail() -> str:
    """Fail with a message of its own."""
    raise ValueError("no such thing")


@server.tool()
async def sleep(seconds: float) -> str:
    """Take a while."""
    await asyncio.sleep(seconds)
    return "slept"


@server.tool()
async def environment() -> str:
    """Say what the environment holds."""
    return f"{os.environ.get('LISTED')} {os.environ.get('UNLISTED')}"


@server.tool()
async def key(context: Context) -> str:
    """Say what came beside the arguments."""
    meta = context.request_context.meta
    return str((meta.model_extra if meta else None) or "nothing")


@server.tool()
async def runtime(runtime: str) -> str:
    """Take an argument of a name that means something to LangChain."""
    return f"run {runtime}"


@server.tool()
async def long(length: int) -> str:
    """Say much."""
    return "x" * length


@server.tool()
async def die() -> str:
    """End the process."""
    os._exit(1)


server.run("streamable-http" if len(sys.argv) > 1 else "stdio")
