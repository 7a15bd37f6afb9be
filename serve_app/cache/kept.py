"""What of an answer is kept?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.values import Citation, Message, ToolCall, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.values import Answer

FORM = "1"
"""Of the values in Redis; a part of their keys, so that a process never meets another version's."""


class KeptAnswer(Value):
    """An answer without whose it was: no session, no run, no user, and not the question's own wording."""

    result: str
    citations: list[Citation]
    tool_calls: list[ToolCall]
    model: str
    messages: list[Message]
    """What a session remembers of the turn, after the user's message."""

    @classmethod
    def of(cls, answer: Answer, messages: Sequence[Message]) -> KeptAnswer:
        """What is kept of `answer`; `messages` are the turn's, after the user's."""
        return cls(
            result=answer.result,
            citations=answer.citations,
            tool_calls=answer.tool_calls,
            model=answer.model,
            messages=list(messages),
        )
