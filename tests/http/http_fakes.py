"""What do the ports say when a test decides it?"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serve_app.errors import KeyReused, NotFound, Overloaded, RunUnfinished
from serve_app.values import (
    Answer,
    ApiKey,
    ApiKeyRequest,
    Caller,
    Cancelled,
    ChatRequest,
    Claim,
    Context,
    DependencyCheck,
    Document,
    DocumentList,
    DocumentSummary,
    EventData,
    Exchange,
    Failed,
    Failure,
    Fault,
    Feedback,
    FeedbackList,
    FeedbackRequest,
    IdempotencyKey,
    IndexingResult,
    Message,
    NewApiKey,
    Rating,
    RunEvent,
    RunLogLine,
    RunLogLines,
    RunRecord,
    RunStarted,
    SearchResult,
    Session,
    SessionSize,
    SessionSizes,
    TenantEntry,
    TenantLimits,
    ToolRequest,
    ToolResult,
    ToolSpec,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping


def answer(result: str = "Hello", session_id: str = "s1") -> Answer:
    return Answer(result=result, session_id=session_id, run_id="r1", model="offline")


@dataclass
class Log:
    """One run: what happened so far, with the failures of the calls that followed it at that point."""

    session_id: str
    tenant: str
    steps: list[RunEvent | Exception] = field(default_factory=list)
    over: bool = False
    begun: bool = False
    grown: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def events(self) -> list[RunEvent]:
        return [step for step in self.steps if isinstance(step, RunEvent)]

    async def add(self, step: EventData | Exception) -> None:
        """An event after the last one is not written."""
        async with self.grown:
            if not self.over:
                event = step if isinstance(step, Exception) else RunEvent(id=len(self.events) + 1, data=step)
                self.steps.append(event)
                self.over = isinstance(event, RunEvent) and event.last
            self.grown.notify_all()

    async def end(self) -> None:
        async with self.grown:
            self.over = True
            self.grown.notify_all()

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


class LoggedRuns:
    """Keeps the log of every run in memory."""

    def __init__(self) -> None:
        self.logs: dict[str, Log] = {}
        self.keys: dict[tuple[str, str], tuple[ChatRequest, str]] = {}
        self.failing: Exception | None = None
        self.asked: list[Context] = []

    def register(self, context: Context) -> Log:
        return self.logs.setdefault(context.run_id, Log(context.session_id, context.tenant))

    async def claim(self, context: Context, request: ChatRequest, key: str | None) -> Claim:
        self._ask(context)
        if key is not None:
            earlier, run_id = self.keys.setdefault((context.tenant, key), (request, context.run_id))
            if earlier != request:
                raise KeyReused("The key belongs to another body")
            if run_id != context.run_id:
                return Claim(run_id=run_id, fresh=False)
        self.register(context)
        return Claim(run_id=context.run_id, fresh=True)

    async def withdraw(self, context: Context, key: str | None, why: Overloaded) -> bool:
        log = self._found(context, context.run_id)
        if log.events:
            return False
        await log.add(Failed(error=Failure.of(why, context.request_id)))
        if key is not None:
            del self.keys[context.tenant, key]
        return True

    async def run(self, context: Context, run_id: str) -> RunRecord:
        log = self._found(context, run_id)
        run = RunRecord(run_id=run_id, session_id=log.session_id, status="queued", created_at=1.0)
        if not log.events:
            return run
        last = log.events[-1]
        match last.data:
            case Answer(status=status) as answer:
                ended: dict[str, Any] = {"status": status, "answer": answer}
            case Failed(error=error):
                ended = {"status": "failed", "error": error}
            case Cancelled():
                ended = {"status": "cancelled"}
            case _:
                ended = {"status": "running"}
        return run.model_copy(update={"last_event_id": last.id, **ended})

    async def events(self, context: Context, run_id: str, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        async with aclosing(self._found(context, run_id).follow()) as steps:
            async for step in steps:
                if isinstance(step, RunEvent) and step.id > after:
                    yield step

    async def cancel(self, context: Context, run_id: str) -> RunRecord:
        await self._found(context, run_id).add(Cancelled(run_id=run_id))
        return await self.run(context, run_id)

    def _ask(self, context: Context) -> None:
        self.asked.append(context)
        if self.failing:
            raise self.failing

    def _found(self, context: Context, run_id: str) -> Log:
        self._ask(context)
        log = self.logs.get(run_id)
        if log is None or log.tenant != context.tenant:
            raise NotFound(f"There is no run {run_id}")
        return log


class ScriptedAgent:
    """Plays its script: values become events, numbers are pauses in seconds, exceptions fail the calls that follow.

    An empty run id in a script stands for the run's own. Without a script it repeats what it was told; a session is
    there when it was spoken in.
    """

    def __init__(self, runs: LoggedRuns) -> None:
        self.runs = runs
        self.script: list[EventData | Exception | float] | None = None
        self.told: list[tuple[Context, ChatRequest]] = []
        self.calls = 0
        self.open = 0
        self.kept: dict[str, list[Exchange]] = {}
        self.failing: Exception | None = None
        self.starting: Exception | float = 0.0
        self.check = DependencyCheck(name="model", ok=True)
        self.check_pause_s = 0.0
        self.listed: SessionSizes | None = None
        self._playing: set[asyncio.Task[None]] = set()

    async def turn(self, context: Context, request: ChatRequest, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        self.calls += 1
        self.open += 1
        try:
            async with aclosing(self._begun(context, request).follow()) as steps:
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
        self._begun(context, request)

    def _begun(self, context: Context, request: ChatRequest) -> Log:
        log = self.runs.register(context)
        if not log.begun:
            log.begun = True
            self.told.append((context, request))
            playing = asyncio.create_task(self._play(log, context, request))
            self._playing.add(playing)
            playing.add_done_callback(self._playing.discard)
        return log

    async def _play(self, log: Log, context: Context, request: ChatRequest) -> None:
        for step in self._steps(context, request):
            if isinstance(step, float):
                await asyncio.sleep(step)
            elif getattr(step, "run_id", None) == "":
                await log.add(step.model_copy(update={"run_id": context.run_id}))
            else:
                await log.add(step)
        await log.end()

    def _steps(self, context: Context, request: ChatRequest) -> list[EventData | Exception | float]:
        if self.script is not None:
            return self.script
        message = Message(role="user", content=request.user_input)
        exchange = Exchange(run_id=context.run_id, at=time.time(), messages=[message])
        self.kept.setdefault(request.session_id, []).append(exchange)
        return [RunStarted(run_id=""), answer(request.user_input, request.session_id)]

    async def sizes(self, context: Context, limit: int) -> SessionSizes:
        if self.failing:
            raise self.failing
        if self.listed:
            return self.listed
        sizes = [
            SessionSize(session_id=name, turns=len(kept), bytes=1000 * len(kept), repairs=0, expires_in_s=60)
            for name, kept in self.kept.items()
        ]
        largest = sorted(sizes, key=lambda size: -size.bytes)
        return SessionSizes(sessions=largest[:limit], counted=len(sizes), complete=True)

    async def session(self, context: Context, limit: int) -> Session:
        exchanges = self._found(context)
        session_id = context.session_id
        return Session(session_id=session_id, turns=len(exchanges), expires_in_s=60, exchanges=exchanges[-limit:])

    async def forget(self, context: Context) -> None:
        self._found(context)
        del self.kept[context.session_id]

    async def checks(self) -> list[DependencyCheck]:
        await asyncio.sleep(self.check_pause_s)
        if self.failing:
            raise self.failing
        return [self.check]

    def _found(self, context: Context) -> list[Exchange]:
        if self.failing:
            raise self.failing
        if context.session_id not in self.kept:
            raise NotFound(f"There is no session {context.session_id}")
        return self.kept[context.session_id]


class ListedRetriever:
    """Keeps documents in a dictionary; one whose text is `broken` fails."""

    def __init__(self) -> None:
        self.contexts: list[Context] = []
        self.kept: dict[str, DocumentSummary] = {}
        self.failing: Exception | None = None

    async def search(self, context: Context, query: str) -> SearchResult:
        raise NotImplementedError

    async def add(self, context: Context, documents: list[Document]) -> list[IndexingResult]:
        self.contexts.append(context)
        if self.failing:
            raise self.failing
        return [self._added(document) for document in documents]

    def _added(self, document: Document) -> IndexingResult:
        key = f"d{len(self.kept) + 1}"
        if document.text == "broken":
            return IndexingResult(id=key, source=document.source, status="failed", reason="It is broken")
        self.kept[key] = DocumentSummary(
            id=key, source=document.source, title=document.title, passages=1, characters=1, indexed_at=1.0
        )
        return IndexingResult(id=key, source=document.source, status="added", passages=1)

    async def documents(self, context: Context, offset: int, limit: int) -> DocumentList:
        self.contexts.append(context)
        page = list(self.kept.values())[offset : offset + limit]
        return DocumentList(documents=page, total=len(self.kept), passages=len(self.kept))

    async def remove(self, context: Context, document_id: str) -> DocumentSummary:
        if document_id not in self.kept:
            raise NotFound(f"There is no document {document_id}")
        return self.kept.pop(document_id)

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


class ListedNodes:
    """Tells the pages that it is given, and how often it was asked."""

    def __init__(self) -> None:
        self.told: dict[str, str | None] = {"10.0.0.1": '# TYPE ray_up gauge\nray_up{WorkerId="a"} 1.0\n'}
        self.asked = 0

    async def pages(self) -> dict[str, str | None]:
        self.asked += 1
        return self.told


class KeptFaults:
    """Keeps faults in a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, Fault] = {}

    async def active_faults(self) -> tuple[Fault, ...]:
        return await self.list_faults()

    async def list_faults(self) -> tuple[Fault, ...]:
        return tuple(fault for _, fault in sorted(self.kept.items()))

    async def put(self, fault: Fault) -> None:
        self.kept[fault.target] = fault

    async def clear(self, target: str | None) -> None:
        for each in [target] if target else list(self.kept):
            self.kept.pop(each, None)


class KeptKeys:
    """Keeps keys, whole, in a dictionary; knows them as `ports.Access` besides."""

    def __init__(self) -> None:
        self.kept: dict[str, NewApiKey] = {}
        self.limits: dict[str, TenantLimits] = {}
        self.failing: Exception | None = None

    def find_caller(self, key: str) -> Caller | None:
        if self.failing:
            raise self.failing
        found = next((each for each in self.kept.values() if each.key == key), None)
        if found is None:
            return None
        return Caller(tenant=found.tenant, key_id=found.id, scopes=found.scopes, limits=found.limits)

    def tenant_limits(self, tenant: str) -> TenantLimits:
        return self.limits.get(tenant, TenantLimits())

    async def create(self, order: ApiKeyRequest) -> NewApiKey:
        key_id = f"{len(self.kept) + 1:016x}"
        made = NewApiKey(**dict(order), id=key_id, created_at=time.time(), key=f"sa_{key_id}_{'s' * 43}")
        self.kept[key_id] = made
        return made

    async def list_keys(self) -> tuple[ApiKey, ...]:
        return tuple(ApiKey(**each.model_dump(exclude={"key"})) for each in self.kept.values())

    async def revoke(self, key_id: str) -> None:
        if self.kept.pop(key_id, None) is None:
            raise NotFound(f"There is no key {key_id}")

    async def update_limits(self, key_id: str, changes: Mapping[str, Any]) -> ApiKey:
        if key_id not in self.kept:
            raise NotFound(f"There is no key {key_id}")
        before = self.kept[key_id]
        self.kept[key_id] = before.model_copy(update={"limits": before.limits.model_copy(update=dict(changes))})
        return ApiKey(**self.kept[key_id].model_dump(exclude={"key"}))

    async def list_tenants(self) -> tuple[TenantEntry, ...]:
        return tuple(TenantEntry(tenant=name, **dict(each)) for name, each in sorted(self.limits.items()))

    async def put_tenant(self, tenant: str, limits: TenantLimits) -> TenantEntry:
        self.limits[tenant] = limits
        return TenantEntry(tenant=tenant, **dict(limits))


class ToldLines:
    """Tells of each run that is logged what it is given for all."""

    def __init__(self, runs: LoggedRuns, lines: tuple[RunLogLine, ...]) -> None:
        self.runs = runs
        self.lines = lines

    async def read(self, context: Context, run_id: str) -> RunLogLines:
        await self.runs.run(context, run_id)
        return RunLogLines(run_id=run_id, lines=self.lines)


class KeptFeedback:
    """Keeps the votes on logged runs in a dictionary."""

    def __init__(self, runs: LoggedRuns) -> None:
        self.runs = runs
        self.kept: dict[str, Feedback] = {}

    async def vote(self, context: Context, vote: FeedbackRequest) -> Rating | None:
        run = await self.runs.run(context, vote.run_id)
        if run.status in {"queued", "running"}:
            raise RunUnfinished("The run has not ended")
        before = self.kept.get(vote.run_id)
        answer = run.answer.result if run.answer else None
        told = {"session_id": run.session_id, "at": time.time(), "question": "hello?", "answer": answer}
        self.kept[vote.run_id] = Feedback(**vote.model_dump(), **told, status=run.status)
        return before.rating if before else None

    async def listed(self, context: Context, rating: Rating | None, limit: int) -> FeedbackList:
        votes = sorted(self.kept.values(), key=lambda vote: -vote.at)
        counts = {each: sum(vote.rating == each for vote in votes) for each in ("up", "down")}
        wanted = [vote for vote in votes if rating in {None, vote.rating}]
        return FeedbackList(feedback=tuple(wanted[:limit]), **counts)
