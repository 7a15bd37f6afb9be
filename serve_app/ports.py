"""Who can be asked what, whichever process answers?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from serve_app.values import (
        Catalogue,
        ChatRequest,
        Check,
        Context,
        Document,
        DocumentSummary,
        Event,
        Indexed,
        Passage,
        Session,
        ToolResult,
        ToolSpec,
    )


class Agent(Protocol):
    """Answers turns and keeps conversations."""

    def turn(self, context: Context, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """The run's events in order; the last is an `Answer` or a `Failed`, and the only one without `request.stream`.

        Raises:
            Unavailable: nothing was started, or the replica is gone.
            Overloaded: too many turns wait.
        """
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

    async def checks(self) -> list[Check]:
        """The state of what turns depend on: the model, memory, the tools that are bound."""
        ...


class Retriever(Protocol):
    """Finds passages and keeps the documents they come from."""

    async def search(self, context: Context, query: str) -> list[Passage]:
        """The passages that bear on `query`, best first; empty when none does.

        Raises:
            StoreUnavailable: Milvus or Redis did not answer.
        """
        ...

    async def add(self, context: Context, documents: list[Document]) -> list[Indexed]:
        """Index `documents`, each replacing what its source held; one result per document, in order."""
        ...

    async def documents(self, context: Context, offset: int, limit: int) -> Catalogue:
        """A page of the documents, by source."""
        ...

    async def remove(self, context: Context, document_id: str) -> DocumentSummary:
        """Remove a document and its passages; what it was.

        Raises:
            NotFound: there is no such document.
        """
        ...

    async def checks(self) -> list[Check]:
        """The state of Milvus and of the embedding model."""
        ...


class Tools(Protocol):
    """Runs tools away from the agent."""

    async def specs(self) -> list[ToolSpec]:
        """The tools that loaded."""
        ...

    async def call(self, context: Context, name: str, arguments: dict[str, Any]) -> ToolResult:
        """Run one tool. Its own failure, wrong arguments included, is a result and not an exception.

        Raises:
            ToolUnavailable: no replica answered.
        """
        ...

    async def checks(self) -> list[Check]:
        """One check per configured tool: whether it loaded."""
        ...
