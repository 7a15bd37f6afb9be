"""What has been said so far, turn by turn?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from serve_app.llm.offline.words import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.messages import BaseMessage

    from serve_app.llm.offline.schema import Parameter


@dataclass(frozen=True, slots=True)
class Call:
    """A tool and the arguments that it was or is to be called with."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """What a call brought; `call` is None where the messages do not say which it was."""

    call: Call | None
    content: str
    failed: bool


@dataclass(slots=True)
class Turn:
    """A message of the user and what followed from it."""

    said: str
    calls: list[Call] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What the user said, in one width and cut to what is looked at."""
        return plain(self.said)


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns of the window and the one to answer."""

    earlier: tuple[Turn, ...]
    now: Turn

    @property
    def last_acting(self) -> Turn | None:
        """The latest earlier turn that called a tool."""
        return next((turn for turn in reversed(self.earlier) if turn.calls), None)

    def values_of(self, parameter: Parameter, tool: str) -> list[list[Any]]:
        """The values for `parameter` that each earlier turn names, those of the latest turn last."""
        return [values for turn in self.earlier if (values := _values(turn, parameter, tool))]


def conversation_of(messages: Sequence[BaseMessage]) -> Conversation:
    """The conversation that the messages of a window and of the running turn make."""
    turns: list[Turn] = []
    waiting: list[tuple[str | None, Call]] = []
    for message in messages:
        if isinstance(message, HumanMessage):
            turns.append(Turn(message.text))
            waiting = []
        elif isinstance(message, AIMessage) and turns:
            calls = [(each["id"], Call(each["name"], each["args"])) for each in message.tool_calls]
            turns[-1].calls += [call for _, call in calls]
            waiting = calls
        elif isinstance(message, ToolMessage) and turns:
            call = _taken(waiting, message.tool_call_id)
            turns[-1].results.append(Result(call, message.text, message.status == "error"))
    return Conversation(tuple(turns[:-1]), turns[-1]) if turns else Conversation((), Turn(""))


def _taken(waiting: list[tuple[str | None, Call]], call_id: str) -> Call | None:
    """The call that a result belongs to; providers repeat ids, so that it is taken once."""
    for index, (given_id, call) in enumerate(waiting):
        if given_id == call_id:
            del waiting[index]
            return call
    return None


def _values(turn: Turn, parameter: Parameter, tool: str) -> list[Any]:
    """What the user named, and what the tool was called with."""
    certain = parameter.shape is not None and parameter.shape.certain
    named = [found.value for found in parameter.shape.find(turn.text)] if certain and parameter.shape else []
    called = [
        call.arguments[parameter.name] for call in turn.calls if call.name == tool and parameter.name in call.arguments
    ]
    values = [*named, *called]
    return [value for index, value in enumerate(values) if value not in values[:index]]
