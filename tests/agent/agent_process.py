"""Test harness: an agent process with a scripted model, fake tools and a fake retriever."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from serve_app.agent.answer_cache import AnswerCache
from serve_app.agent.tool_dispatch import ToolDispatcher
from serve_app.agent.turn import Turn
from serve_app.cache import SharedAnswers
from serve_app.config import (
    AgentSettings,
    CacheSettings,
    KnowledgeSettings,
    MemorySettings,
    ObservabilitySettings,
    RunSettings,
    Settings,
)
from serve_app.errors import ModelUnavailable, StoreUnavailable, ToolUnavailable
from serve_app.llm.fallback import FallbackModel, ModelCandidate
from serve_app.llm.guarded import GuardedModel
from serve_app.memory import ConversationMemory
from serve_app.observability.metrics import InMemoryMetrics
from serve_app.observability.spans import NullTracer
from serve_app.resilience.circuit_breaker import BreakerPolicy, GuardedCalls
from serve_app.runs.event_writer import EventWriter
from serve_app.runs.execution import RunServices
from serve_app.runs.metrics import RunMetrics
from serve_app.runs.store import RunAppend, RunStore
from serve_app.runs.worker import RunWorker
from serve_app.stores.availability import MAX_WAIT_S, RedisAvailability
from serve_app.values import (
    Answer,
    ChatRequest,
    Context,
    DependencyCheck,
    EventData,
    Failed,
    Failure,
    Passage,
    RunEvent,
    SearchResult,
    ToolCall,
    ToolRequest,
    ToolResult,
    ToolSpec,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from redis.asyncio import Redis

    from serve_app.ports import Tracer
    from serve_app.runs.store import WriteResult
    from serve_app.values import Effect, IdempotencyKey

USAGE = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}
EFFECTS: dict[str, Effect] = {"save": "idempotent", "pay": "effect"}
NEVER = 10**9
"""An event that does not come."""
NAMES = ["echo", "broken", "flaky", "gone", "order_query", *EFFECTS]


def context(seconds: float = 10, session: str = "s", behind_s: float = 0) -> Context:
    """What a request has that is given so many seconds, and comes to a process whose clock is behind by so many."""
    deadline = time.time() + behind_s + seconds
    return Context(request_id="q", run_id=uuid4().hex, session_id=session, deadline=deadline, timeout_s=seconds)


def reply(text: str = "", *calls: tuple[str, dict[str, Any]]) -> AIMessage:
    made = [{"id": f"c{index}", "name": name, "args": args} for index, (name, args) in enumerate(calls)]
    return AIMessage(text, tool_calls=made)


def malformed(name: str, arguments: str = '{"text": ') -> AIMessage:
    call = {"id": "c0", "name": name, "args": arguments, "error": "?", "type": "invalid_tool_call"}
    return AIMessage("", invalid_tool_calls=[call])


def _written(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


async def never() -> None:
    await asyncio.Event().wait()


async def _at_once(_: str) -> None:
    return


class Broken(AIMessage):
    """A reply that breaks off after its text; one without text never begins."""


class Stuck(AIMessage):
    """A reply of which nothing comes after its text."""


class Scripted(BaseChatModel):
    """Gives the replies in turn and remembers what it was asked; after the last one it hangs."""

    replies: list[AIMessage]
    requests: list[list[BaseMessage]]
    tools_bound: list[int]
    faults: list[Any]
    hanging: asyncio.Event
    pause_s: float = 0
    tokens: int = USAGE["input_tokens"]
    stopped: bool = False

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=tools, **kwargs)

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    async def _next(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> AIMessage:
        self.requests.append(messages)
        self.tools_bound.append(len(kwargs.get("tools", [])))
        self.faults.append(kwargs.get("faults"))
        if len(self.requests) > len(self.replies):
            await self._hang()
        given = self.replies[len(self.requests) - 1]
        if isinstance(given, Broken) and not given.text:
            raise ModelUnavailable("It broke off")
        usage = {**USAGE, "input_tokens": self.tokens}
        return given.model_copy(update={"usage_metadata": usage, "id": given.id or f"m{len(self.requests)}"})

    async def _hang(self) -> None:
        self.hanging.set()
        try:
            await never()
        finally:
            self.stopped = True

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=await self._next(messages, kwargs))])

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        given = await self._next(messages, kwargs)
        for word in given.text.split(" ") if given.text else []:
            yield ChatGenerationChunk(message=AIMessageChunk(content=word + " "))
            await asyncio.sleep(self.pause_s)
        if isinstance(given, Broken):
            raise ModelUnavailable("It broke off")
        if isinstance(given, Stuck):
            await self._hang()
        chunks = [
            {"name": call["name"], "args": _written(call["args"]), "id": call["id"], "index": index}
            for index, call in enumerate([*given.tool_calls, *given.invalid_tool_calls])
        ]
        last = AIMessageChunk(content="", tool_call_chunks=chunks, usage_metadata=given.usage_metadata)  # type: ignore[arg-type]
        yield ChatGenerationChunk(message=last)


@dataclass
class Pace:
    """When calls end: those of a step begin together and end one by one, each after the one before it is logged.

    `steps` holds the calls of each step, by their text, in the order in which they end.
    """

    steps: tuple[str, ...]
    begun: set[str] = field(default_factory=set)
    logged: int = 0
    moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def end(self, text: str) -> None:
        """Return when the call may end."""
        step = next(each for each in self.steps if text in each)
        before = "".join(self.steps).index(text)
        async with self.moved:
            self.begun.add(text)
            self.moved.notify_all()
            await self.moved.wait_for(lambda: self.begun >= set(step) and self.logged >= before)

    async def log(self, calls: int) -> None:
        """Take note that so many calls more are logged."""
        async with self.moved:
            self.logged += calls
            self.moved.notify_all()


class FakeTools:
    """Echo their text. `broken` fails, `flaky` fails once, `gone` has no replica; implements `ports.Tools`."""

    def __init__(self, pace: Pace | None) -> None:
        self.down = False
        self.absent: set[str] = set()
        self.sensitive: set[str] = set()
        """The arguments that each tool marks."""
        self.granted: list[int | None] = []
        self.traceparents: list[str] = []
        self.failed = False
        self.hang = False
        self.begun = asyncio.Event()
        self.made: list[tuple[str, str]] = []
        """The text and the key of each call."""
        self.ending = pace.end if pace else _at_once
        """Waits until the call with this text may end."""

    async def specs(self) -> list[ToolSpec]:
        if self.down:
            raise ToolUnavailable("gone")
        return [
            ToolSpec(
                name=name,
                description=name,
                parameters={"properties": {each: {"writeOnly": True} for each in self.sensitive}},
                timeout_s=1,
                attempts=2,
                effect=EFFECTS.get(name, "pure"),
                ready=name not in self.absent,
            )
            for name in NAMES
        ]

    async def call(self, context: Context, request: ToolRequest, key: IdempotencyKey) -> ToolResult:
        name, arguments = request.name, request.arguments
        self.granted.append(context.retries)
        self.begun.set()
        self.traceparents.append(context.traceparent)
        if name not in NAMES:
            return ToolResult.not_run(f"there is no tool {name}")
        if name == "gone":
            raise ToolUnavailable("gone")
        if name == "broken" or (name == "flaky" and not self.failed):
            self.failed = True
            return ToolResult(content="error: broken failed", status="error", attempts=2, elapsed_ms=1)
        if name == "order_query":
            return ToolResult(content="lost at sea", status="ok", attempts=1, elapsed_ms=1)
        if "text" not in arguments:
            return ToolResult(content="error: wrong arguments", status="error", attempts=0, elapsed_ms=0)
        self.made.append((arguments["text"], key))
        if self.hang:
            await never()
        await self.ending(arguments["text"])
        await asyncio.sleep(arguments.get("sleep_s", 0))
        return ToolResult(content=arguments["text"] * arguments.get("times", 1), status="ok", attempts=1, elapsed_ms=1)

    async def checks(self) -> list[DependencyCheck]:
        return []


class FakeRetriever:
    """Finds two passages for anything but `nothing`: by words alone for `words`, fails for `fail`."""

    def __init__(self, pace: Pace | None) -> None:
        self.made: list[str] = []
        self.ending = pace.end if pace else _at_once

    async def search(self, context: Context, query: str) -> SearchResult:
        self.made.append(query)
        await self.ending(query)
        if query == "fail":
            raise StoreUnavailable("Milvus did not answer")
        if query == "nothing":
            return SearchResult()
        texts = [
            "Descale the kettle every three months: it needs citric acid and patience.",
            "The warranty lasts five years. The kettle needs citric acid now and then.",
        ]
        passages = [
            Passage(document_id="d", source=f"{query}{number}.md", title="T", text=text, score=0.5)
            for number, text in enumerate(texts, 1)
        ]
        return SearchResult(passages=passages, lexical_only=query == "words", standby=query == "standby")


class DyingStore(RunStore):
    """Redis as a process has it that dies when the event `last` is written: nothing that it asks comes back."""

    last: int = NEVER
    pace: Pace | None = None

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.dead = asyncio.Event()

    async def append(self, appends: Sequence[RunAppend]) -> list[WriteResult]:
        await self.alive()
        results = await super().append([self._until_death(each) for each in appends])
        entries = [entry for each in appends for entry in each.entries]
        if any(entry.event.id >= self.last for entry in entries):
            self.dead.set()
        if self.pace:
            await self.pace.log(sum(isinstance(each.event.data, ToolCall) for each in entries))
        await self.alive()
        return results

    async def reserve(self, context: Context, epoch: int, call: str) -> Any:
        await self.alive()
        return await super().reserve(context, epoch, call)

    async def alive(self) -> None:
        if self.dead.is_set():
            await never()

    def _until_death(self, append: RunAppend) -> RunAppend:
        entries = [each for each in append.entries if each.event.id <= self.last]
        whole = len(entries) == len(append.entries)
        return append if whole else replace(append, entries=entries, status="", exchange="")


def _scripted(replies: Sequence[AIMessage]) -> Scripted:
    return Scripted(replies=list(replies), requests=[], tools_bound=[], faults=[], hanging=asyncio.Event())


def _chain(*models: Scripted) -> FallbackModel:
    """The models as one; each is tried once."""
    limit = BreakerPolicy(failures=5, cool_down_s=10)
    links = [
        ModelCandidate(GuardedModel(inner=model, timeout_s=5), GuardedCalls(f"m{place}", limit))
        for place, model in enumerate(models)
    ]
    return FallbackModel(candidates=tuple(links), attempts=1)


class AgentProcess:
    """A process that runs turns with a scripted model, and what followers of its runs have seen.

    `fallback` holds the replies of a second model, or is a chain that stands in the place of the scripted one.
    """

    def __init__(
        self,
        redis: Redis,
        *replies: AIMessage,
        store: Callable[..., RunStore] = RunStore,
        pace: Pace | None = None,
        runs: RunSettings | None = None,
        max_wait_s: float = MAX_WAIT_S,
        **settings: Any,
    ) -> None:
        self.redis = redis
        self.runs = runs or RunSettings()
        self.model = _scripted(replies)
        model: BaseChatModel = self.model
        tracer: Tracer = settings.pop("tracer", NullTracer())
        redact: tuple[str, ...] = settings.pop("redact", ())
        fallback: Sequence[AIMessage] | FallbackModel | None = settings.pop("fallback", None)
        cache: CacheSettings | None = settings.pop("cache", None)
        max_runs: int = settings.pop("max_runs", 10)
        takes_tools: bool = settings.pop("takes_tools", True)
        if fallback is not None:
            model = fallback if isinstance(fallback, FallbackModel) else _chain(self.model, _scripted(fallback))
        self.tools, self.retriever = FakeTools(pace), FakeRetriever(pace)
        self.metrics = InMemoryMetrics()
        self.memory = ConversationMemory(redis, MemorySettings(), self.metrics)
        self.store = store(redis, self.runs, self.memory, uuid4().hex)
        dispatcher = ToolDispatcher(self.tools, self.retriever, KnowledgeSettings(), time.monotonic, self.metrics)  # type: ignore[arg-type]
        observability = ObservabilitySettings(redact=redact)
        whole = Settings(agent=AgentSettings(**settings), cache=cache or CacheSettings(), observability=observability)
        availability = RedisAvailability(max_wait_s)
        self.answers = (
            SharedAnswers(redis, self.store.owner, cache.ttl_s, availability) if cache and cache.ttl_s else None
        )
        self.cache = AnswerCache.create(whole, self.answers, dispatcher, self.metrics) if self.answers else None
        turn = Turn(
            model=model,
            model_name="scripted",
            tools=dispatcher,
            memory=self.memory,
            settings=whole.agent,
            cache=self.cache,
            takes_tools=takes_tools,
        )
        writer = EventWriter(self.store, availability, RunMetrics(self.metrics, frozenset(NAMES)))
        self.worker = RunWorker(RunServices(redis, self.store, writer, self.runs, turn.run, tracer), max_runs)
        self.emitted: list[EventData] = []

    async def follow(self, turn_context: Context, request: ChatRequest, after: int = 0) -> list[RunEvent]:
        """The run's events, until it ends here."""
        return [event async for event in self.worker.follow(turn_context, request, after)]

    async def ask(self, text: str = "hello", seconds: float = 10, **given: Any) -> Answer:
        last = await self._end(text, seconds, **given)
        assert isinstance(last, Answer), last
        return last

    async def fail(self, text: str = "hello", seconds: float = 10, **given: Any) -> Failure:
        last = await self._end(text, seconds, **given)
        assert isinstance(last, Failed), last
        return last.error

    async def _end(self, text: str, seconds: float, **given: Any) -> EventData:
        events = await self.follow(context(seconds), ChatRequest(user_input=text, session_id="s", **given))
        self.emitted = [event.data for event in events]
        return self.emitted[-1]

    def tool_messages(self, step: int) -> list[ToolMessage]:
        return [message for message in self.model.requests[step] if isinstance(message, ToolMessage)]

    def kinds(self, step: int) -> list[str]:
        """What sorts of messages the model was asked with."""
        return [message.type for message in self.model.requests[step]]

    async def die(self) -> None:
        """Stop like a process that gets SIGKILL: nothing is released, nobody is notified."""
        tasks = {*self.worker._background, *self.worker._tasks, *(self.answers._background if self.answers else ())}
        for execution in self.worker._executions.values():
            execution.feed.close()
            tasks |= {execution.run.work} if execution.run and execution.run.work else set()
            execution.services = None  # type: ignore[assignment]  # whatever it still tries fails
        while tasks:
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=0.5)  # Python 3.11 may lose a cancellation in redis-py


def dying_store(last: int, pace: Pace | None = None) -> type[DyingStore]:
    """The Redis of a process that dies when the event `last` is written."""
    return type("Dying", (DyingStore,), {"last": last, "pace": pace})


async def killed(agent: AgentProcess, turn_context: Context, request: ChatRequest, after: int = 0) -> bool:
    """Run the turn until its process dies; False where the turn ends before."""
    following = asyncio.create_task(agent.follow(turn_context, request, after))
    dying = asyncio.create_task(agent.store.dead.wait())  # type: ignore[attr-defined]
    await asyncio.wait({following, dying}, return_when=asyncio.FIRST_COMPLETED, timeout=5)
    assert following.done() or dying.done()
    dying.cancel()
    await agent.die()
    await following
    return agent.store.dead.is_set()  # type: ignore[attr-defined]
