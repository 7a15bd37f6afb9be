"""What does a conversation hold?"""

from __future__ import annotations

import operator
from typing import Literal

from pydantic import Field

from serve_app.values.tools import ToolRequest
from serve_app.values.value import Value

NO_RESULT = "error: the outcome of this call is unknown; it may have happened, do not repeat it"
"""What stands in a conversation for the result of a tool call that has none."""


class Message(Value):
    """One message of a conversation."""

    role: Literal["user", "assistant", "tool"]
    content: str
    tool_calls: list[ToolRequest] = []
    tool_call_id: str | None = None
    reasoning: str = Field(default="", exclude_if=operator.not_)
    """The thinking before tool calls, which some providers want to read again; no client is shown it."""
    model: str = Field(default="", exclude_if=operator.not_)
    """The configured name of the model that wrote `reasoning`: no other one is sent it."""


class Exchange(Value):
    """One turn as memory keeps it: the user's message, the steps, the answer."""

    run_id: str
    at: float
    """Unix time in seconds at which the turn ended."""
    user_id: str | None = None
    messages: list[Message]


class Session(Value):
    """A conversation as memory keeps it; `exchanges` are the latest, oldest first."""

    session_id: str
    turns: int
    expires_in_s: float
    exchanges: list[Exchange]


class SessionSize(Value):
    """What a conversation takes up in Redis."""

    session_id: str
    turns: int
    bytes: int
    repairs: int = Field(
        description="How often a turn had to mend a message of it, or leave one out, for the model to read."
    )
    expires_in_s: float


class SessionSizes(Value):
    """The largest conversations, largest first."""

    sessions: list[SessionSize]
    counted: int = Field(description="Conversations that were looked at: all of them, unless `complete` is false.")
    complete: bool
