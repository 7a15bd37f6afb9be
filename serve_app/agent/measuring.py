"""What is counted of a tool call and of a search?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.agent.prompts import KNOWLEDGE_SEARCH
from serve_app.observability.metric_catalogue import (
    RETRIEVAL_EMPTY,
    RETRIEVAL_PASSAGES,
    RETRIEVAL_S,
    RETRIEVALS,
    TOOL_ATTEMPTS,
    TOOL_CALLS,
    TOOL_S,
)

if TYPE_CHECKING:
    from serve_app.agent.tool_dispatch import ToolOutcome
    from serve_app.ports import Metrics

FOUND = {"ok", "standby"}


def measure(metrics: Metrics, tool: str, outcome: ToolOutcome) -> None:
    """Count a call that has ended; a search that was made is no tool's call, one that was not made is."""
    result = outcome.result
    if outcome.request.name == KNOWLEDGE_SEARCH and result.attempts:
        _search(metrics, outcome)
        return
    metrics.count(TOOL_CALLS, tool=tool, outcome=result.status)
    if result.attempts:
        metrics.count(TOOL_ATTEMPTS, result.attempts, tool=tool)
        metrics.observe(TOOL_S, result.elapsed_ms / 1000, tool=tool)


def _search(metrics: Metrics, outcome: ToolOutcome) -> None:
    status = outcome.result.status
    how = status if status in FOUND else "timeout" if status == "timeout" else "error"
    metrics.count(RETRIEVALS, outcome="lexical_only" if outcome.lexical_only else how)
    metrics.observe(RETRIEVAL_S, outcome.result.elapsed_ms / 1000)
    if status in FOUND:
        metrics.count(RETRIEVAL_PASSAGES, len(outcome.passages))
        if not outcome.passages:
            metrics.count(RETRIEVAL_EMPTY)
