"""MCP servers that restart, answer oddly or change their tools; against a real HTTP server that does so."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from mcp_tools import answered, call, ready, running, served
from pydantic import ValidationError

from serve_app.config import McpToolSettings, ToolSettings
from serve_app.tools.grouped_tools import GroupedTools, ToolGroup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from serve_app.values import ToolSpec

TOOL = {
    "name": "act",
    "description": "Act.",
    "inputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}},
}


@dataclass
class Server:
    """Speaks MCP; `act` does the deed and answers what `reply` says."""

    sessions: set[str] = field(default_factory=set)
    begun: int = 0
    deeds: list[Any] = field(default_factory=list)
    tools: list[Any] = field(default_factory=lambda: [TOOL])
    reply: Callable[[], Any] = lambda: {"content": [{"type": "text", "text": "done"}]}
    no_session: Callable[[Any], web.StreamResponse] = lambda _: web.Response(status=404)
    hold_s: float = 0
    streams: set[web.StreamResponse] = field(default_factory=set)
    listening: asyncio.Event = field(default_factory=asyncio.Event)

    def restart(self) -> None:
        self.sessions.clear()

    async def post(self, request: web.Request) -> web.StreamResponse:  # noqa: PLR0911 - a method a line
        message = await request.json()
        if message["method"] == "initialize":
            self.begun += 1
            session = f"s{self.begun}"
            self.sessions.add(session)
            capabilities = {"tools": {"listChanged": True}}
            info = {"name": "fake", "version": "1"}
            result: Any = {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info}
            return _respond(message, result, {"Mcp-Session-Id": session})
        if request.headers.get("Mcp-Session-Id") not in self.sessions:
            return self.no_session(message)
        if "id" not in message:
            return web.Response(status=202)
        if message["method"] == "tools/list":
            return _respond(message, {"tools": self.tools})
        if message["method"] == "ping":
            return _respond(message, {})
        self.deeds.append(message["params"]["arguments"])
        await asyncio.sleep(self.hold_s)
        reply = self.reply()
        if isinstance(reply, web.StreamResponse):
            return reply
        if isinstance(reply, str):  # raw JSON of the result
            text = f'{{"jsonrpc": "2.0", "id": {message["id"]}, "result": {reply}}}'
            return web.Response(body=text.encode("utf-8", "surrogatepass"), content_type="application/json")
        return (
            web.json_response({"jsonrpc": "2.0", "id": message["id"], **reply})
            if "error" in reply
            else _respond(message, reply)
        )

    async def get(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self.streams.add(response)
        self.listening.set()
        try:
            await asyncio.sleep(60)
        finally:
            self.streams.discard(response)
        return response

    async def change(self, tools: list[Any]) -> None:
        self.tools = tools
        for stream in self.streams:
            await stream.write(b'data: {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}\n\n')


def _respond(message: Any, result: Any, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result}, headers=headers)


@asynccontextmanager
async def serving(server: Server, port: int) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/mcp", server.post)
    app.router.add_get("/mcp", server.get)
    app.router.add_delete("/mcp", _ok)
    running_app = web.AppRunner(app, shutdown_timeout=0.1)
    await running_app.setup()
    await web.TCPSite(running_app, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        await running_app.cleanup()


async def _ok(_: web.Request) -> web.Response:
    return web.Response()


def _tool(url: str, effect: str = "pure", **mcp: Any) -> ToolSettings:
    return ToolSettings.model_validate({"mcp": {"url": url, **mcp}, "attempts": 1, "effect": effect})


def _error(status: int, code: int, message: str, *, own_id: bool = False) -> Callable[[Any], web.Response]:
    def respond(request: Any) -> web.Response:
        error = {"code": code, "message": message}
        return web.json_response(
            {"jsonrpc": "2.0", "id": request.get("id") if own_id else None, "error": error}, status=status
        )

    return respond


NO_SESSION = {
    "python": _error(404, -32600, "Session not found"),
    "typescript": _error(404, -32001, "Session not found"),
    "typescript 400": _error(400, -32000, "Bad Request: No valid session ID provided"),
    "not initialized": _error(400, -32000, "Bad Request: Server not initialized"),
    "under 200": _error(200, -32001, "Session not found", own_id=True),
    "under 200, -32000": _error(200, -32000, "Unknown Mcp-Session-Id: session expired", own_id=True),
    "503": _error(503, -32000, "Unknown session; please reconnect"),
    "html": lambda _: web.Response(status=404, text="<html>Not Found</html>", content_type="text/html"),
    "empty": lambda _: web.Response(status=404),
}


@pytest.mark.parametrize("kind", NO_SESSION)
async def test_a_server_that_has_forgotten_the_session_is_joined_anew_and_each_call_is_made_once(
    kind: str, free_port: int
) -> None:
    server = Server(no_session=NO_SESSION[kind])
    async with serving(server, free_port) as url, running({"act": _tool(url, "effect")}) as registry:
        await ready(registry)
        server.restart()
        results = await asyncio.gather(*(call(registry, "act", n=number) for number in range(5)))
        assert [result.status for result in results] == ["ok"] * 5, results
        assert sorted(deed["n"] for deed in server.deeds) == [0, 1, 2, 3, 4]


async def test_a_real_server_that_is_restarted_is_joined_anew(free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}/mcp"
    async with running({"greet": _tool(url, "effect")}) as registry:
        for _ in range(2):
            async with served(free_port):
                assert (await answered(registry, "greet", name="x")).content == "hello x"


@pytest.mark.parametrize(("effect", "status", "deeds"), [("pure", "error", 2), ("effect", "unknown", 1)])
async def test_a_connection_that_breaks_after_the_call_was_taken_makes_no_deed_twice(
    effect: str, status: str, deeds: int, free_port: int
) -> None:
    server = Server()

    class Cut(web.Response):
        async def prepare(self, request: web.BaseRequest) -> Any:
            assert request.transport
            request.transport.abort()
            return None

    server.reply = Cut
    async with serving(server, free_port) as url, running({"act": _tool(url, effect)}) as registry:
        await ready(registry)
        result = await call(registry, "act", n=1)
        assert (result.status, len(server.deeds)) == (status, deeds)
        server.reply = lambda: {"content": [{"type": "text", "text": "done"}]}
        assert (await call(registry, "act", n=1)).status == "ok"


async def test_calls_side_by_side_survive_a_lost_session_a_cancellation_and_an_error_of_one(free_port: int) -> None:
    server = Server(hold_s=0.5)
    async with serving(server, free_port) as url, running({"act": _tool(url, "effect")}) as registry:
        await ready(registry)
        slow = [asyncio.create_task(call(registry, "act", n=number)) for number in range(3)]
        await asyncio.sleep(0.2)
        server.restart()
        slow[0].cancel()
        assert (await call(registry, "act", n=9)).status == "ok"
        results = await asyncio.gather(*slow[1:])
        assert [result.status for result in results] == ["ok", "ok"]
        assert sorted(deed["n"] for deed in server.deeds) == [0, 1, 2, 9]


async def test_what_a_server_answers_is_said_as_well_as_it_can_be(free_port: int) -> None:
    big = json.dumps("x" * 300_000)
    cases: list[tuple[Any, str, str]] = [
        ('{"content": [{"type": "text", "text": "caf\\ud83d!"}]}', "ok", "caf\ufffd!"),
        ('{"content": [{"type": "text", "text": NaN}]}', "ok", "NaN"),
        (f'{{"content": [{{"type": "text", "text": {big}}}]}}', "ok", "characters left out"),
        (
            {"content": [{"type": "image", "data": "AAAA", "mimeType": "image/png"}]},
            "ok",
            "[image: image/png, 3 bytes]",
        ),
        (
            {"content": [{"type": "audio", "data": "AAAA", "mimeType": "audio/wav"}]},
            "ok",
            "[audio: audio/wav, 3 bytes]",
        ),
        ({"content": [{"type": "resource", "resource": {"uri": "a:b", "text": "inner"}}]}, "ok", "inner"),
        ({"content": [{"type": "resource_link", "uri": "a:b", "name": "file"}]}, "ok", "[resource_link: file, a:b]"),
        ({"content": [{"type": "hologram", "x": 1}]}, "ok", "hologram"),
        ({"content": [], "structuredContent": {"a": 1}}, "ok", '{"a": 1}'),
        ({"content": [{"type": "text", "text": "see below"}], "structuredContent": {"a": "b2"}}, "ok", '"b2"'),
        ({"content": [{"type": "text", "text": '{"a": "b2"}'}], "structuredContent": {"a": "b2"}}, "ok", "b2"),
        ({"content": None}, "ok", "(no content)"),
        ({}, "ok", "(no content)"),
        ({"content": "plain"}, "ok", "plain"),
        ({"content": [{"type": "text", "text": "bad \ud800"}], "isError": True}, "error", "says: bad \ufffd"),
        ({"error": {"code": -32602, "message": "wrong"}}, "error", "does not take the call: wrong"),
        ({"error": {"code": -32000, "message": "table is locked"}}, "error", "table is locked"),
    ]
    server = Server()
    async with serving(server, free_port) as url, running({"act": _tool(url, "effect")}) as registry:
        await ready(registry)
        for reply, status, content in cases:
            server.reply = lambda reply=reply: reply
            result = await call(registry, "act", n=1)
            assert (result.status, content in result.content) == (status, True), (reply, result)
            result.content.encode()
            assert len(result.content) <= 100_000
        assert server.begun == 1
        assert len(server.deeds) == len(cases)
        server.reply = lambda: web.Response(text="<html>", content_type="text/html")
        assert (await call(registry, "act", n=1)).status == "unknown"
        server.reply = lambda: web.Response(status=500)
        assert (await call(registry, "act", n=1)).status == "unknown"


async def _wait_for_specs(grouped: GroupedTools, count: int) -> dict[str, ToolSpec]:
    """The tools, once there are so many."""
    for _ in range(200):
        specs = {spec.name: spec for spec in await grouped.specs()}
        if len(specs) == count:
            break
        await asyncio.sleep(0.05)
    return specs


async def test_all_tools_of_a_server_are_offered_as_it_lists_them(free_port: int) -> None:
    tools = [
        TOOL,
        {**TOOL, "name": "查询"},
        {**TOOL, "name": "read.file"},
        {**TOOL, "name": "read_file"},
        {"name": 7},
        None,
    ]
    server = Server(tools=tools)
    async with serving(server, free_port) as url:
        entry = _tool(url, "idempotent", tools="all", prefix="t_", effects={"act": "effect"})
        other = ToolSettings(function="test_unusual_tools:order")
        async with running({"tickets": entry, "t_act": other}) as registry:
            grouped = GroupedTools(ToolGroup(registry, {"tickets": entry, "t_act": other}))
            specs = await _wait_for_specs(grouped, 5)
            assert {"t_act", "t_act_2", "t_read_file", "t_read_file_2"} < specs.keys()
            assert all(name.isascii() for name in specs)
            assert (specs["t_act_2"].effect, specs["t_act_2"].attempts) == ("effect", 1)
            assert specs["t_read_file"].effect == "idempotent"
            assert (await call(registry, "t_act_2", n=3)).status == "ok"
            assert "no such argument" in (await call(registry, "t_act_2", m=3)).content or server.deeds[-1] == {"n": 3}
            assert "there is no tool tickets" in (await call(registry, "tickets")).content
            assert {check.name: check.ok for check in await registry.checks()} == {
                "tool:tickets": True,
                "tool:t_act": True,
            }
            await asyncio.wait_for(server.listening.wait(), 5)
            await server.change([TOOL])
            assert (await _wait_for_specs(grouped, 2)).keys() == {"t_act", "t_act_2"}
            assert len(registry.circuits) == 2


async def test_tools_of_a_server_that_is_away_are_known_and_not_there(free_port: int) -> None:
    server = Server()
    async with running({"tickets": _tool(f"http://127.0.0.1:{free_port}/mcp", tools="all")}) as registry:
        (spec,) = await registry.specs()
        assert (spec.name, spec.ready, spec.parameters) == ("tickets", False, {})
        async with serving(server, free_port):
            await ready(registry)
        assert (await call(registry, "act", n=1)).status == "error"
        await ready(registry, wanted=False)
        (spec,) = await registry.specs()
        assert (spec.name, spec.ready, bool(spec.parameters)) == ("act", False, True)
        assert [check.ok for check in await registry.checks()] == [False]
        assert (await call(registry, "act", n=1)).status == "refused"


PROGRAM = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    tools = [{"name": "act", "description": "Act.", "inputSchema": {"type": "object"}}]
    info = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "p", "version": "1"}}
    results = {"initialize": info, "tools/list": {"tools": tools}}
    said = {"content": [{"type": "text", "text": "file \\udce9 name"}]}
    if "id" in asked:
        print("this is no JSON", flush=True)
        result = results.get(asked["method"], said)
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


async def test_a_program_that_says_lone_surrogates_and_other_lines_is_understood(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, "utf-8")
    settings = ToolSettings(mcp=McpToolSettings(command=[sys.executable, str(program)]), attempts=1)
    async with running({"act": settings}) as registry:
        await ready(registry)
        results = await asyncio.gather(*(call(registry, "act") for _ in range(3)))
        assert [result.content for result in results] == ["file \ufffd name"] * 3


def test_settings_that_belong_to_all_tools_of_a_server_stand_nowhere_else() -> None:
    for mcp in (
        {"tool": "a", "tools": "all"},
        {"prefix": "a_"},
        {"effects": {"a": "pure"}},
        {"tools": "all", "prefix": "ä"},
    ):
        with pytest.raises(ValidationError):
            _tool("http://127.0.0.1:1/mcp", **mcp)
    with pytest.raises(ValidationError):
        ToolSettings.model_validate({"mcp": {"url": "http://127.0.0.1:1/mcp", "tools": "all"}, "fallback": "other"})
