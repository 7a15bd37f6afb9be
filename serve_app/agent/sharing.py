"""What of a turn may be given to others?

Only an answer that is whole, that no tool with an effect had a part in, and in which nothing personal is found. With
anything personal before it a turn is not even looked up: what it is asked with stands, hashed, in the name of a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, SystemMessage, ToolMessage

from serve_app.agent.messages import kept
from serve_app.cache.kept import KeptAnswer
from serve_app.cache.question import normalised
from serve_app.memory.repair import repaired

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.messages import BaseMessage

    from serve_app.agent.progress import TurnProgress
    from serve_app.agent.tool_dispatch import ToolDispatcher
    from serve_app.config import CacheSettings
    from serve_app.observability.redaction import Redactor
    from serve_app.runs.run import Run
    from serve_app.values import Answer, ChatRequest, Message, ToolCall

WHOSE = {"user_input", "session_id", "stream", "user_id", "reasoning"}
"""Of a request: its question, which counts by itself, and who asks and how, which says nothing of the answer."""


def terms(request: ChatRequest) -> dict[str, Any]:
    """What a request asks for beside its question."""
    return request.model_dump(mode="json", exclude=WHOSE)


def said(messages: Sequence[BaseMessage]) -> list[Any]:
    """As the model reads them; of the calls' ids, which providers make up, only which result is which call's."""
    places: dict[str | None, int] = {}
    for message in messages:
        for call in message.tool_calls if isinstance(message, AIMessage) else ():
            places.setdefault(call["id"], len(places))
    return [
        [
            each.type,
            each.content,
            [[call["name"], call["args"], places[call["id"]]] for call in getattr(each, "tool_calls", ())],
            places.get(each.tool_call_id) if isinstance(each, ToolMessage) else None,
        ]
        for each in messages
    ]


@dataclass(frozen=True, slots=True)
class Sharing:
    """Judges turns."""

    belt: ToolDispatcher
    redactor: Redactor
    settings: CacheSettings

    def may_look(self, run: Run, history: Sequence[BaseMessage], progress: TurnProgress) -> bool:
        """Whether the turn is one like others, of which nothing has happened yet; `history` is what is said before."""
        begun = progress.asked or progress.step or progress.said
        if begun or run.detached or run.context.faults or run.context.cache == "no-store":
            return False
        question = run.request.user_input
        before = said([each for each in history if not isinstance(each, SystemMessage)])
        return self._nothing_personal(question, normalised(question), terms(run.request), before)

    def kept(self, answer: Answer, progress: TurnProgress) -> KeptAnswer | None:
        """What is kept of the answer; None where it is not for others."""
        whole = answer.status == "success" and answer.finish_reason == "stop"
        if not whole or not all(map(self._is_lasting, answer.tool_calls)):
            return None
        requests = [request for step in progress.done for request in step.requests]
        if any(self.belt.hidden(request) for request in requests):
            return None
        messages, _ = repaired(kept(progress.messages))
        one = KeptAnswer.of(answer, messages[1:])
        if not self._nothing_personal(one.model_dump(exclude={"messages"}), _told(messages[1:])):
            return None
        return one if len(one.model_dump_json().encode()) <= self.settings.max_bytes else None

    def _is_lasting(self, call: ToolCall) -> bool:
        """Whether the call would bring the same to whoever asks next."""
        pure = self.belt.effect(call.name) == "pure"
        return pure and call.status == "ok" and call.name not in self.settings.live_tools

    def _nothing_personal(self, *values: Any) -> bool:
        return all(self.redactor.redact_value(value) == value for value in values)


def _told(messages: Sequence[Message]) -> list[Any]:
    """What was said, without the ids of calls, whose digits may look like anything."""
    return [[each.content, [call.arguments for call in each.tool_calls]] for each in messages]
