"""Protocols of what has two implementations in production, or is called in another process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from contextlib import AbstractContextManager

    from serve_app.values import (
        Answer,
        ChatRequest,
        Context,
        DependencyCheck,
        Document,
        DocumentList,
        DocumentSummary,
        Failed,
        FinalStatus,
        IdempotencyKey,
        IndexingResult,
        Metric,
        RunEvent,
        SearchResult,
        Session,
        SessionSizes,
        ToolRequest,
        ToolResult,
        ToolSpec,
    )

SpanKind = Literal["turn", "step", "model", "tool", "retrieval", "memory"]
"""What a part of a turn is: the whole, a thinking step, a call of a model, of a tool, a search, a use of memory."""
AttributeValue = str | int | float | bool | list[str]
SpanContent = Callable[[], Any]
"""Returns the inputs or outputs of a span as JSON. It is called later and in another thread, if at all."""


class Agent(Protocol):
    """Runs turns and keeps conversations."""

    def turn(self, context: Context, request: ChatRequest, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        """The events of the run `context.run_id` that come after the event `after`, in order.

        Begins the run, or takes it over where the process that ran it is gone. Without `request.stream` the last event
        is the only one. A run that goes on elsewhere ends the events before the last one: its log has the rest.

        Raises:
            Unavailable: nothing was started, or the replica is gone.
            Overloaded: too many turns are running, of the tenant or of all; nothing was started.
        """
        ...

    async def start(self, context: Context, request: ChatRequest) -> None:
        """Begin the run `context.run_id`, and do not wait for it.

        Raises:
            Unavailable: no replica answered.
            Overloaded: too many turns are running, of the tenant or of all; nothing was started.
        """
        ...

    async def sizes(self, context: Context, limit: int) -> SessionSizes:
        """The `limit` conversations of the tenant that take up most."""
        ...

    async def session(self, context: Context, limit: int) -> Session:
        """The latest `limit` exchanges of `context.session_id`.

        Raises:
            NotFound: there is no such conversation.
        """
        ...

    async def forget(self, context: Context) -> None:
        """Delete `context.session_id`.

        Raises:
            NotFound: there is no such conversation.
        """
        ...

    async def checks(self) -> list[DependencyCheck]:
        """The state of what turns depend on: the model, memory, the tools that are bound."""
        ...


class Retriever(Protocol):
    """Finds passages and keeps the documents they come from."""

    async def search(self, context: Context, query: str) -> SearchResult:
        """The passages that bear on `query`.

        Raises:
            StoreUnavailable: Milvus or Redis did not answer.
            RetrieverUnavailable: no replica answered.
        """
        ...

    async def add(self, context: Context, documents: list[Document]) -> list[IndexingResult]:
        """Index `documents`, each replacing what its source held; one result per document, in order."""
        ...

    async def documents(self, context: Context, offset: int, limit: int) -> DocumentList:
        """A page of the documents, by source."""
        ...

    async def remove(self, context: Context, document_id: str) -> DocumentSummary:
        """Remove a document and its passages; what it was.

        Raises:
            NotFound: there is no such document.
        """
        ...

    async def checks(self) -> list[DependencyCheck]:
        """The state of Milvus and of the embedding model."""
        ...


class Tools(Protocol):
    """Runs tools away from the agent."""

    async def specs(self) -> list[ToolSpec]:
        """The tools that are configured.

        Those that cannot be called now, because they did not load or their server is away, are not `ready`: a turn goes
        on without them, and its answer says so.

        Raises:
            Unavailable: nobody answered, so that no turn should be run.
        """
        ...

    async def call(self, context: Context, request: ToolRequest, key: IdempotencyKey) -> ToolResult:
        """Run one tool; its own failure is a result, not an exception.

        So are wrong arguments. `key` names this call of this run; a call that is repeated comes under the same one.
        `context.retries` is how often it may be tried again here, if the tool may at all.

        Raises:
            ToolUnavailable: no replica answered.
        """
        ...

    async def checks(self) -> list[DependencyCheck]:
        """One check per configured tool: whether it can be called now."""
        ...


class Metrics(Protocol):
    """Takes observations of the metrics of `observability.metric_catalogue`.

    Each has a value for each of its labels. It costs a few microseconds, and never fails the one who observes.
    """

    def count(self, metric: Metric, by: float = 1, **labels: str) -> None:
        """Add to a counter."""
        ...

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        ...

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge, for the next twenty seconds."""
        ...

    def flush(self) -> None:
        """Export what has been observed and is still held in this process."""
        ...


class Span(Protocol):
    """One part of a turn in a trace. None of its methods waits or raises."""

    @property
    def traceparent(self) -> str:
        """By W3C Trace Context, for whoever is asked from within it."""
        ...

    def start_child(self, kind: SpanKind, name: str, inputs: SpanContent | None = None) -> AbstractContextManager[Span]:
        """Start a child span that ends with the block and records its exception."""
        ...

    def set_attributes(self, **attributes: AttributeValue) -> None:
        """Set attributes, in place of those of the same name."""
        ...

    def set_outputs(self, outputs: SpanContent) -> None:
        """Set what the span has produced."""
        ...

    def set_error(self, error: str) -> None:
        """Mark the span as failed; `error` is `CODE: message`."""
        ...

    def hide_values(self, values: Iterable[Any]) -> None:
        """Mask these values in every span of the turn."""
        ...


class TurnSpan(Span, Protocol):
    """The root span of a turn."""

    def set_outcome(self, outcome: FinalStatus, last: Answer | Failed | None = None) -> None:
        """Set how the turn ended; nothing if another process continues it."""
        ...


class Tracer(Protocol):
    """Records turns and exports them to trace collectors."""

    def start_turn(self, context: Context, request: ChatRequest) -> AbstractContextManager[TurnSpan]:
        """Start the root span of a turn. It ends with the block."""
        ...

    async def shutdown(self) -> None:
        """Export what is still waiting, within two seconds."""
        ...
