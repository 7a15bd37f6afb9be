"""The limits at which a turn goes on without tools, and what the model is told then.

Bad output is told to the model once: a malformed call, and one of a tool that there is not, by their results, an empty
answer by a sentence. When it comes again, the model is asked for the basic answer: what it can say without tools.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from langchain_core.messages import SystemMessage

from serve_app.agent.messages import malformed

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from langchain_core.messages import BaseMessage

    from serve_app.agent.progress import Step, TurnProgress
    from serve_app.config import AgentSettings

BAD_OUTPUTS = 2
SAME_CALLS = 3
"""A call that is made once more may be a second try of what failed; one more than that is a loop."""

EMPTY = "Your last answer was empty. Answer the user, or call a tool."
CUT = (
    "Your last reply was cut off before its tool calls were complete, so none of them was made. Answer the user, or "
    "call one tool with short arguments."
)
BASIC = (
    "You cannot call tools any more. Answer the user from what you know by now, and say what you could not find out."
)


def forced(progress: TurnProgress, settings: AgentSettings, tools: AbstractSet[str], own_steps: int = 0) -> str | None:
    """Why the next reply has to be the answer; None while the model may call `tools`.

    Steps that the service made itself, `own_steps`, are not the model's.
    """
    used = progress.usage.input_tokens + progress.usage.output_tokens
    reasons = {
        "bad output came again": progress.empty + _bad(progress.done, tools) >= BAD_OUTPUTS,
        "one call was made again and again": _most_repeated(progress) >= SAME_CALLS,
        "max_steps is reached": progress.asked - own_steps >= settings.max_steps - 1,
        "max_tool_calls is reached": len(progress.calls) >= settings.max_tool_calls,
        "max_tokens is reached": used >= settings.max_tokens,
    }
    return next((why for why, holds in reasons.items() if holds), None)


def told(history: list[BaseMessage], sentence: str) -> list[BaseMessage]:
    """The history with one sentence more for the model: in the first message, as many providers want no other place."""
    first, *rest = history
    return [SystemMessage(f"{first.text}\n\n{sentence}"), *rest]


def _bad(steps: list[Step], tools: AbstractSet[str]) -> int:
    return sum(
        bool(malformed(step.reply)) or any(request.name not in tools for request in step.requests) for step in steps
    )


def _most_repeated(progress: TurnProgress) -> int:
    made = Counter((call.name, json.dumps(call.arguments, sort_keys=True)) for call in progress.calls)
    return max(made.values(), default=0)
