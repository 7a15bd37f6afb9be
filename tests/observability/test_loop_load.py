"""An event loop that computes, or waits for a core, is busy; one that waits for messages is not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from serve_app.observability.metrics import LoopLoad


async def _measured(work_s: float, for_s: float) -> tuple[LoopLoad, float]:
    """A loop that works so long after each pause of 20 ms; its load, and the worst lag."""

    async def work() -> None:
        while True:
            until = time.monotonic() + work_s
            while time.monotonic() < until:
                pass
            await asyncio.sleep(0.02 if work_s < 0.01 else 0)

    load, task = LoopLoad(), asyncio.create_task(work())
    worst_s = await load.measure(for_s)
    task.cancel()
    return load, worst_s


async def test_a_loop_that_computes_all_the_time_is_busy_however_short_its_steps() -> None:
    load, _ = await _measured(work_s=0.01, for_s=2.5)
    assert load.busy > 0.9


async def test_a_loop_that_waits_for_messages_is_not_busy() -> None:
    load, _ = await _measured(work_s=0.0002, for_s=1.5)
    assert load.busy < 0.3


async def test_a_standstill_is_the_worst_lag() -> None:
    _, worst_s = await _measured(work_s=0.6, for_s=1.0)
    assert worst_s > 0.3


def test_waiting_for_a_core_counts_as_busy() -> None:
    """Four processes that compute on one core: each works a quarter of the time, and is busy all of it."""
    code = (
        "import asyncio, os\n"
        "from serve_app.observability.metrics import LoopLoad\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "async def spin():\n"
        "    while True:\n"
        "        sum(range(20000))\n"
        "        await asyncio.sleep(0)\n"
        "async def main():\n"
        "    load, task = LoopLoad(), asyncio.create_task(spin())\n"
        "    await load.measure(2.5)\n"
        "    print(load.busy, load.worked)\n"
        "asyncio.run(main())\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in started:
        busy, worked = map(float, process.communicate(timeout=60)[0].split())
        assert busy > 0.9
        assert worked < 0.6
