"""Guardrails: limits of a turn, and corrections that the model reads.

Bad output is corrected once: a malformed call and a call of an unknown tool by their results, an empty answer by a
sentence. When it comes again, the model is asked for the basic answer: what it can say without tools.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from langchain_core.messages import SystemMessage

from serve_app.agent.messages import malformed_calls

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from langchain_core.messages import BaseMessage

    from serve_app.agent.progress import Step, TurnProgress
    from serve_app.config import AgentSettings

MAX_BAD_OUTPUTS = 2
MAX_SAME_CALLS = 3
"""A call that is made twice may repeat one that failed; three times is a loop."""

EMPTY_REPLY = "Your last answer was empty. Answer the user, or call a tool."
CUT_OFF_CALLS = (
    "Your last reply was cut off before its tool calls were complete, so none of them was made. Answer the user, or "
    "call one tool with short arguments."
)
BASIC_ANSWER = (
    "You cannot call tools any more. Answer the user from what you know by now, and say what you could not find out."
)


def reached_limit(
    progress: TurnProgress, settings: AgentSettings, tools: AbstractSet[str], own_steps: int = 0
) -> str | None:
    """Return the limit that makes the next reply the answer.

    Returns None while the model may call `tools`. `own_steps` were made by the service itself and do not count as the
    model's.
    """
    used = progress.usage.input_tokens + progress.usage.output_tokens
    limits = {
        "bad output came again": progress.empty_replies + _count_bad(progress.finished_steps, tools) >= MAX_BAD_OUTPUTS,
        "one call was made again and again": _count_repeated(progress) >= MAX_SAME_CALLS,
        "max_steps is reached": progress.model_calls - own_steps >= settings.max_steps - 1,
        "max_tool_calls is reached": len(progress.calls) >= settings.max_tool_calls,
        "max_tokens is reached": used >= settings.max_tokens,
    }
    return next((limit for limit, reached in limits.items() if reached), None)


def with_correction(history: list[BaseMessage], sentence: str) -> list[BaseMessage]:
    """Add a sentence for the model to the system prompt.

    Many providers accept it in no other place.
    """
    first, *rest = history
    return [SystemMessage(f"{first.text}\n\n{sentence}"), *rest]


def _count_bad(steps: list[Step], tools: AbstractSet[str]) -> int:
    return sum(
        bool(malformed_calls(step.reply)) or any(request.name not in tools for request in step.requests)
        for step in steps
    )


def _count_repeated(progress: TurnProgress) -> int:
    calls = Counter((call.name, json.dumps(call.arguments, sort_keys=True)) for call in progress.calls)
    return max(calls.values(), default=0)
