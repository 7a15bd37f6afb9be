"""A Redis that does not answer is waited for once, and called little until it is back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from serve_app.errors import StoreCorrupt, StoreUnavailable
from serve_app.stores.availability import AWAY_TIMEOUT_S, MAX_WAIT_S, PROBE_EVERY_S, RedisAvailability

if TYPE_CHECKING:
    from captured_logs import CapturedLogs

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


@dataclass
class Store:
    """Fails after `takes_s`, until it is back."""

    takes_s: float = 0
    back: bool = False
    calls: int = 0

    async def __call__(self) -> str:
        self.calls += 1
        if not self.back:
            await asyncio.sleep(self.takes_s)
            raise StoreUnavailable("away")
        return "well"


async def _failed(availability: RedisAvailability, store: Store) -> float:
    begun = asyncio.get_running_loop().time()
    with pytest.raises(StoreUnavailable):
        await availability.call_until(store)
    return asyncio.get_running_loop().time() - begun


@pytest.mark.parametrize("takes_s", [0, 2, 60])
async def test_it_is_waited_for_once_however_it_fails(takes_s: float) -> None:
    availability, store = RedisAvailability(), Store(takes_s)
    assert await _failed(availability, store) == pytest.approx(MAX_WAIT_S, abs=0.11)
    assert availability.is_away
    calls_before = store.calls
    assert await _failed(availability, store) == pytest.approx(min(takes_s, AWAY_TIMEOUT_S), abs=0.01)
    assert store.calls == calls_before + 1


async def test_whoever_finds_it_back_says_so_for_all() -> None:
    availability, store = RedisAvailability(), Store()
    await _failed(availability, store)
    store.back = True
    assert await availability.call_once(store) == "well"
    assert not availability.is_away
    store.back = False
    assert await _failed(availability, store) == pytest.approx(MAX_WAIT_S, abs=0.11)


async def test_a_call_may_have_less_patience_than_others() -> None:
    availability, store = RedisAvailability(), Store()
    with pytest.raises(StoreUnavailable):
        await availability.call_until(store, 0)
    assert (store.calls, availability.is_away) == (1, False)


async def test_one_corrupt_key_does_not_say_that_redis_is_away_and_is_not_asked_for_again() -> None:
    availability, calls = RedisAvailability(MAX_WAIT_S), 0

    async def corrupt() -> None:
        nonlocal calls
        calls += 1
        raise StoreCorrupt("no hash")

    for number in range(1, 4):
        for attempt in (availability.call_once, availability.call_until):
            with pytest.raises(StoreCorrupt):
                await attempt(corrupt)
        await asyncio.sleep(MAX_WAIT_S + 1)
        assert not availability.is_away
        assert calls == 2 * number


async def test_callers_that_can_do_without_redis_skip_it_but_for_one_in_each_second() -> None:
    availability, store = RedisAvailability(), Store()
    for failures in range(3):
        assert all(availability.admits(3) for _ in range(5)), failures
        assert availability.admits(1) is (failures == 0), failures
        with pytest.raises(StoreUnavailable):
            await availability.call_once(store)
    for _ in range(3):
        assert [availability.admits(failures) for failures in (1, 3)] == [False, False]
        await asyncio.sleep(PROBE_EVERY_S)
        assert [availability.admits(3) for _ in range(5)] == [True, False, False, False, False]
    store.back = True
    await availability.call_once(store)
    assert all(availability.admits(failures) for failures in (1, 3))


async def test_an_outage_is_one_pair_of_log_events_whoever_meets_it(captured_logs: CapturedLogs) -> None:
    availability, store = RedisAvailability(), Store()
    for call in (availability.call_once, availability.call_until, availability.call_once):
        with pytest.raises(StoreUnavailable):
            await call(store)
    with pytest.raises(StoreCorrupt), availability.observe_call():
        raise StoreCorrupt("an answer")
    events = [line for line in captured_logs.lines if line["event"].startswith("redis")]
    assert [line["event"] for line in events] == ["redis_unavailable", "redis_available_again"]
    assert events[1]["away_s"] >= MAX_WAIT_S
