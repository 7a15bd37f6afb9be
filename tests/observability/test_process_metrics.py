"""A process reports its own metrics again and again."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from serve_app.observability import metrics as metrics_module
from serve_app.observability.metric_catalogue import BREAKER_STATE, CPU_S, LOOP_LAG_S, RESIDENT_BYTES
from serve_app.observability.metrics import REPORT_EVERY_S, InMemoryMetrics, report_process_metrics
from serve_app.resilience.circuit_breaker import BreakerPolicy, GuardedCalls
from serve_app.resilience.tasks import cancel_and_wait

if TYPE_CHECKING:
    from collections.abc import Mapping

from serve_app.errors import ModelUnavailable

WAIT_S = 0.6


@pytest.mark.looptime
async def test_a_breakers_state_is_reported_as_it_is_at_each_report() -> None:
    clock = asyncio.get_running_loop().time
    circuit = GuardedCalls("m", BreakerPolicy(failures=1, cool_down_s=2 * REPORT_EVERY_S), clock)

    def breakers() -> Mapping[str, str]:
        return {"model:m": circuit.state}

    metrics, seen = InMemoryMetrics(), []
    reporting = asyncio.create_task(report_process_metrics(metrics, breakers))
    for step in range(4):
        await asyncio.sleep(REPORT_EVERY_S + 0.3)
        seen.append(metrics.of(BREAKER_STATE)["model:m"])
        if step == 0:
            with pytest.raises(ModelUnavailable), circuit.guard(ModelUnavailable, (ModelUnavailable,)):
                raise ModelUnavailable("x")
    with circuit.guard(ModelUnavailable, ()):
        pass
    await asyncio.sleep(REPORT_EVERY_S + 0.3)
    assert [*seen, metrics.of(BREAKER_STATE)["model:m"]] == [0, 2, 2, 1, 0]
    await cancel_and_wait(reporting)


async def test_a_loop_that_stood_still_is_seen_and_its_processor_time_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "REPORT_EVERY_S", WAIT_S)
    metrics = InMemoryMetrics()
    reporting = asyncio.create_task(report_process_metrics(metrics))
    await asyncio.sleep(0)
    used_s = metrics.of(CPU_S)[()]
    until = time.process_time() + 0.4
    while time.process_time() < until:
        pass
    await asyncio.sleep(WAIT_S)
    assert metrics.of(LOOP_LAG_S)[()] >= 0.14  # the pause of a quarter of a second ends within the 0.4 s
    assert metrics.of(CPU_S)[()] >= used_s + 0.4
    await cancel_and_wait(reporting)


@pytest.mark.looptime
async def test_metrics_are_flushed_at_each_report_and_at_the_end() -> None:
    flushed = []

    class Counting(InMemoryMetrics):
        def flush(self) -> None:
            flushed.append(asyncio.get_running_loop().time())

    reporting = asyncio.create_task(report_process_metrics(Counting()))
    await asyncio.sleep(2.5 * REPORT_EVERY_S)
    assert len(flushed) == 2
    await cancel_and_wait(reporting)
    assert len(flushed) == 3


async def test_the_memory_is_what_the_system_says() -> None:
    metrics = InMemoryMetrics()
    reporting = asyncio.create_task(report_process_metrics(metrics))
    await asyncio.sleep(0)
    assert abs(metrics.of(RESIDENT_BYTES)[()] - psutil.Process().memory_info().rss) < 20e6
    await cancel_and_wait(reporting)
