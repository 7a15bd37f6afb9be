"""The line of the process log that says how a turn ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from agent_process import reply

from serve_app.errors import StoreUnavailable
from serve_app.runs.store import RunStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_process import AgentProcess
    from captured_logs import CapturedLogs

    Open = Callable[..., AgentProcess]


class LostAtTheEnd(RunStore):
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
    ("script", "store", "fields"),
    [
        ([reply("Hi.")], RunStore, {"status": "success", "degraded": []}),
        ([BROKEN, reply("Hi.")], RunStore, {"status": "degraded", "degraded": ["tool:broken"]}),
        ([BROKEN, reply("Hi.")], LostAtTheEnd, {"status": "degraded", "degraded": ["memory", "tool:broken"]}),
        ([reply("Hi.")], Away, {"status": "degraded", "degraded": ["memory"]}),
        ([reply("")] * 3, RunStore, {"status": "failed", "code": "model_unavailable"}),
    ],
)
async def test_the_process_says_in_one_line_how_a_turn_ended(
    start_agent: Open, captured_logs: CapturedLogs, script: list[Any], store: Any, fields: dict[str, Any]
) -> None:
    agent = start_agent(*script, store=store, max_wait_s=0.1)
    await (agent.fail if fields["status"] == "failed" else agent.ask)()
    await asyncio.sleep(0.05)
    [line] = captured_logs.of("run_ended")
    assert {name: line[name] for name in fields} == fields
    assert line["level"] == ("INFO" if fields["status"] == "success" else "WARNING")
    assert line["run_id"]
