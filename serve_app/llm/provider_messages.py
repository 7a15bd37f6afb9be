"""Makes a conversation valid for every provider, and names our own metadata of messages.

Messages from memory or from a client may break a provider's rules: ids that are too long or come twice, illegal tool
names, calls without results, results without calls, text that is not Unicode. One such message would make every later
turn of the session fail.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage

from serve_app.values import NO_RESULT, make_tool_name
from serve_app.values.sanitize import sanitize_json, sanitize_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from langchain_core.messages.tool import ToolCall

REASONING = "reasoning_content"
"""Of `additional_kwargs`: the thinking that a provider sent in a field of its own, and may want to read again."""
THINKING = "serve_app_thinking"
"""Of `additional_kwargs`: the thinking that stood in the text; no provider is sent it."""

MODEL = "serve_app_model"
"""Of `response_metadata`, as all below: the configured name of the model that replied."""
FALLBACK = "serve_app_fallback"
"""Present and true where the reply is not from the first model."""
RESTART = "serve_app_restart"
"""Present and true in the chunk with which a stream begins again: discard what came before it."""
FINISH = "serve_app_finish"
"""Why the reply ended, as one of `values.FinishReason`."""
TRUNCATED = "serve_app_truncated"
"""Present and true where the text is only the beginning of an answer."""
CUT_CALLS = "serve_app_cut_calls"
"""The number of tool calls that a cut-off reply had begun; none of them is made."""
ESTIMATED = "serve_app_estimated"
"""Present and true where the provider counted no tokens: `usage_metadata` is an estimate."""
RETRACTED = "serve_app_retracted"
"""Present and true in a chunk that says that all text before it was thinking."""

NO_TEXT = "(no text)"
NO_REASONING = "(not recorded)"
"""Stands for missing thinking: some providers refuse a tool call without it."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CALL_BLOCKS = frozenset(
    {"tool_use", "tool_call", "tool_call_chunk", "function_call", "input_json_delta", "server_tool_call"}
)


def new_call_id() -> str:
    """Return a tool call id that every provider takes: nine letters and digits."""
    return uuid4().hex[:9]


def normalize_messages(messages: Sequence[BaseMessage], model: str = "") -> list[BaseMessage]:
    """Return the conversation in a form that any provider takes.

    `model` is the name of the model that is called. Its own thinking goes back with its tool calls, as some providers
    want; the thinking of other models does not.
    """
    normalizer = _Normalizer()
    for message in messages:
        normalizer.add(message, model)
    normalizer.close()
    return _with_reasoning(normalizer.messages)


def strip_tool_messages(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return the conversation for a model without tools: results become text of its first message."""
    others: list[BaseMessage] = []
    results: list[str] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            results.append(f"{message.name or 'tool'}: {message.text}")
        elif isinstance(message, AIMessage) and message.tool_calls:
            if message.text.strip():
                others.append(AIMessage(message.text))
        else:
            others.append(message)
    if not results:
        return others
    note = "Data that tools returned:\n" + "\n".join(results)
    first = others[0] if others and isinstance(others[0], SystemMessage) else None
    system = SystemMessage(f"{first.text}\n\n{note}" if first else note)
    return [system, *(others[1:] if first else others)]


class _Normalizer:
    """Collects messages, each tool call with exactly one result after it."""

    def __init__(self) -> None:
        self.messages: list[BaseMessage] = []
        self._ids: set[str] = set()
        self._open: deque[tuple[str | None, str, str]] = deque()
        """Calls without a result so far: original id, new id, name."""

    def add(self, message: BaseMessage, model: str) -> None:
        if isinstance(message, ToolMessage):
            self._add_result(message)
            return
        self.close()
        if isinstance(message, AIMessage):
            self._add_reply(message, model)
        else:
            self.messages.append(_with_fields(message, content=_content(message.content)))

    def close(self) -> None:
        """Give each call without a result one that says that there is none."""
        while self._open:
            _, call_id, name = self._open.popleft()
            self.messages.append(ToolMessage(NO_RESULT, tool_call_id=call_id, name=name, status="error"))

    def _add_result(self, message: ToolMessage) -> None:
        found = next((each for each in self._open if each[0] == message.tool_call_id), None)
        if found is None:
            return
        self._open.remove(found)
        content = _content(message.content)
        self.messages.append(_with_fields(message, content=content, tool_call_id=found[1], name=found[2]))

    def _add_reply(self, message: AIMessage, model: str) -> None:
        if _is_plain_text(message):
            self.messages.append(message)
            return
        calls = [self._call(call) for call in message.tool_calls]
        self._open.extend(
            (given["id"], str(call["id"]), call["name"]) for given, call in zip(message.tool_calls, calls, strict=True)
        )
        content = _content(message.content)
        if isinstance(content, list):
            content = [each for each in content if not (isinstance(each, dict) and each.get("type") in _CALL_BLOCKS)]
        if not calls and not _has_text(content):
            content = NO_TEXT
        more = {name: each for name, each in message.additional_kwargs.items() if name not in {THINKING, "tool_calls"}}
        if REASONING in more and not (calls and message.response_metadata.get(MODEL) == model):
            del more[REASONING]
        self.messages.append(
            _with_fields(message, content=content, tool_calls=calls, invalid_tool_calls=[], additional_kwargs=more)
        )

    def _call(self, call: ToolCall) -> ToolCall:
        call_id = call["id"] or ""
        if call_id in self._ids or not _ID.fullmatch(call_id):
            call_id = new_call_id()
        self._ids.add(call_id)
        name = call["name"] if _NAME.fullmatch(call["name"] or "") else make_tool_name(call["name"] or "")
        arguments: dict[str, Any] = sanitize_json(call["args"])
        return {"id": call_id, "name": name, "args": arguments, "type": "tool_call"}


def _with_reasoning(messages: list[BaseMessage]) -> list[BaseMessage]:
    """Add thinking to every call if one has it: the provider refuses calls without."""
    calling = [each for each in messages if isinstance(each, AIMessage) and each.tool_calls]
    if not any(REASONING in each.additional_kwargs for each in calling):
        return messages
    lacking = {id(each) for each in calling if not each.additional_kwargs.get(REASONING)}
    return [
        _with_fields(each, additional_kwargs={**each.additional_kwargs, REASONING: NO_REASONING})
        if id(each) in lacking
        else each
        for each in messages
    ]


def _is_plain_text(message: AIMessage) -> bool:
    """Return whether a reply is nothing but valid text."""
    content = message.content
    others = message.tool_calls or message.invalid_tool_calls or message.additional_kwargs
    return not others and isinstance(content, str) and sanitize_text(content) is content and bool(content.strip())


def _with_fields(message: BaseMessage, **fields: Any) -> BaseMessage:
    """Return the message with these fields, or itself where nothing differs."""
    if all(getattr(message, name) == value for name, value in fields.items()):
        return message
    return message.model_copy(update=fields)


def _content(content: str | list[str | dict[str, Any]]) -> str | list[str | dict[str, Any]]:
    if isinstance(content, str):
        return sanitize_text(content)
    blocks: list[str | dict[str, Any]] = sanitize_json(content)
    return blocks


def _has_text(content: str | Iterable[str | dict[str, Any]]) -> bool:
    if isinstance(content, str):
        return bool(content.strip())
    return any(each.strip() if isinstance(each, str) else each.get("text", True) for each in content)
