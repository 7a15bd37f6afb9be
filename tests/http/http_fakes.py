"""What do the ports say when a test decides it?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from serve_app.errors import NotFound
from serve_app.values import (
    Answer,
    Catalogue,
    ChatRequest,
    Check,
    Context,
    Document,
    DocumentSummary,
    Event,
    EventData,
    Exchange,
    Indexed,
    Message,
    RunStarted,
    Session,
    ToolResult,
    ToolSpec,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def answer(result: str = "Hello", session_id: str = "s1") -> Answer:
    return Answer(result=result, session_id=session_id, run_id="r1", model="offline")


class ScriptedAgent:
    """Plays its script: values become events, exceptions are raised, numbers are pauses in seconds.

    Without a script it repeats what it was told; a session is there when it was spoken in.
    """

    def __init__(self) -> None:
        self.script: list[EventData | Exception | float] | None = None
        self.told: list[tuple[Context, ChatRequest]] = []
        self.open = 0
        self.kept: dict[str, list[Exchange]] = {}
        self.failing: Exception | None = None
        self.check = Check(name="model", ok=True)
        self.check_pause_s = 0.0

    async def turn(self, context: Context, request: ChatRequest) -> AsyncIterator[Event]:
        self.told.append((context, request))
        self.open += 1
        try:
            number = 0
            for step in self._steps(context, request):
                if isinstance(step, float):
                    await asyncio.sleep(step)
                elif isinstance(step, Exception):
                    raise step
                else:
                    number += 1
                    yield Event(id=number, data=step)
        finally:
            await asyncio.sleep(0)  # as a remote call that is cancelled
            self.open -= 1

    def _steps(self, context: Context, request: ChatRequest) -> list[EventData | Exception | float]:
        if self.script is not None:
            return self.script
        message = Message(role="user", content=request.user_input)
        exchange = Exchange(run_id=context.run_id, at=1.0, messages=[message])
        self.kept.setdefault(request.session_id, []).append(exchange)
        last = answer(request.user_input, request.session_id)
        return [RunStarted(run_id=context.run_id), last] if request.stream else [last]

    async def session(self, context: Context, limit: int) -> Session:
        exchanges = self._found(context)
        session_id = context.session_id
        return Session(session_id=session_id, turns=len(exchanges), expires_in_s=60, exchanges=exchanges[-limit:])

    async def forget(self, context: Context) -> None:
        self._found(context)
        del self.kept[context.session_id]

    async def checks(self) -> list[Check]:
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

    async def search(self, context: Context, query: str) -> list[Any]:
        raise NotImplementedError

    async def add(self, context: Context, documents: list[Document]) -> list[Indexed]:
        self.contexts.append(context)
        if self.failing:
            raise self.failing
        return [self._added(document) for document in documents]

    def _added(self, document: Document) -> Indexed:
        key = f"d{len(self.kept) + 1}"
        if document.text == "broken":
            return Indexed(id=key, source=document.source, status="failed", reason="It is broken")
        self.kept[key] = DocumentSummary(
            id=key, source=document.source, title=document.title, passages=1, characters=1, indexed_at=1.0
        )
        return Indexed(id=key, source=document.source, status="added", passages=1)

    async def documents(self, context: Context, offset: int, limit: int) -> Catalogue:
        self.contexts.append(context)
        page = list(self.kept.values())[offset : offset + limit]
        return Catalogue(documents=page, total=len(self.kept), passages=len(self.kept))

    async def remove(self, context: Context, document_id: str) -> DocumentSummary:
        if document_id not in self.kept:
            raise NotFound(f"There is no document {document_id}")
        return self.kept.pop(document_id)

    async def checks(self) -> list[Check]:
        return [Check(name="milvus", ok=True)]


class NoTools:
    """Loads nothing, and nothing fails."""

    async def specs(self) -> list[ToolSpec]:
        return []

    async def call(self, context: Context, name: str, arguments: dict[str, Any]) -> ToolResult:
        raise NotImplementedError

    async def checks(self) -> list[Check]:
        return [Check(name="tool:order_query", ok=True)]
