"""An MCP server's tools are called, and a server that is away is found again; against real servers."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from mcp_tools import COMMAND, answered, call, mcp_settings, ready, running, served, started_server

from serve_app.tools.registry import ToolRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("greet", "fail", "sleep", "environment", "die")


@pytest.fixture(scope="module")
def mcp_url() -> Iterator[str]:
    """A server that all tests use which do not end it."""
    with started_server() as url:
        yield url


async def test_the_tools_of_a_program_are_called_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTED", "listed")
    monkeypatch.setenv("UNLISTED", "unlisted")
    mcp = {"command": COMMAND, "environment": ["LISTED"]}
    tools = {name: mcp_settings(**mcp) for name in NAMES} | {"hello": mcp_settings(**mcp, tool="greet")}
    async with running(tools) as registry:
        assert [spec.ready for spec in await registry.specs()] == [False] * 6
        assert (await call(registry, "greet", name="x")).status == "refused"
        await ready(registry)
        specs = {spec.name: spec for spec in await registry.specs()}
        assert specs["hello"].description == "Greet someone."
        assert specs["hello"].parameters["required"] == ["name"]
        result = await call(registry, "hello", name="you", times=2)
        assert (result.content, result.status, result.attempts) == ("hello you hello you", "ok", 1)
        assert (await call(registry, "environment")).content == "listed None"
        assert len({id(line.tool._server) for line in registry._loaded.values()}) == 1  # type: ignore[attr-defined]


async def test_a_wrong_argument_goes_back_to_the_model_and_an_error_is_the_tools_answer(mcp_url: str) -> None:
    async with running({name: mcp_settings(url=mcp_url) for name in ("greet", "fail")}) as registry:
        await ready(registry)
        wrong = await call(registry, "greet", name=1)
        assert (wrong.status, wrong.attempts) == ("error", 0)
        failed = await call(registry, "fail")
        assert (failed.status, failed.attempts) == ("error", 1)
        assert "no such thing" in failed.content


async def test_a_tool_that_may_be_called_again_gets_the_calls_key_beside_its_arguments(mcp_url: str) -> None:
    settings = mcp_settings(url=mcp_url, tool="key")
    tools = {effect: settings.model_copy(update={"effect": effect}) for effect in ("pure", "idempotent")}
    async with running(tools) as registry:
        await ready(registry)
        contents = [(await call(registry, effect)).content for effect in tools]
        assert contents == ["nothing", "{'idempotencyKey': 'run:0:0'}"]


async def test_an_argument_may_have_any_name(mcp_url: str) -> None:
    async with running({"runtime": mcp_settings(url=mcp_url)}) as registry:
        await ready(registry)
        assert (await call(registry, "runtime", runtime="x")).content == "run x"


async def test_an_answer_that_is_far_too_long_is_not_read_to_its_end_and_ends_no_session(mcp_url: str) -> None:
    async with running({name: mcp_settings(url=mcp_url) for name in ("greet", "long")}) as registry:
        await ready(registry)
        begun = time.monotonic()
        result = await call(registry, "long", length=3_000_000)
        assert (result.status, result.attempts) == ("error", 1)
        assert "longer than 100000 bytes" in result.content
        assert (await call(registry, "long", length=99_000)).content == "x" * 99_000
        assert (await call(registry, "greet", name="x")).status == "ok", "the session lives"
        assert time.monotonic() - begun < 5


async def test_of_an_answer_that_is_too_long_the_ends_are_told(mcp_url: str) -> None:
    async with running({"greet": mcp_settings(url=mcp_url, max_response_bytes=100)}) as registry:
        await ready(registry)
        result = await call(registry, "greet", name="x", times=100)
        assert (result.status, len(result.content)) == ("ok", 100)
        assert "characters left out" in result.content


async def test_a_call_that_takes_too_long_leaves_the_others_be(mcp_url: str) -> None:
    async with running({name: mcp_settings(timeout_s=0.5, url=mcp_url) for name in ("greet", "sleep")}) as registry:
        await ready(registry)
        slow, quick = await asyncio.gather(call(registry, "sleep", seconds=20), call(registry, "greet", name="x"))
        assert (slow.status, quick.status) == ("timeout", "ok")
        await asyncio.sleep(0.2)
        assert (await call(registry, "greet", name="x")).status == "ok", "the session lives"


async def test_a_program_that_dies_is_started_again_for_the_next_call() -> None:
    async def die(effect: str, status: str) -> None:
        settings = mcp_settings().model_copy(update={"effect": effect})
        async with running({"die": settings, "greet": settings}) as registry:
            await ready(registry)
            died = await call(registry, "die")
            assert (died.status, died.attempts) == (status, 1)
            assert (await answered(registry, "greet", name="x")).content == "hello x"

    await asyncio.gather(die("pure", "error"), die("effect", "unknown"))


async def test_a_server_that_is_not_there_at_the_start_is_found_when_it_comes(free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}/mcp"
    async with running({"greet": mcp_settings(url=url)}) as registry:
        await asyncio.sleep(0.5)
        (check,) = await registry.checks()
        assert (check.name, check.ok, check.required) == ("tool:greet", False, False)
        async with served(free_port):
            await ready(registry)
            assert all(check.ok for check in await registry.checks())
            assert (await call(registry, "greet", name="x")).content == "hello x"
        assert (await call(registry, "greet", name="x")).status == "error", "the server is gone"
        async with served(free_port):
            await ready(registry)
            assert (await call(registry, "greet", name="x")).content == "hello x"


async def test_a_server_at_a_private_address_is_not_asked_unless_it_is_listed(mcp_url: str) -> None:
    registry = ToolRegistry({"greet": mcp_settings(url=mcp_url)}, [])
    registry.start()
    await asyncio.sleep(1)
    assert [spec.ready for spec in await registry.specs()] == [False]
    await registry.close()


async def test_a_server_without_the_tool_leaves_it_missing(mcp_url: str) -> None:
    tools = {"other": mcp_settings(url=mcp_url), "greet": mcp_settings(url=mcp_url)}
    async with running({"greet": tools["greet"]}) as alone, running(tools) as registry:
        await ready(alone)
        await asyncio.sleep(1)
        assert [spec.ready for spec in await registry.specs()] == [False, True]
