"""Shortens a conversation that is longer than the model reads.

The oldest exchanges go first, half of them at a time; then the longest tool result of the turn becomes a quarter as
long, until nothing is left to shorten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage

from serve_app.values.sanitize import truncate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.messages import BaseMessage

SHORTEST_RESULT = 400
"""Characters: less of a result says nothing."""
SHORTER_BY = 4


def without_oldest(history: Sequence[BaseMessage]) -> list[BaseMessage] | None:
    """The system message and the later half of the exchanges before the turn; None where there are none."""
    first = [message for message in history[:1] if isinstance(message, SystemMessage)]
    rest = list(history[len(first) :])
    starts = [place for place, message in enumerate(rest) if isinstance(message, HumanMessage)]
    if not rest:
        return None
    dropped = (len(starts) + 1) // 2
    return [*first, *(rest[starts[dropped] :] if dropped < len(starts) else [])]


def with_shorter_result(messages: Sequence[BaseMessage]) -> list[BaseMessage] | None:
    """The turn's messages with the longest tool result shortened; None where none is long."""
    results = [message for message in messages if isinstance(message, ToolMessage)]
    longest = max(results, key=lambda message: len(message.text), default=None)
    if longest is None or len(longest.text) <= SHORTEST_RESULT:
        return None
    short = longest.model_copy(
        update={"content": truncate(longest.text, max(len(longest.text) // SHORTER_BY, SHORTEST_RESULT))}
    )
    return [short if message is longest else message for message in messages]
