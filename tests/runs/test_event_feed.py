"""The event feed gives every follower each event once, whenever it subscribes."""

from __future__ import annotations

import asyncio

from serve_app.runs.run import EventFeed
from serve_app.values import RunEvent, Token


def _event(number: int) -> RunEvent:
    return RunEvent(id=number, data=Token(text=str(number)))


async def _ids(feed: EventFeed, after: int = 0, for_s: float = 5) -> list[int]:
    return [event.id async for event in feed.events(after, for_s)]


async def test_followers_before_amid_and_after_the_events_get_them_all() -> None:
    feed = EventFeed()
    before = asyncio.create_task(_ids(feed))
    await asyncio.sleep(0)
    feed.add([_event(1), _event(2)])
    amid = asyncio.create_task(_ids(feed))
    await asyncio.sleep(0)
    feed.add([_event(3)])
    feed.close()
    assert await before == await amid == await _ids(feed) == [1, 2, 3]
    assert await _ids(feed, after=2) == [3]


async def test_events_that_come_while_a_follower_is_busy_are_not_lost() -> None:
    feed = EventFeed()
    feed.add([_event(1)])
    seen = []
    async for event in feed.events(0, 5):
        seen.append(event.id)
        if event.id < 20:
            feed.add([_event(event.id + 1)])
        else:
            feed.close()
    assert seen == list(range(1, 21))


async def test_a_follower_is_let_go_after_its_time() -> None:
    feed = EventFeed()
    feed.add([_event(1)])
    assert await _ids(feed, for_s=0.05) == [1]
