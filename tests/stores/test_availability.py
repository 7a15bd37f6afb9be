"""Is a Redis that does not answer waited for once, and asked little of until it is back?"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from serve_app.errors import StoreCorrupt, StoreUnavailable
from serve_app.stores.availability import AWAY_TIMEOUT_S, MAX_WAIT_S, RedisAvailability

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


@dataclass
class Store:
    """Fails after `takes_s`, until it is back."""

    takes_s: float = 0
    back: bool = False
    asked: int = 0

    async def __call__(self) -> str:
        self.asked += 1
        if not self.back:
            await asyncio.sleep(self.takes_s)
            raise StoreUnavailable("away")
        return "well"


async def _failed(patience: RedisAvailability, store: Store) -> float:
    begun = asyncio.get_running_loop().time()
    with pytest.raises(StoreUnavailable):
        await patience.call_until(store)
    return asyncio.get_running_loop().time() - begun


@pytest.mark.parametrize("takes_s", [0, 2, 60])
async def test_it_is_waited_for_once_however_it_fails(takes_s: float) -> None:
    patience, store = RedisAvailability(), Store(takes_s)
    assert await _failed(patience, store) == pytest.approx(MAX_WAIT_S, abs=0.11)
    assert patience.is_away
    asked = store.asked
    assert await _failed(patience, store) == pytest.approx(min(takes_s, AWAY_TIMEOUT_S), abs=0.01)
    assert store.asked == asked + 1


async def test_whoever_finds_it_back_says_so_for_all() -> None:
    patience, store = RedisAvailability(), Store()
    await _failed(patience, store)
    store.back = True
    assert await patience.call_once(store) == "well"
    assert not patience.is_away
    store.back = False
    assert await _failed(patience, store) == pytest.approx(MAX_WAIT_S, abs=0.11)


async def test_a_call_may_have_less_patience_than_others() -> None:
    patience, store = RedisAvailability(), Store()
    with pytest.raises(StoreUnavailable):
        await patience.call_until(store, 0)
    assert (store.asked, patience.is_away) == (1, False)


async def test_one_corrupt_key_does_not_say_that_redis_is_away_and_is_not_asked_for_again() -> None:
    patience, asked = RedisAvailability(MAX_WAIT_S), 0

    async def corrupt() -> None:
        nonlocal asked
        asked += 1
        raise StoreCorrupt("no hash")

    for number in range(1, 4):
        for attempt in (patience.call_once, patience.call_until):
            with pytest.raises(StoreCorrupt):
                await attempt(corrupt)
        await asyncio.sleep(MAX_WAIT_S + 1)
        assert not patience.is_away
        assert asked == 2 * number
