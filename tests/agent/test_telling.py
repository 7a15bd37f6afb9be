"""Does the log of the process say in one line how a turn ended that did not end well?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from desk import reply

from serve_app.errors import StoreUnavailable
from serve_app.runs.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from desk import Desk

    Open = Callable[..., Desk]


class Leaving(Registry):
    """A Redis that is gone when the answer comes."""

    async def append(self, appends: Any) -> Any:
        if any(each.status for each in appends):
            raise StoreUnavailable("Redis did not answer")
        return await super().append(appends)


class Away(Registry):
    """A Redis that is gone before the run begins."""

    async def begin(self, *_: Any) -> Any:
        raise StoreUnavailable("Redis did not answer")


BROKEN = reply("", ("broken", {"text": "x"}))


@pytest.mark.parametrize(
    ("script", "registry", "line"),
    [
        ([reply("Hi.")], Registry, None),
        ([BROKEN, reply("Hi.")], Registry, "is degraded, without tool:broken"),
        ([BROKEN, reply("Hi.")], Leaving, "is degraded, without memory, tool:broken"),
        ([reply("Hi.")], Away, "is degraded, without memory"),
        ([reply("")] * 3, Registry, "failed: model_unavailable"),
    ],
)
async def test_the_process_says_in_one_line_how_a_turn_ended_that_is_not_whole(
    open_desk: Open, caplog: pytest.LogCaptureFixture, script: list[Any], registry: Any, line: str | None
) -> None:
    desk = open_desk(*script, registry=registry, patience_s=0.1)
    await (desk.fail if line and line.startswith("failed") else desk.ask)()
    await asyncio.sleep(0.05)
    told = [each.getMessage() for each in caplog.records if each.name == "serve_app.runs.course"]
    ends = [each for each in told if "degraded" in each or "failed" in each]
    assert [each.split(maxsplit=2)[2] for each in ends] == ([line] if line else [])
    assert all(each.startswith("run ") for each in ends)
