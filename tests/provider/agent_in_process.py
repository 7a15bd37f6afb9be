"""Turns in this process, with a model over HTTP and tools that are functions: all of an agent but Ray."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from reply_kinds import NEXT
from reply_tools import deeds_file
from turn_checks import PlayedTurn, TurnResponse

from serve_app.agent.tool_dispatch import ToolDispatcher
from serve_app.agent.turn import Turn
from serve_app.config import (
    AgentSettings,
    KnowledgeSettings,
    MemorySettings,
    ModelSettings,
    RedisSettings,
    RunSettings,
    ToolSettings,
)
from serve_app.llm.models import build_model
from serve_app.memory import ConversationMemory
from serve_app.observability.metrics import InMemoryMetrics
from serve_app.runs.event_writer import EventWriter
from serve_app.runs.execution import RunServices
from serve_app.runs.metrics import RunMetrics
from serve_app.runs.store import RunStore
from serve_app.runs.worker import RunWorker
from serve_app.stores.availability import MAX_WAIT_S, RedisAvailability
from serve_app.stores.redis import create_redis_client
from serve_app.tools.registry import ToolRegistry
from serve_app.values import Answer, ChatRequest, Context, Failed, SearchResult, Token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from redis.asyncio import Redis
    from reply_kinds import ReplyKind
    from strict_provider import StrictProvider

TURN_S = 20.0
TOOLS: dict[str, dict[str, Any]] = {
    "look_up": {"function": "reply_tools:look_up"},
    "pack": {"function": "reply_tools:pack"},
    "stumble": {"function": "reply_tools:stumble"},
    "book": {"function": "reply_tools:book", "effect": "effect"},
    "refund": {"function": "reply_tools:refund", "effect": "effect"},
}
numbers = itertools.count()


class NoDocuments:
    """A retriever that knows nothing; implements `ports.Retriever`."""

    async def search(self, context: Context, query: str) -> SearchResult:
        return SearchResult()


@dataclass
class InProcessAgent:
    """The parts of an Agent replica, without Ray."""

    host: RunWorker
    provider: StrictProvider
    redis: Redis

    async def ask(self, text: str, session: str, *, stream: bool) -> TurnResponse:
        """Runs one turn; returns all that its client received."""
        turn_context = Context(
            request_id=uuid4().hex,
            run_id=uuid4().hex,
            session_id=session,
            deadline=time.time() + TURN_S,
            timeout_s=TURN_S,
        )
        request = ChatRequest(user_input=text, session_id=session, stream=stream)
        begun = time.monotonic()
        events = [event.data async for event in self.host.follow(turn_context, request, 0)]
        took_s = time.monotonic() - begun
        tokens = [each for each in events if isinstance(each, Token)]
        streamed = ""
        for each in tokens:
            streamed = each.text if each.restart else streamed + each.text
        last = events[-1]
        assert isinstance(last, Answer | Failed), last
        body = last.model_dump(mode="json")
        shown = streamed + "".join(each.model_dump_json() for each in events if not isinstance(each, Token))
        return TurnResponse(200 if isinstance(last, Answer) else 503, body, took_s, shown, streamed or None)

    async def play(self, kind: ReplyKind, *, stream: bool) -> PlayedTurn:
        """Plays a turn with this kind of reply, turns of others beside it, and the next message."""
        turn = f"p{next(numbers)}"
        user = f"reply as {kind.name} in {turn}"
        others = [self.ask(NEXT, f"{turn}-{each}", stream=False) for each in range(2 * kind.harms)]
        response, *beside = await asyncio.gather(self.ask(user, turn, stream=stream), *others)
        after = await self.ask(NEXT, turn, stream=not stream)
        refused = [str(found) for sent, found in self.provider.refused if sent == user]
        tries = self.provider.tries(user)
        return PlayedTurn(kind, turn, stream, response, after, read_deeds(turn), tries, tuple(refused), beside)


def read_deeds(turn: str) -> tuple[str, ...]:
    """Returns what the tools did for a turn, a line each."""
    lines = deeds_file().read_text().splitlines() if deeds_file().exists() else []
    return tuple(line.removeprefix(f"{turn} ") for line in lines if line.startswith(f"{turn} "))


@asynccontextmanager
async def open_agent(redis_url: str, provider: StrictProvider, **model: Any) -> AsyncIterator[InProcessAgent]:
    """Opens an agent whose model is the provider's, for the block."""
    redis = create_redis_client(RedisSettings(), redis_url)
    await redis.flushall()
    metrics = InMemoryMetrics()
    odd: dict[str, Any] = {"name": "openai:odd", "base_url": provider.url, "timeout_s": 5, "breaker_failures": 1000}
    chain = build_model(ModelSettings(**odd | model), metrics)
    tools = ToolRegistry({name: ToolSettings(**each) for name, each in TOOLS.items()}, [])
    tools.start()
    belt = ToolDispatcher(tools, NoDocuments(), KnowledgeSettings(), time.monotonic, metrics)
    memory = ConversationMemory(redis, MemorySettings(), metrics)
    registry = RunStore(redis, RunSettings(), memory, uuid4().hex)
    turn = Turn(model=chain, model_name="odd", tools=belt, memory=memory, settings=AgentSettings())
    writer = EventWriter(registry, RedisAvailability(MAX_WAIT_S), RunMetrics(metrics, frozenset(TOOLS)))
    host = RunWorker(RunServices(redis, registry, writer, RunSettings(), turn.run), 50)
    try:
        yield InProcessAgent(host, provider, redis)
    finally:
        await host.close(0)
        await tools.close()
        await redis.aclose()


@contextmanager
def use_data_dir(folder: Path) -> Iterator[None]:
    """Sets `SERVE_APP_DATA_DIR` to the folder, for the block."""
    before = os.environ.get("SERVE_APP_DATA_DIR")
    os.environ["SERVE_APP_DATA_DIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SERVE_APP_DATA_DIR"]
        else:
            os.environ["SERVE_APP_DATA_DIR"] = before
