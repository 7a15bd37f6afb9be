"""Do a run's steps arrive whole, in order, and tokens in batches?"""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from serve_app.runs.feed import BATCH_S, Feed
from serve_app.values import Answer, Event, EventData, RunStarted, Token

ANSWER = Answer(result="x", session_id="s", run_id="r", model="m")
steps = st.one_of(
    st.builds(Token, text=st.text(min_size=1), restart=st.booleans()),
    st.builds(RunStarted, run_id=st.just("r")),
)


async def _all(feed: Feed) -> list[Event]:
    return [event async for event in feed.events()]


def _shown(data: list[EventData]) -> str:
    text = ""
    for step in data:
        if isinstance(step, Token):
            text = step.text if step.restart else text + step.text
    return text


@given(st.lists(steps))
def test_nothing_is_lost_or_reordered_whatever_is_merged(given_steps: list[EventData]) -> None:
    feed = Feed()
    for step in [*given_steps, ANSWER]:
        feed.emit(step)
    events = asyncio.run(_all(feed))
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert events[-1].data == ANSWER
    assert _shown([event.data for event in events]) == _shown(given_steps)
    others = [event.data for event in events[:-1] if not isinstance(event.data, Token)]
    assert others == [step for step in given_steps if not isinstance(step, Token)]


async def test_the_first_token_goes_out_before_the_second_is_there() -> None:
    feed = Feed()
    feed.emit(Token(text="first"))
    events = feed.events()
    assert (await asyncio.wait_for(anext(events), 0.5)).data == Token(text="first")
    await events.aclose()


async def test_tokens_that_come_close_together_are_one_event() -> None:
    feed = Feed()
    feed.emit(Token(text="0"))
    following = asyncio.create_task(_all(feed))
    for number in range(1, 50):
        await asyncio.sleep(BATCH_S / 25)
        feed.emit(Token(text=f" {number}"))
    feed.emit(ANSWER)
    events = await following
    assert len(events) < 25
    assert _shown([event.data for event in events]) == " ".join(map(str, range(50)))
