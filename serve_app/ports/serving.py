"""Who can be asked for what, whichever process answers?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from serve_app.errors import Overloaded
    from serve_app.values import (
        ChatRequest,
        Claim,
        Context,
        DependencyCheck,
        Document,
        DocumentList,
        DocumentSummary,
        Fault,
        FeedbackList,
        FeedbackRequest,
        IdempotencyKey,
        IndexingResult,
        Rating,
        RunEvent,
        RunLogLines,
        RunRecord,
        SearchResult,
        Session,
        SessionSizes,
        ToolRequest,
        ToolResult,
        ToolSpec,
    )


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


class Runs(Protocol):
    """Reads the log of runs, whichever process runs them."""

    async def claim(self, context: Context, request: ChatRequest, key: str | None) -> Claim:
        """Register the run `context.run_id`; where the tenant's `key` came before, the run that it began instead.

        A run that is registered is run, even if nobody starts it, unless it is withdrawn.

        Raises:
            KeyReused: the key came with another request.
            StoreUnavailable: Redis did not answer.
        """
        ...

    async def withdraw(self, context: Context, key: str | None, why: Overloaded) -> bool:
        """Take back the run `context.run_id`, claimed with `key`, which the agents refused.

        Whoever joined it meanwhile reads `why`, and the key begins another run the next time. False, and nothing is
        changed, where a process has taken the run by itself.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        ...

    async def run(self, context: Context, run_id: str) -> RunRecord:
        """The state of a run.

        Raises:
            NotFound: the tenant has no such run, or its time is over.
            StoreUnavailable: Redis did not answer.
        """
        ...

    def events(self, context: Context, run_id: str, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        """The run's events that come after the event `after`, to its last one, as they happen.

        Raises:
            NotFound: the tenant has no such run, or its time is over.
            StoreUnavailable: Redis did not answer.
        """
        ...

    async def cancel(self, context: Context, run_id: str) -> RunRecord:
        """End a run without an answer; one that has ended stays as it is. What became of it.

        Raises:
            NotFound: the tenant has no such run, or its time is over.
            StoreUnavailable: Redis did not answer.
        """
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
        """Run one tool. Its own failure, wrong arguments included, is a result and not an exception.

        `key` names this call of this run; a call that is repeated comes under the same one. `context.retries` is how
        often it may be tried again here, if the tool may at all.

        Raises:
            ToolUnavailable: no replica answered.
        """
        ...

    async def checks(self) -> list[DependencyCheck]:
        """One check per configured tool: whether it can be called now."""
        ...


class Lines(Protocol):
    """Knows what the logs of all processes say of a run."""

    async def listed(self, context: Context, run_id: str) -> RunLogLines:
        """The latest lines about the run, in order.

        Raises:
            NotFound: the tenant has no such run, or its time is over.
            StoreUnavailable: Redis did not answer.
        """
        ...


class Feedback(Protocol):
    """Keeps what users thought of answers."""

    async def vote(self, context: Context, vote: FeedbackRequest) -> Rating | None:
        """Rate a run; a second vote takes the first one's place. What the run was rated before.

        Raises:
            NotFound: the tenant has no such run, or its time is over.
            RunUnfinished: the run has not ended.
            StoreUnavailable: Redis did not answer.
        """
        ...

    async def listed(self, context: Context, rating: Rating | None, limit: int) -> FeedbackList:
        """The latest votes, of one rating or of both.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        ...


class Faults(Protocol):
    """Keeps what goes wrong on purpose; every method but the first raises `StoreUnavailable` when nobody can tell."""

    async def in_force(self) -> tuple[Fault, ...]:
        """The faults for a request that begins now, as known within a second; none when nobody can tell."""
        ...

    async def listed(self) -> tuple[Fault, ...]:
        """The faults in force, by their targets."""
        ...

    async def put(self, fault: Fault) -> None:
        """Set a fault, in place of the one of the same target."""
        ...

    async def clear(self, target: str | None) -> None:
        """End the fault of `target`; None ends all."""
        ...
