"""What makes an exchange one that every model can read?

Providers refuse a conversation in which a tool call has no result, a result has no call, or a turn has no answer: a
session with one such message would fail for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.values import NO_RESULT, Message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NO_ANSWER = "(This turn ended before it was answered.)"


def repaired(messages: Sequence[Message]) -> tuple[list[Message], int]:
    """The messages of one exchange in a valid order, and how many were added or left out; none where no user speaks."""
    first = next((index for index, each in enumerate(messages) if each.role == "user"), None)
    if first is None:
        return [], len(messages)
    mended = list(_answered(messages[first:]))
    if mended[-1].role != "assistant":
        mended.append(Message(role="assistant", content=NO_ANSWER))
    kept = sum(any(each is one for one in messages) for each in mended)
    return mended, len(messages) - kept + len(mended) - kept


def _answered(messages: Sequence[Message]) -> Iterator[Message]:
    """Each call with its one result behind it, and no result without its call."""
    open_calls: list[str] = []
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id in open_calls:
                open_calls.remove(message.tool_call_id)
                yield message
            continue
        yield from _without_result(open_calls)
        yield message
        open_calls = [call.id for call in message.tool_calls] if message.role == "assistant" else []
    yield from _without_result(open_calls)


def _without_result(calls: Sequence[str]) -> Iterator[Message]:
    for call in calls:
        yield Message(role="tool", content=NO_RESULT, tool_call_id=call)
