"""A run that the agents refuse leaves nothing that they run later."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from http_service import Service, running

from serve_app.config import MemorySettings, RunSettings
from serve_app.errors import AgentUnavailable, Overloaded
from serve_app.memory import ConversationMemory
from serve_app.runs.event_writer import EventWriter
from serve_app.runs.execution import RunServices
from serve_app.runs.failover import FailoverAgent
from serve_app.runs.store import RunStore
from serve_app.runs.worker import RunWorker
from serve_app.stores.redis_keys import UNFINISHED_RUNS
from serve_app.values import Answer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from redis.asyncio import Redis

    from serve_app.runs.run import Run
    from serve_app.values import ChatRequest, Context, RunEvent

CHAT = {"user_input": "hello", "session_id": "s1"}
KEY, ASYNC = {"Idempotency-Key": "k-1"}, {"Prefer": "respond-async"}
FULL = Overloaded("Too many turns are running", retry_after_s=7)


class Replicas:
    """One replica that has room for runs, and a router that fails with `failing`, or asks it."""

    def __init__(self, redis: Redis) -> None:
        self.ran: list[str] = []
        self.failing: Exception | None = None
        self.adopts = False
        """Whether the replica has adopted the run when the router fails."""
        registry = RunStore(redis, RunSettings(), ConversationMemory(redis, MemorySettings()), uuid4().hex)
        self.host = RunWorker(
            RunServices(redis, registry, EventWriter(registry), RunSettings(), self._run), max_runs=10
        )

    async def turn(self, context: Context, request: ChatRequest, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        await self._route(context, request)
        async for event in self.host.follow(context, request, after):
            yield event

    async def start(self, context: Context, request: ChatRequest) -> None:
        await self._route(context, request)
        self.host.start(context, request)

    async def _route(self, context: Context, request: ChatRequest) -> None:
        if self.adopts:
            self.host.start(context, request)
            await asyncio.sleep(0.1)
        if self.failing:
            raise self.failing

    async def _run(self, run: Run) -> Answer:
        self.ran.append(run.context.run_id)
        await asyncio.sleep(0.3)
        return Answer(result="Hi.", session_id=run.context.session_id, run_id=run.context.run_id, model="m")


Serving = tuple[Service, Replicas]


@pytest.fixture
async def serving(redis: Redis, redis_url: str) -> AsyncIterator[Serving]:
    replicas, service = Replicas(redis), Service(redis_url)
    service.agent = FailoverAgent(replicas, service.runs)  # type: ignore[arg-type]
    try:
        async with running(service):
            yield service, replicas
    finally:
        await replicas.host.close(0)


@pytest.mark.parametrize("stream", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("headers", [KEY, ASYNC, {**KEY, **ASYNC}], ids=["key", "background", "both"])
async def test_what_is_refused_is_not_run_later_and_may_be_asked_for_again(
    serving: Serving, redis: Redis, headers: dict[str, str], *, stream: bool
) -> None:
    service, replicas = serving
    replicas.failing = FULL
    for _ in range(3):
        refused = await service.client.post("/agent/chat", json={**CHAT, "stream": stream}, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "7"
    assert await redis.zcard(UNFINISHED_RUNS) == 0
    replicas.failing = None
    again = await service.client.post("/agent/chat", json={**CHAT, "stream": stream}, headers=headers)
    assert again.status_code == (202 if "Prefer" in headers else 200)
    await asyncio.sleep(3)
    assert len(replicas.ran) == 1


async def test_an_openai_turn_that_is_refused_may_be_asked_for_again(serving: Serving) -> None:
    body = {"model": "serve_app", "messages": [{"role": "user", "content": "hello"}]}
    service, replicas = serving
    replicas.failing = FULL
    refused = await service.client.post("/v1/chat/completions", json=body, headers=KEY)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "7")
    replicas.failing = None
    assert (await service.client.post("/v1/chat/completions", json=body, headers=KEY)).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_keyed_run_that_an_agent_has_adopted_meanwhile_is_followed(serving: Serving, *, stream: bool) -> None:
    service, replicas = serving
    replicas.failing, replicas.adopts = FULL, True
    response = await service.client.post("/agent/chat", json={**CHAT, "stream": stream}, headers=KEY)
    assert response.status_code == 200
    assert '"result":"Hi."' in response.text
    assert len(replicas.ran) == 1


async def test_a_background_run_that_an_agent_has_adopted_meanwhile_goes_on(serving: Serving) -> None:
    service, replicas = serving
    replicas.failing, replicas.adopts = FULL, True
    response = await service.client.post("/agent/chat", json=CHAT, headers=ASYNC)
    assert (response.status_code, response.json()["status"]) == (202, "running")
    await asyncio.sleep(0.5)
    run = (await service.client.get(response.headers["location"])).json()
    assert (run["status"], run["answer"]["result"]) == ("success", "Hi.")


async def test_a_run_whose_replica_dies_when_it_begins_is_adopted(serving: Serving) -> None:
    service, replicas = serving
    replicas.failing = AgentUnavailable("The replica is gone")
    response = await service.client.post("/agent/chat", json=CHAT, headers=ASYNC)
    assert (response.status_code, response.json()["status"]) == (202, "queued")
    async with asyncio.timeout(5):
        while not replicas.ran:  # noqa: ASYNC110 - another process is waited for
            await asyncio.sleep(0.05)
    assert replicas.ran == [response.json()["run_id"]]
