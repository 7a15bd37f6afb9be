"""Ray's failures arrive as our errors. Against real replicas of the running cluster."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from ray import serve

from serve_app.deployments.remote_calls import RemoteAgent, RemoteRetriever
from serve_app.errors import (
    AgentUnavailable,
    DeadlineExceeded,
    Internal,
    NotFound,
    Overloaded,
    RetrieverUnavailable,
)
from serve_app.values import Answer, ChatRequest, Context, RunEvent, RunStarted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


# In throughput mode a handle belongs to the event loop that made it.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@serve.deployment(max_ongoing_requests=1, max_queued_requests=1, ray_actor_options={"num_cpus": 0})
class Odd:
    """Does what the query says."""

    def __init__(self) -> None:
        self.cancelled = 0

    async def search(self, context: Context, query: str) -> Any:
        if query == "die":
            os._exit(1)
        if query == "missing":
            raise NotFound("There is none")
        if query == "fault":
            raise ValueError("secret")
        if query == "how many cancelled":
            return self.cancelled
        try:
            await asyncio.sleep(float(query))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return query

    async def turn(self, context: Context, request: ChatRequest, after: int) -> AsyncIterator[RunEvent]:
        yield RunEvent(id=1, data=RunStarted(run_id=context.run_id))
        await asyncio.sleep(0.5)
        os._exit(1)

    async def last_event(self, context: Context, request: ChatRequest, after: int) -> RunEvent | None:
        if request.user_input == "die":
            os._exit(1)
        if request.user_input == "goes on elsewhere":
            return None
        answer = Answer(result=request.user_input, session_id="s", run_id=context.run_id, model="m")
        return RunEvent(id=7, data=answer)


@pytest.fixture(scope="module")
def handle(service: Any) -> Iterator[Any]:
    yield serve.run(Odd.bind(), name="odd", route_prefix=None)
    serve.delete("odd")


def _context(seconds: float = 20) -> Context:
    return Context(request_id="r", run_id="r", session_id="s", deadline=time.time() + seconds)


async def _settled(remote: RemoteRetriever, query: str) -> Any:
    """The answer once the replica is back."""
    for _ in range(200):
        try:
            return await remote.search(_context(), query)
        except (RetrieverUnavailable, Overloaded):
            await asyncio.sleep(0.1)
    raise AssertionError("the replica did not come back")


async def test_our_own_error_crosses_without_rays_wrapper(handle: Any) -> None:
    with pytest.raises(NotFound) as caught:
        await RemoteRetriever(handle).search(_context(), "missing")
    assert type(caught.value) is NotFound
    assert str(caught.value) == "There is none"


async def test_a_fault_of_the_other_side_is_internal(handle: Any) -> None:
    with pytest.raises(Internal):
        await RemoteRetriever(handle).search(_context(), "fault")


async def test_a_call_ends_at_the_deadline_and_is_cancelled_on_the_other_side(handle: Any) -> None:
    remote = RemoteRetriever(handle)
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await remote.search(_context(0.2), "30")
    assert time.monotonic() - begun < 15
    assert await _settled(remote, "how many cancelled") == 1


async def test_too_many_waiting_callers_are_shed(handle: Any) -> None:
    remote = RemoteRetriever(handle)
    results = await asyncio.gather(*(remote.search(_context(), "1.5") for _ in range(8)), return_exceptions=True)
    shed = [each for each in results if isinstance(each, Overloaded)]
    assert 0 < len(shed) < 8, results
    assert [each for each in results if each not in shed] == ["1.5"] * (8 - len(shed))


@pytest.mark.long
async def test_the_death_of_a_replica_is_told_as_its_port_says(handle: Any) -> None:
    remote = RemoteRetriever(handle)
    begun = time.monotonic()
    with pytest.raises(RetrieverUnavailable):
        await remote.search(_context(60), "die")
    assert time.monotonic() - begun < 30, "long before the deadline"
    assert await _settled(remote, "0") == "0"


async def test_a_stream_that_breaks_says_so_after_what_it_gave(handle: Any) -> None:
    events = RemoteAgent(handle).turn(_context(), ChatRequest(user_input="x", session_id="s", stream=True))
    assert (await anext(events)).id == 1
    with pytest.raises(AgentUnavailable):
        await anext(events)


async def _whole_turn(handle: Any, user_input: str) -> list[RunEvent]:
    request = ChatRequest(user_input=user_input, session_id="s")
    return [event async for event in RemoteAgent(handle).turn(_context(), request)]


async def test_an_answer_that_is_not_streamed_is_one_reply(handle: Any) -> None:
    assert await _settled(RemoteRetriever(handle), "0") == "0"
    [event] = await _whole_turn(handle, "hello")
    assert (event.id, event.data) == (7, Answer(result="hello", session_id="s", run_id="r", model="m"))
    assert await _whole_turn(handle, "goes on elsewhere") == []
    with pytest.raises(AgentUnavailable):
        await _whole_turn(handle, "die")
