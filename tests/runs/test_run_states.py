"""Log lines of a run's states, and of Redis going away and coming back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from worker_process import answer, context, request

from serve_app.errors import ModelUnavailable, StoreUnavailable
from serve_app.stores.availability import RedisAvailability

if TYPE_CHECKING:
    from serve_app.runs.run import Run
    from serve_app.values import Answer


async def test_a_run_tells_of_its_beginning_and_its_end(start, captured_logs) -> None:
    turn_context = context(run_id="r1")
    await start().events(turn_context, request())
    [begun], [ended] = captured_logs.of("run_begun"), captured_logs.of("run_ended")
    for line in (begun, ended):
        assert {name: line[name] for name in turn_context.ids} == turn_context.ids
    assert (ended["status"], ended["degraded"], ended["attempts"], ended["level"]) == ("success", [], 0, "INFO")
    assert 50 < ended["elapsed_ms"] < 5000
    assert "adoptions" not in ended


async def test_a_run_that_fails_tells_its_code_and_of_a_fault_the_traceback(start, captured_logs) -> None:
    async def unavailable(run: Run) -> Answer:
        raise ModelUnavailable("The model did not answer")

    async def broken(run: Run) -> Answer:
        raise KeyError("13800138000")

    for work in (unavailable, broken):
        await start(work).events(context(), request())
    expected, fault = captured_logs.of("run_ended")
    assert (expected["status"], expected["code"], expected["level"]) == ("failed", "model_unavailable", "WARNING")
    assert "exception" not in expected
    assert (fault["code"], "[phone]" in fault["exception"]) == ("internal", True)


async def test_a_run_that_is_taken_over_says_so(start, captured_logs) -> None:
    async def dies(run: Run) -> Answer:
        if not run.lease.last_event_id:
            await first.die()
        return answer(run)

    first, second = start(dies), start(dies)
    turn_context = context(run_id="r1")
    await first.events(turn_context, request())
    await second.events(turn_context, request(), after=1)
    [line] = captured_logs.of("run_adopted")
    assert (line["run_id"], line["adoptions"]) == ("r1", 1)
    assert captured_logs.of("run_ended")[-1]["adoptions"] == 1


async def test_redis_is_told_of_once_when_it_goes_and_once_when_it_comes_back(captured_logs) -> None:
    availability = RedisAvailability(max_wait_s=0.0)

    async def away() -> None:
        raise StoreUnavailable("Redis did not answer")

    async def there() -> int:
        return 1

    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await availability.call_until(away)
    assert await availability.call_until(there) == await availability.call_until(there) == 1
    assert [line["event"] for line in captured_logs.lines if line.get("event", "").startswith("redis")] == [
        "redis_unavailable",
        "redis_available_again",
    ]
