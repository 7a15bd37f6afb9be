"""The admission controller gives each place to the next turn, and gets each one back."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest

from serve_app.config import AdmissionSettings
from serve_app.errors import Overloaded, StoreUnavailable
from serve_app.http.admission import FIRST_PLACES, MIN_PLACES, REPORT_EVERY_S, AdmissionController
from serve_app.observability.metric_catalogue import ADMISSION_WAIT_S, PLACES
from serve_app.observability.metrics import InMemoryMetrics, LoopLoad
from serve_app.resilience.tasks import cancel_and_wait
from serve_app.stores.capacity_store import CapacityShare
from serve_app.values import TenantLimits

virtual = pytest.mark.looptime


class Alike:
    """All tenants are."""

    def tenant_limits(self, tenant: str) -> TenantLimits:
        return TenantLimits()


def _admission(metrics: InMemoryMetrics | None = None, **settings: float) -> AdmissionController:
    return AdmissionController(AdmissionSettings(**settings), Alike(), metrics or InMemoryMetrics())


async def _never() -> None:
    await asyncio.Event().wait()


async def _turn(admission: AdmissionController, tenant: str = "t", takes_s: float = 1.0) -> float:
    """One turn, as the API has it; how long it took."""
    begun = asyncio.get_running_loop().time()
    ticket = admission.enter(tenant)
    try:
        if ticket.state == "waits":
            disconnect = asyncio.create_task(_never())
            try:
                await admission.wait_for_place(ticket, disconnect)
            finally:
                disconnect.cancel()
        await asyncio.sleep(takes_s)
    finally:
        admission.leave(ticket)
    return asyncio.get_running_loop().time() - begun


def _free(admission: AdmissionController) -> bool:
    return (admission._queue.served, admission._queue.waiting, admission._waiting) == (0, 0, {})


@virtual
async def test_as_many_turns_as_may_be_are_served_at_once_and_the_next_ones_after_them():
    admission = _admission(max_turns=2, max_waiting=6)
    took = await asyncio.gather(*(_turn(admission) for _ in range(6)))
    assert took == pytest.approx([1, 1, 2, 2, 3, 3])
    assert _free(admission)


@virtual
async def test_what_waits_too_long_is_refused_and_only_those_who_waited_are_measured():
    metrics = InMemoryMetrics()
    admission = _admission(metrics, max_turns=1, max_waiting=6, max_wait_s=1.5)
    took = await asyncio.gather(*(_turn(admission, takes_s=10) for _ in range(2)), return_exceptions=True)
    assert took[0] == pytest.approx(10)
    assert isinstance(took[1], Overloaded)
    assert "1.5 seconds" in took[1].message
    assert metrics.of(ADMISSION_WAIT_S)
    assert _free(admission)


@virtual
async def test_whoever_is_refused_is_told_how_long_those_who_wait_will_take():
    admission = _admission(max_turns=2, max_waiting=30, max_wait_s=100)
    for _ in range(10):
        await asyncio.gather(*(_turn(admission) for _ in range(2)))
    waiting = [asyncio.create_task(_turn(admission)) for _ in range(20)]
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded) as refused:
        admission.check_room("t")
    assert refused.value.retry_after_s == pytest.approx(19 / 2, rel=0.1)
    await asyncio.gather(*waiting)


@virtual
async def test_a_tenant_at_a_hundred_times_its_share_costs_another_a_third_of_a_turn_at_most():
    async def modest(admission: AdmissionController) -> list[float]:
        chance, turns = random.Random(7), []
        for _ in range(120):
            await asyncio.sleep(chance.expovariate(2))
            turns.append(asyncio.create_task(_turn(admission, "modest", chance.uniform(0.5, 1.5))))
        return sorted(await asyncio.gather(*turns))

    async def greedy(admission: AdmissionController) -> None:
        chance = random.Random(8)
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(0.25)
                with suppress(Overloaded):
                    for _ in range(200):
                        admission.check_room("greedy")
                        group.create_task(_turn(admission, "greedy", chance.uniform(0.5, 1.5)))
                        await asyncio.sleep(0)

    alone = await modest(_admission(max_turns=16, max_waiting=48))
    admission = _admission(max_turns=16, max_waiting=48)
    flood = asyncio.create_task(greedy(admission))
    await asyncio.sleep(5)
    beside = await modest(admission)
    await cancel_and_wait(flood)
    p99 = int(0.99 * len(alone))
    assert len(beside) == 120
    assert beside[p99] < 1.3 * alone[p99]
    assert _free(admission)


async def test_no_place_is_lost_wherever_a_turn_is_cancelled():
    admission = _admission(max_turns=2, max_waiting=60)
    chance = random.Random(3)
    for steps in range(60):
        turns = [asyncio.create_task(_turn(admission, f"t{each % 3}", takes_s=0)) for each in range(6)]
        for _ in range(steps % 12):
            await asyncio.sleep(0)
        for turn in chance.sample(turns, 3):
            turn.cancel()
        await asyncio.gather(*turns, return_exceptions=True)
        assert _free(admission), steps


async def test_one_that_is_cancelled_as_its_place_comes_gives_it_on():
    admission = _admission(max_turns=1, max_waiting=60)
    first = admission.enter("t")
    second, third = (asyncio.create_task(_turn(admission, takes_s=0)) for _ in range(2))
    await asyncio.sleep(0.01)
    admission.leave(first)
    second.cancel()
    await asyncio.wait_for(third, 1)
    assert _free(admission)


async def test_one_that_fails_gives_its_place_back():
    admission = _admission(max_turns=1, max_waiting=0)

    async def failing() -> None:
        ticket = admission.enter("t")
        try:
            raise ValueError
        finally:
            admission.leave(ticket)

    with suppress(ValueError):
        await failing()
    assert _free(admission)


class Failing(InMemoryMetrics):
    """Cannot take a number once."""

    sets = 0

    def set(self, *args: Any, **kwargs: Any) -> None:
        self.sets += 1
        if self.sets == 1:
            raise RuntimeError("poison")
        super().set(*args, **kwargs)


@virtual
async def test_a_number_that_cannot_be_taken_does_not_end_the_telling_of_the_others():
    metrics = Failing()
    going_on = asyncio.create_task(_admission(metrics).report_waiting())
    await asyncio.sleep(2.5 * REPORT_EVERY_S)
    assert (metrics.sets, going_on.done()) == (3, False)
    await cancel_and_wait(going_on)


class Reports:
    """What the agents report, second by second; an error is raised, and the last one stays."""

    def __init__(self, *reports: CapacityShare | Exception | None) -> None:
        self.reports = list(reports)

    async def read_share(self) -> CapacityShare | None:
        report = self.reports.pop(0) if len(self.reports) > 1 else self.reports[0]
        if isinstance(report, Exception):
            raise report
        return report


async def _followed(
    admission: AdmissionController, reports: Reports, seconds: float, load: LoopLoad | None = None
) -> int:
    """The places after so many seconds."""
    following = asyncio.create_task(admission.follow_capacity(reports, load or LoopLoad()))
    await asyncio.sleep(seconds)
    assert not following.done()
    await cancel_and_wait(following)
    return admission._queue.places


@virtual
async def test_there_are_as_many_places_as_the_agents_report():
    metrics = InMemoryMetrics()
    admission = _admission(metrics)
    assert admission._queue.places == FIRST_PLACES
    assert await _followed(admission, Reports(CapacityShare(1200, 1, 0.0)), 0.5) == 1200
    assert metrics.of(PLACES) == {(): 1200}


@virtual
async def test_turns_that_wait_begin_as_soon_as_there_are_more_places():
    admission = _admission()
    turns = [asyncio.create_task(_turn(admission, takes_s=4)) for _ in range(FIRST_PLACES + 9)]
    await asyncio.sleep(0.1)
    assert await _followed(admission, Reports(CapacityShare(1200, 1, 0.0)), 0.5) > FIRST_PLACES + 9
    took = await asyncio.gather(*turns)
    assert max(took) < 5, "none waited for the end of another"
    assert _free(admission)


@virtual
@pytest.mark.parametrize("own", [True, False])
async def test_places_are_taken_away_from_busy_event_loops_down_to_those_that_keep_a_core_busy(own):
    admission, load = _admission(), LoopLoad()
    load.busy = 1.0 if own else 0.0
    reports = Reports(CapacityShare(2400, 2, 0.0 if own else 1.0))
    assert await _followed(admission, reports, 60, load) == 2 * MIN_PLACES


@virtual
async def test_without_reports_the_places_stay_as_they_are():
    admission = _admission()
    reports = Reports(CapacityShare(150, 1, 0.0), StoreUnavailable("away"), RuntimeError("odd"), None)
    assert await _followed(admission, reports, 60) == 150


@virtual
async def test_a_number_in_the_settings_is_the_number_of_places():
    admission = _admission(max_turns=32)
    assert await _followed(admission, Reports(CapacityShare(1200, 1, 0.0)), 60) == 32
