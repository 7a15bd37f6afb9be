"""Does the log of the process say in one line how a turn ended?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from desk import reply

from serve_app.errors import StoreUnavailable
from serve_app.runs.store import RunStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from desk import Desk
    from told_lines import Told

    Open = Callable[..., Desk]


class Leaving(RunStore):
    """A Redis that is gone when the answer comes."""

    async def append(self, appends: Any) -> Any:
        if any(each.status for each in appends):
            raise StoreUnavailable("Redis did not answer")
        return await super().append(appends)


class Away(RunStore):
    """A Redis that is gone before the run begins."""

    async def begin(self, *_: Any) -> Any:
        raise StoreUnavailable("Redis did not answer")


BROKEN = reply("", ("broken", {"text": "x"}))


@pytest.mark.parametrize(
    ("script", "registry", "said"),
    [
        ([reply("Hi.")], RunStore, {"status": "success", "degraded": []}),
        ([BROKEN, reply("Hi.")], RunStore, {"status": "degraded", "degraded": ["tool:broken"]}),
        ([BROKEN, reply("Hi.")], Leaving, {"status": "degraded", "degraded": ["memory", "tool:broken"]}),
        ([reply("Hi.")], Away, {"status": "degraded", "degraded": ["memory"]}),
        ([reply("")] * 3, RunStore, {"status": "failed", "code": "model_unavailable"}),
    ],
)
async def test_the_process_says_in_one_line_how_a_turn_ended(
    open_desk: Open, told: Told, script: list[Any], registry: Any, said: dict[str, Any]
) -> None:
    desk = open_desk(*script, registry=registry, patience_s=0.1)
    await (desk.fail if said["status"] == "failed" else desk.ask)()
    await asyncio.sleep(0.05)
    [line] = told.of("run_ended")
    assert {name: line[name] for name in said} == said
    assert line["level"] == ("INFO" if said["status"] == "success" else "WARNING")
    assert line["run_id"]
