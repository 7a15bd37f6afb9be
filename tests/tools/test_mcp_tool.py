"""Are an MCP server's tools called, and is a server that is away looked for? Against real servers."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serve_app.config import McpToolSettings, ToolSettings
from serve_app.tools.tool_runner import ToolRunner
from serve_app.values import Context, IdempotencyKey, ToolRequest, ToolResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

SERVER = str(Path(__file__).parent / "mcp_server.py")
COMMAND = [sys.executable, SERVER]
KEY = IdempotencyKey("run:0:0")
NAMES = ("greet", "fail", "sleep", "told", "die")


def _settings(timeout_s: float = 10, **mcp: Any) -> ToolSettings:
    return ToolSettings(mcp=McpToolSettings(**(mcp or {"command": COMMAND})), attempts=1, timeout_s=timeout_s)


@asynccontextmanager
async def running(tools: dict[str, ToolSettings]) -> AsyncIterator[ToolRunner]:
    runner = ToolRunner(tools, [], ["127.0.0.1"])
    runner.start()
    try:
        yield runner
    finally:
        await runner.close()


@asynccontextmanager
async def served(port: int) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(*COMMAND, str(port))
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ready(runner: ToolRunner, *, wanted: bool = True, patience_s: float = 30) -> None:
    """Wait until all tools are there, or none is."""
    until = time.monotonic() + patience_s
    while any(spec.ready != wanted for spec in await runner.specs()):
        assert time.monotonic() < until
        await asyncio.sleep(0.05)


async def call(runner: ToolRunner, called: str, /, **arguments: Any) -> ToolResult:
    context = Context(request_id="r", run_id="r", session_id="s", deadline=time.time() + 30)
    return await runner.call(context, ToolRequest(id="c", name=called, arguments=arguments), KEY)


async def answered(runner: ToolRunner, called: str, /, **arguments: Any) -> ToolResult:
    """What the tool says once its server has started; none of the calls before was taken."""
    for _ in range(10):
        result = await call(runner, called, **arguments)
        if result.status == "ok":
            break
        assert result.status in {"error", "refused"}
        await asyncio.sleep(0.5)
    return result


async def test_the_tools_of_a_program_are_called_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLD", "told")
    monkeypatch.setenv("UNTOLD", "untold")
    mcp = {"command": COMMAND, "environment": ["TOLD"]}
    tools = {name: _settings(**mcp) for name in NAMES} | {"hello": _settings(**mcp, tool="greet")}
    async with running(tools) as runner:
        assert [spec.ready for spec in await runner.specs()] == [False] * 6
        assert (await call(runner, "greet", name="x")).status == "refused"
        await ready(runner)
        specs = {spec.name: spec for spec in await runner.specs()}
        assert specs["hello"].description == "Greet someone."
        assert specs["hello"].parameters["required"] == ["name"]
        result = await call(runner, "hello", name="you", times=2)
        assert (result.content, result.status, result.attempts) == ("hello you hello you", "ok", 1)
        assert (await call(runner, "told")).content == "told None"
        assert len({id(line.tool._server) for line in runner._loaded.values()}) == 1  # type: ignore[attr-defined]


async def test_a_wrong_argument_goes_back_to_the_model_and_an_error_is_the_tools_answer() -> None:
    async with running({name: _settings() for name in NAMES}) as runner:
        await ready(runner)
        wrong = await call(runner, "greet", name=1)
        assert (wrong.status, wrong.attempts) == ("error", 0)
        failed = await call(runner, "fail")
        assert (failed.status, failed.attempts) == ("error", 1)
        assert "no such thing" in failed.content


async def test_a_tool_that_may_be_called_again_gets_the_calls_key_beside_its_arguments() -> None:
    settings = _settings(command=COMMAND, tool="key")
    tools = {effect: settings.model_copy(update={"effect": effect}) for effect in ("pure", "idempotent")}
    async with running(tools) as runner:
        await ready(runner)
        told = [(await call(runner, effect)).content for effect in tools]
        assert told == ["nothing", "{'idempotencyKey': 'run:0:0'}"]


async def test_an_argument_may_have_any_name() -> None:
    async with running({"runtime": _settings()}) as runner:
        await ready(runner)
        assert (await call(runner, "runtime", runtime="x")).content == "run x"


async def test_an_answer_that_is_far_too_long_is_not_read_to_its_end_and_ends_no_session(free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}/mcp"
    async with served(free_port), running({name: _settings(url=url) for name in ("greet", "long")}) as runner:
        await ready(runner)
        begun = time.monotonic()
        result = await call(runner, "long", length=3_000_000)
        assert (result.status, result.attempts) == ("error", 1)
        assert "longer than 100000 bytes" in result.content
        assert (await call(runner, "long", length=99_000)).content == "x" * 99_000
        assert (await call(runner, "greet", name="x")).status == "ok", "the session lives"
        assert time.monotonic() - begun < 5


async def test_of_an_answer_that_is_too_long_the_ends_are_told() -> None:
    async with running({"greet": _settings(command=COMMAND, max_response_bytes=100)}) as runner:
        await ready(runner)
        result = await call(runner, "greet", name="x", times=100)
        assert (result.status, len(result.content)) == ("ok", 100)
        assert "characters left out" in result.content


async def test_a_call_that_takes_too_long_leaves_the_others_be() -> None:
    async with running({name: _settings(timeout_s=0.5) for name in NAMES}) as runner:
        await ready(runner)
        slow, quick = await asyncio.gather(call(runner, "sleep", seconds=20), call(runner, "greet", name="x"))
        assert (slow.status, quick.status) == ("timeout", "ok")
        await asyncio.sleep(0.2)
        assert (await call(runner, "greet", name="x")).status == "ok", "the session lives"


async def test_a_program_that_dies_is_started_again_for_the_next_call() -> None:
    for effect, status in (("pure", "error"), ("effect", "unknown")):
        settings = _settings().model_copy(update={"effect": effect})
        async with running({"die": settings, "greet": settings}) as runner:
            await ready(runner)
            died = await call(runner, "die")
            assert (died.status, died.attempts) == (status, 1)
            assert (await answered(runner, "greet", name="x")).content == "hello x"


async def test_a_server_that_is_not_there_at_the_start_is_found_when_it_comes(free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}/mcp"
    async with running({"greet": _settings(url=url)}) as runner:
        await asyncio.sleep(0.5)
        (check,) = await runner.checks()
        assert (check.name, check.ok, check.required) == ("tool:greet", False, False)
        async with served(free_port):
            await ready(runner)
            assert all(check.ok for check in await runner.checks())
            assert (await call(runner, "greet", name="x")).content == "hello x"
        assert (await call(runner, "greet", name="x")).status == "error", "the server is gone"
        async with served(free_port):
            await ready(runner)
            assert (await call(runner, "greet", name="x")).content == "hello x"


async def test_a_server_at_a_private_address_is_not_asked_unless_it_is_listed(free_port: int) -> None:
    runner = ToolRunner({"greet": _settings(url=f"http://127.0.0.1:{free_port}/mcp")}, [])
    async with served(free_port):
        runner.start()
        await asyncio.sleep(3)
        assert [spec.ready for spec in await runner.specs()] == [False]
        await runner.close()


async def test_a_server_without_the_tool_leaves_it_missing() -> None:
    tools = {"other": _settings(), "greet": _settings()}
    async with running({"greet": tools["greet"]}) as alone, running(tools) as runner:
        await ready(alone)
        await asyncio.sleep(1)
        assert [spec.ready for spec in await runner.specs()] == [False, True]
