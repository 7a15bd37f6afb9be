"""What is recorded of a tool call?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serve_app.agent.tool_dispatch import ToolOutcome
    from serve_app.ports import Span


def record(outcome: ToolOutcome, span: Span) -> None:
    """How the call went, how often it was tried, and how long the process that ran it took for that."""
    result = outcome.result
    span.set_attributes(
        tool=outcome.request.name,
        call_id=outcome.request.id,
        outcome=result.status,
        attempts=result.attempts,
        standby=result.status == "standby",
        elapsed_ms=result.elapsed_ms,
    )
    if outcome.passages:
        span.set_attributes(passages=len(outcome.passages), lexical_only=outcome.lexical_only)
    if result.status not in {"ok", "standby"}:
        span.set_error(f"{result.status}: {result.content}")
    span.set_outputs(lambda: _told(outcome))


def _told(outcome: ToolOutcome) -> Any:
    passages = [{"content": each.text, "source": each.source, "score": each.score} for each in outcome.passages]
    return {"documents": passages} if passages else outcome.result.content
