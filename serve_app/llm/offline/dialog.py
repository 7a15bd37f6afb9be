"""The conversation as the offline model reads it: turns with their calls and results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from serve_app.llm.offline.phrases import normalize_message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.messages import BaseMessage


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A tool and the arguments that it was or is to be called with."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CallResult:
    """The result of a call; `call` is None where the messages do not name it."""

    call: PlannedCall | None
    content: str
    failed: bool


@dataclass(slots=True)
class ChatTurn:
    """A message of the user, the calls and results that followed, and the answer."""

    message: str
    calls: list[PlannedCall] = field(default_factory=list)
    results: list[CallResult] = field(default_factory=list)
    answer: str = ""

    @property
    def text(self) -> str:
        """The message in one width, cut to what is read."""
        return normalize_message(self.message)


def read_turns(messages: Sequence[BaseMessage]) -> list[ChatTurn]:
    """Returns the turns of a conversation; the last one is to be answered."""
    turns: list[ChatTurn] = []
    waiting: list[tuple[str | None, PlannedCall]] = []
    for message in messages:
        if isinstance(message, HumanMessage):
            turns.append(ChatTurn(message.text))
            waiting = []
        elif isinstance(message, AIMessage) and turns:
            waiting = [(each["id"], PlannedCall(each["name"], each["args"])) for each in message.tool_calls]
            turns[-1].calls += [call for _, call in waiting]
            turns[-1].answer = message.text
        elif isinstance(message, ToolMessage) and turns:
            call = _take_call(waiting, message.tool_call_id)
            turns[-1].results.append(CallResult(call, message.text, message.status == "error"))
    return turns or [ChatTurn("")]


def _take_call(waiting: list[tuple[str | None, PlannedCall]], call_id: str) -> PlannedCall | None:
    """Takes the call of a result off the list: providers may repeat ids."""
    for index, (each_id, call) in enumerate(waiting):
        if each_id == call_id:
            del waiting[index]
            return call
    return None
