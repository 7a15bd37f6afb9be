"""The agent, the retriever and the tools of the tests of the API: they do what a test says, without Ray."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serve_app.config import RunSettings
from serve_app.errors import NotFound, StoreUnavailable
from serve_app.runs.event_log import RunEventLog
from serve_app.stores.redis_keys import RunKeys
from serve_app.values import (
    Answer,
    Cancelled,
    Claim,
    Context,
    DependencyCheck,
    Document,
    DocumentList,
    DocumentSummary,
    EventData,
    Exchange,
    Failed,
    IdempotencyKey,
    IndexingResult,
    Message,
    RunEvent,
    RunRecord,
    RunStarted,
    SearchResult,
    Session,
    SessionSize,
    SessionSizes,
    Token,
    ToolRequest,
    ToolResult,
    ToolSpec,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from redis.asyncio import Redis

    from serve_app.errors import Overloaded
    from serve_app.values import ChatRequest

POLL_S = 0.02
"""How often a run that pauses looks whether it was cancelled."""
WRITE = """
-- KEYS run stream
-- ARGV id event data status
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'queued' and status ~= 'running' then return 0 end
redis.call('XADD', KEYS[2], ARGV[1] .. '-0', 'event', ARGV[2], 'data', ARGV[3])
redis.call('HSET', KEYS[1], 'status', ARGV[4], 'last', ARGV[1])
return 1
"""
"""Writes an event of a run that has not ended."""


def answer(result: str = "Hello", session_id: str = "s1") -> Answer:
    return Answer(result=result, session_id=session_id, run_id="r1", model="offline")


class ObservedRuns(RunEventLog):
    """The event log of runs, with the contexts of its calls; while it is `failing`, they raise that."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis, RunSettings())
        self.failing: Exception | None = None
        self.contexts: list[Context] = []

    def _observe(self, context: Context) -> None:
        self.contexts.append(context)
        if self.failing:
            raise self.failing

    async def claim(self, context: Context, request: ChatRequest, key: str | None) -> Claim:
        self._observe(context)
        return await super().claim(context, request, key)

    async def withdraw(self, context: Context, key: str | None, why: Overloaded) -> bool:
        self._observe(context)
        return await super().withdraw(context, key, why)

    async def run(self, context: Context, run_id: str) -> RunRecord:
        self._observe(context)
        return await super().run(context, run_id)

    async def events(self, context: Context, run_id: str, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        self._observe(context)
        async with aclosing(super().events(context, run_id, after)) as events:
            async for event in events:
                yield event

    async def cancel(self, context: Context, run_id: str) -> RunRecord:
        self._observe(context)
        return await super().cancel(context, run_id)


@dataclass
class PlayedRun:
    """One run: what happened so far, with the failures of the calls that follow it at that point."""

    keys: RunKeys
    redis: Any
    steps: list[RunEvent | Exception] = field(default_factory=list)
    over: bool = False
    grown: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def events(self) -> list[RunEvent]:
        return [step for step in self.steps if isinstance(step, RunEvent)]

    async def add(self, step: EventData | Exception) -> None:
        """The step is in Redis before it is seen; an event after the last one is not written."""
        if self.over:
            return
        if isinstance(step, Exception):
            await self._grow(step)
            return
        event = RunEvent(id=len(self.events) + 1, data=step)
        if await self._write(event):
            await self._grow(event)
        else:
            await self.see_end()

    async def end(self) -> None:
        async with self.grown:
            self.over = True
            self.grown.notify_all()

    async def see_end(self) -> None:
        """End here too, where the run was cancelled in Redis."""
        if self.redis and not self.over and await self.redis.hget(self.keys.run, "status") == "cancelled":
            await self._grow(RunEvent(id=len(self.events) + 1, data=Cancelled(run_id=self.keys.run_id)))

    async def follow(self) -> AsyncGenerator[RunEvent | Exception, None]:
        read = 0
        while True:
            async with self.grown:
                while read == len(self.steps) and not self.over:
                    await self.grown.wait()
            if read == len(self.steps):
                return
            read += 1
            yield self.steps[read - 1]

    async def _grow(self, step: RunEvent | Exception) -> None:
        async with self.grown:
            self.steps.append(step)
            self.over = isinstance(step, RunEvent) and step.last
            self.grown.notify_all()

    async def _write(self, event: RunEvent) -> bool:
        """Whether the run takes the event; False where it has ended, by another hand."""
        if self.redis is None:
            return True
        data = event.data
        ended = {Failed: "failed", Cancelled: "cancelled"}.get(type(data), "running")
        status = data.status if isinstance(data, Answer) else ended
        stream = self.keys.tokens if isinstance(data, Token) else self.keys.steps
        written = (event.id, event.name, data.model_dump_json(), status)
        return bool(await self.redis.eval(WRITE, 2, self.keys.run, stream, *written))


class ScriptedAgent:
    """Plays its script: values become events, numbers are pauses in seconds, exceptions fail the calls that follow.

    An empty run id in a script stands for the run's own. Without a script it repeats its input; a session is
    there when it was spoken in.
    """

    def __init__(self) -> None:
        self.logs: dict[str, PlayedRun] = {}
        self.script: list[EventData | Exception | float] | None = None
        self.received: list[tuple[Context, ChatRequest]] = []
        self.calls = 0
        self.open = 0
        self.exchanges: dict[str, list[Exchange]] = {}
        self.failing: Exception | None = None
        self.starting: Exception | float = 0.0
        self.check = DependencyCheck(name="model", ok=True)
        self.check_pause_s = 0.0
        self.listed: SessionSizes | None = None
        self.redis: Redis | None = None
        self._closed = False
        self._playing: set[asyncio.Task[None]] = set()

    async def turn(self, context: Context, request: ChatRequest, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        self.calls += 1
        self.open += 1
        try:
            run = await self._begin(context, request)
            async with aclosing(run.follow()) as steps:
                async for step in steps:
                    if isinstance(step, Exception):
                        raise step
                    if step.id > after and (request.stream or step.last):
                        yield step
        finally:
            await asyncio.sleep(0)  # as a remote call that is cancelled
            self.open -= 1

    async def start(self, context: Context, request: ChatRequest) -> None:
        self.calls += 1
        if isinstance(self.starting, Exception):
            raise self.starting
        await asyncio.sleep(self.starting)
        await self._begin(context, request)

    async def _begin(self, context: Context, request: ChatRequest) -> PlayedRun:
        if known := self.logs.get(context.run_id):
            return known
        run = self.logs[context.run_id] = PlayedRun(RunKeys(context.tenant, context.run_id), self.redis)
        self.received.append((context, request))
        if self.redis:
            with suppress(StoreUnavailable):
                await RunEventLog(self.redis, RunSettings()).claim(context, request, None)
        playing = asyncio.create_task(self._play(run, context, request))
        self._playing.add(playing)
        playing.add_done_callback(self._playing.discard)
        return run

    async def _play(self, run: PlayedRun, context: Context, request: ChatRequest) -> None:
        for step in self._steps(context, request):
            if self._closed:
                return
            if isinstance(step, float):
                await self._pause(run, step)
            elif getattr(step, "run_id", None) == "":
                await run.add(step.model_copy(update={"run_id": context.run_id}))
            else:
                await run.add(step)
        await run.end()

    async def _pause(self, run: PlayedRun, pause_s: float) -> None:
        until = time.monotonic() + pause_s
        while not (run.over or self._closed) and (left_s := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left_s, POLL_S))
            await run.see_end()

    async def close(self) -> None:
        """Stop what still plays; the client of Redis may lose a cancellation."""
        self._closed = True
        for playing in self._playing:
            playing.cancel()
        await asyncio.gather(*self._playing, return_exceptions=True)

    def _steps(self, context: Context, request: ChatRequest) -> list[EventData | Exception | float]:
        if self.script is not None:
            return self.script
        message = Message(role="user", content=request.user_input)
        exchange = Exchange(run_id=context.run_id, at=time.time(), messages=[message])
        self.exchanges.setdefault(request.session_id, []).append(exchange)
        return [RunStarted(run_id=""), answer(request.user_input, request.session_id)]

    async def sizes(self, context: Context, limit: int) -> SessionSizes:
        if self.failing:
            raise self.failing
        if self.listed:
            return self.listed
        sizes = [
            SessionSize(session_id=name, turns=len(exchanges), bytes=1000 * len(exchanges), repairs=0, expires_in_s=60)
            for name, exchanges in self.exchanges.items()
        ]
        largest = sorted(sizes, key=lambda size: -size.bytes)
        return SessionSizes(sessions=largest[:limit], counted=len(sizes), complete=True)

    async def session(self, context: Context, limit: int) -> Session:
        exchanges = self._found(context)
        session_id = context.session_id
        return Session(session_id=session_id, turns=len(exchanges), expires_in_s=60, exchanges=exchanges[-limit:])

    async def forget(self, context: Context) -> None:
        self._found(context)
        del self.exchanges[context.session_id]

    async def checks(self) -> list[DependencyCheck]:
        await asyncio.sleep(self.check_pause_s)
        if self.failing:
            raise self.failing
        return [self.check]

    def _found(self, context: Context) -> list[Exchange]:
        if self.failing:
            raise self.failing
        if context.session_id not in self.exchanges:
            raise NotFound(f"There is no session {context.session_id}")
        return self.exchanges[context.session_id]


class DictRetriever:
    """Keeps documents in a dictionary; one whose text is `broken` fails."""

    def __init__(self) -> None:
        self.contexts: list[Context] = []
        self.summaries: dict[str, DocumentSummary] = {}
        self.failing: Exception | None = None

    async def search(self, context: Context, query: str) -> SearchResult:
        raise NotImplementedError

    async def add(self, context: Context, documents: list[Document]) -> list[IndexingResult]:
        self.contexts.append(context)
        if self.failing:
            raise self.failing
        return [self._added(document) for document in documents]

    def _added(self, document: Document) -> IndexingResult:
        key = f"d{len(self.summaries) + 1}"
        if document.text == "broken":
            return IndexingResult(id=key, source=document.source, status="failed", reason="It is broken")
        self.summaries[key] = DocumentSummary(
            id=key, source=document.source, title=document.title, passages=1, characters=1, indexed_at=1.0
        )
        return IndexingResult(id=key, source=document.source, status="added", passages=1)

    async def documents(self, context: Context, offset: int, limit: int) -> DocumentList:
        self.contexts.append(context)
        page = list(self.summaries.values())[offset : offset + limit]
        return DocumentList(documents=page, total=len(self.summaries), passages=len(self.summaries))

    async def remove(self, context: Context, document_id: str) -> DocumentSummary:
        if document_id not in self.summaries:
            raise NotFound(f"There is no document {document_id}")
        return self.summaries.pop(document_id)

    async def checks(self) -> list[DependencyCheck]:
        if self.failing:
            raise self.failing
        return [DependencyCheck(name="milvus", ok=True)]


class NoTools:
    """Loads nothing, and nothing fails."""

    async def specs(self) -> list[ToolSpec]:
        return []

    async def call(self, context: Context, request: ToolRequest, key: IdempotencyKey) -> ToolResult:
        raise NotImplementedError

    async def checks(self) -> list[DependencyCheck]:
        return [DependencyCheck(name="tool:order_query", ok=True)]


class FakeNodes:
    """Has fixed pages, and counts the calls."""

    def __init__(self) -> None:
        self.page_texts: dict[str, str | None] = {"10.0.0.1": '# TYPE ray_up gauge\nray_up{WorkerId="a"} 1.0\n'}
        self.calls = 0

    async def pages(self) -> dict[str, str | None]:
        self.calls += 1
        return self.page_texts
