"""The outcome of a tool call or search, for model, client, metrics and traces."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serve_app.agent.prompts import KNOWLEDGE_SEARCH, format_passages
from serve_app.observability.metric_catalogue import (
    RETRIEVAL_EMPTY,
    RETRIEVAL_PASSAGES,
    RETRIEVAL_S,
    RETRIEVALS,
    TOOL_ATTEMPTS,
    TOOL_CALLS,
    TOOL_S,
)
from serve_app.values import Passage, ToolCall, ToolResult

if TYPE_CHECKING:
    from serve_app.ports import Metrics, Span
    from serve_app.values import ToolRequest

SUCCESSFUL = {"ok", "standby"}


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What one call brought, and the passages in it."""

    request: ToolRequest
    result: ToolResult
    passages: tuple[Passage, ...] = ()
    lexical_only: bool = False
    """Whether the passages were found by words alone, where meaning should have counted too."""

    @property
    def succeeded(self) -> bool:
        """Whether the tool, or its standby, has answered."""
        return self.result.status in SUCCESSFUL

    @property
    def call(self) -> ToolCall:
        """The call as the client sees it."""
        return ToolCall(
            name=self.request.name,
            arguments=self.request.arguments,
            status=self.result.status,
            attempts=self.result.attempts,
            elapsed_ms=self.result.elapsed_ms,
        )

    @property
    def purpose(self) -> str:
        """What the call was for: the tool with these arguments.

        All searches have the same purpose.
        """
        if self.request.name == KNOWLEDGE_SEARCH:
            return KNOWLEDGE_SEARCH
        return f"{self.request.name} {json.dumps(self.request.arguments, sort_keys=True)}"

    @property
    def missing(self) -> str | None:
        """What the answer lacks after this call.

        A wrong argument is the model's fault and lacks nothing.
        """
        result = self.result
        complete = self.succeeded and not self.lexical_only
        if complete or (result.status == "error" and result.attempts == 0):
            return None
        return "retriever" if self.request.name == KNOWLEDGE_SEARCH else f"tool:{self.request.name}"

    def content(self, passages_before: int) -> str:
        """Return what the model reads; passages are numbered on after those `passages_before` in the turn.

        It goes into a message of its own, of the role tool: the provider's protocol separates that from instructions,
        and no text can break out of it, as it could out of delimiters.
        """
        if self.request.name == KNOWLEDGE_SEARCH and self.succeeded:
            return format_passages(list(self.passages), passages_before + 1)
        return self.result.content

    def count(self, metrics: Metrics, tool: str) -> None:
        """Count the call under the label `tool`.

        A search that was made counts as a retrieval and as no tool call.
        """
        result = self.result
        if self.request.name == KNOWLEDGE_SEARCH and result.attempts:
            self._count_search(metrics)
            return
        metrics.count(TOOL_CALLS, tool=tool, outcome=result.status)
        if result.attempts:
            metrics.count(TOOL_ATTEMPTS, result.attempts, tool=tool)
            metrics.observe(TOOL_S, result.elapsed_ms / 1000, tool=tool)

    def _count_search(self, metrics: Metrics) -> None:
        status = self.result.status
        how = status if self.succeeded else "timeout" if status == "timeout" else "error"
        metrics.count(RETRIEVALS, outcome="lexical_only" if self.lexical_only else how)
        metrics.observe(RETRIEVAL_S, self.result.elapsed_ms / 1000)
        if self.succeeded:
            metrics.count(RETRIEVAL_PASSAGES, len(self.passages))
            if not self.passages:
                metrics.count(RETRIEVAL_EMPTY)

    def record(self, span: Span) -> None:
        """Record in the span how the call went.

        Its time is that of the process that ran the tool.
        """
        result = self.result
        span.set_attributes(
            tool=self.request.name,
            call_id=self.request.id,
            outcome=result.status,
            attempts=result.attempts,
            standby=result.status == "standby",
            elapsed_ms=result.elapsed_ms,
        )
        if self.passages:
            span.set_attributes(passages=len(self.passages), lexical_only=self.lexical_only)
        if not self.succeeded:
            span.set_error(f"{result.status}: {result.content}")
        span.set_outputs(self._outputs)

    def _outputs(self) -> Any:
        passages = [{"content": each.text, "source": each.source, "score": each.score} for each in self.passages]
        return {"documents": passages} if passages else self.result.content


def share_characters(sizes: list[int], limit: int) -> list[int]:
    """Share `limit` characters among texts of these sizes; short ones stay whole."""
    shares = [0] * len(sizes)
    left = max(limit, 0)
    by_size = sorted(range(len(sizes)), key=lambda place: sizes[place])
    for rank, place in enumerate(by_size):
        shares[place] = min(sizes[place], left // (len(sizes) - rank))
        left -= shares[place]
    return shares
