"""An exchange: one turn as memory keeps it, valid for every provider.

Providers refuse a conversation in which a tool call has no result, a result has no call, or a turn has no answer. A
session with one such message would fail in every later turn, so exchanges are repaired when they are written and read.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from serve_app.values import NO_RESULT, Exchange, Message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from serve_app.values import ChatRequest, Context

MAX_TOOL_CHARACTERS = 1_000
"""Of a tool's output in memory: the answer already holds what mattered of it."""
MAX_REASONING_CHARACTERS = 8_000
"""Of the thinking before a tool call. Some providers want it again; they check that it is there, not how it ends."""
NO_ANSWER = "(This turn ended before it was answered.)"


def serialize_exchange(context: Context, request: ChatRequest, messages: Sequence[Message]) -> str:
    """Return the turn as memory stores it; empty where the turn has no conversation."""
    if not context.session_id:
        return ""
    exchange = Exchange(run_id=context.run_id, at=time.time(), user_id=request.user_id, messages=list(messages))
    return exchange.model_dump_json()


def repair_messages(messages: Sequence[Message]) -> tuple[list[Message], int]:
    """Return valid messages of one exchange, and how many were added or left out.

    Messages before the user's are left out; nothing is left where no user speaks.
    """
    first = next((index for index, each in enumerate(messages) if each.role == "user"), None)
    if first is None:
        return [], len(messages)
    repaired = list(_pair_calls_with_results(messages[first:]))
    if repaired[-1].role != "assistant":
        repaired.append(Message(role="assistant", content=NO_ANSWER))
    unchanged = sum(any(each is one for one in messages) for each in repaired)
    return repaired, len(messages) - unchanged + len(repaired) - unchanged


def _pair_calls_with_results(messages: Sequence[Message]) -> Iterator[Message]:
    """Put one result behind each call, and leave out results that have no call."""
    open_calls: list[str] = []
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id in open_calls:
                open_calls.remove(message.tool_call_id)
                yield message
            continue
        yield from _missing_results(open_calls)
        yield message
        open_calls = [call.id for call in message.tool_calls] if message.role == "assistant" else []
    yield from _missing_results(open_calls)


def _missing_results(calls: Sequence[str]) -> Iterator[Message]:
    for call in calls:
        yield Message(role="tool", content=NO_RESULT, tool_call_id=call)
