"""How far is a turn, and what must be logged so that another process goes on from there?

A model step is logged with its reply, a tool step with what the tool said. What follows from these is not logged: a
process that goes on with a run reads the steps and comes to the same messages.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from serve_app.agent.messages import logged, requests_of, unlogged, usage_of
from serve_app.agent.tool_dispatch import ToolOutcome, content_of, shares
from serve_app.llm.message_keys import FALLBACK
from serve_app.observability.null import NULL_SPAN
from serve_app.resilience.retry import RetryBudget
from serve_app.values import Passage, Token, ToolCall, ToolRequest, ToolResult, Usage
from serve_app.values.sanitize import sanitize_text, truncate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serve_app.ports import Span
    from serve_app.runs.entries import Entry
    from serve_app.values import EventData


_MODEL = "model"
_TRUNCATED = "truncated"
LEAST_CHARACTERS = 200
"""What is told of a result at least, however much the turn has read: enough to say that and how much is missing."""


@dataclass(slots=True)
class Step:
    """A reply that calls tools, and what the calls have brought so far, by their place in the reply."""

    number: int
    reply: AIMessage
    requests: list[ToolRequest]
    outcomes: dict[int, ToolOutcome] = field(default_factory=dict)

    @property
    def open(self) -> list[int]:
        """The calls that have not ended."""
        return [index for index in range(len(self.requests)) if index not in self.outcomes]

    def begun(self, usage: Usage, empty: int) -> list[tuple[EventData, str]]:
        """The step as the log keeps it: an event per call, the reply with the first, and what was before it."""
        state = json.dumps({"reply": logged(self.reply), "usage": usage.model_dump(), "empty": empty}, default=str)
        return [(request, "" if index else state) for index, request in enumerate(self.requests)]

    def ended(self, index: int) -> tuple[EventData, str]:
        """The end of a call as the log keeps it."""
        outcome = self.outcomes[index]
        passages = [passage.model_dump() for passage in outcome.passages]
        state = {
            "index": index,
            "content": outcome.result.content,
            "passages": passages,
            "lexical_only": outcome.lexical_only,
        }
        return outcome.call, json.dumps(state)


@dataclass(slots=True)
class TurnProgress:
    """What a turn has gathered so far."""

    messages: list[BaseMessage]
    """This turn's only: the user's message, the steps, the answer."""
    steps: int = 0
    step: Step | None = None
    """The step whose calls are being made."""
    done: list[Step] = field(default_factory=list)
    """The steps before it."""
    empty: int = 0
    """Replies that said nothing. They are logged with the step that follows: where a process dies before, the model is
    asked once more by another one, and nothing is lost with a reply that said nothing."""
    passages: list[Passage] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    missing: dict[str, str | None] = field(default_factory=dict)
    """By purpose, what the latest call left the answer without: one that went well makes good for one that did not."""
    usage: Usage = field(default_factory=Usage)
    budget: RetryBudget = field(default_factory=lambda: RetryBudget(0))
    """The tries beyond the first that are left to the turn, for all that it asks."""
    span: Span = NULL_SPAN
    """What is recorded of the turn."""
    characters: int = 200_000
    """What is left of the characters that the tools' results may have together."""
    said: bool = False
    """Whether text of an unfinished answer was sent."""

    @classmethod
    def of(cls, user_input: str, entries: Iterable[Entry], max_result_characters: int) -> TurnProgress:
        """How far the turn is whose log holds `entries`."""
        progress = cls([HumanMessage(user_input)], characters=max_result_characters)
        for entry in entries:
            progress._replay(entry.event.data, entry.state)
        return progress

    @property
    def asked(self) -> int:
        """How often the model was asked, and what it said was no answer."""
        return self.steps + self.empty

    def heard(self, reply: AIMessage) -> None:
        """Take note of what a reply cost, and of who gave it."""
        self.usage += usage_of(reply)
        if reply.response_metadata.get(FALLBACK):
            self.missing[_MODEL] = _MODEL

    def force(self, *, truncated: bool = False) -> None:
        """Take note that the answer was forced; `truncated`: by calls that were cut off, and so were not made."""
        self.missing[_MODEL] = _MODEL
        if truncated:
            self.missing[_TRUNCATED] = _TRUNCATED

    def begin(self, reply: AIMessage, requests: list[ToolRequest]) -> Step:
        """The next step."""
        self.step = Step(self.steps, reply, requests)
        self.steps += 1
        return self.step

    def close(self) -> None:
        """Take in what the step's calls have brought, in their order."""
        step = self.step
        if step is None:
            return
        self.messages.append(step.reply)
        outcomes = [outcome for _, outcome in sorted(step.outcomes.items())]
        contents: list[str] = []
        for outcome in outcomes:
            contents.append(sanitize_text(content_of(outcome, self.passages)))
            self.passages.extend(outcome.passages)
            self.calls.append(outcome.call)
            self.missing[outcome.purpose] = outcome.missing
        for outcome, content in zip(outcomes, self._within(contents), strict=True):
            self.messages.append(_tool_message(outcome, content))
        self.done.append(step)
        self.step = None

    def _within(self, contents: list[str]) -> list[str]:
        """The results as the model reads them, within what the turn may still read."""
        allowed = shares([len(content) for content in contents], self.characters)
        cut = [
            truncate(content, max(share, LEAST_CHARACTERS)) for content, share in zip(contents, allowed, strict=True)
        ]
        self.characters -= sum(map(len, cut))
        return cut

    def _replay(self, data: EventData, state: str) -> None:
        if isinstance(data, Token):
            self.said = True
        elif isinstance(data, ToolRequest) and state:
            self.close()
            read = json.loads(state)
            reply = unlogged(read["reply"])
            self.begin(reply, requests_of(reply))
            self.heard(reply)
            self.usage = Usage.model_validate(read["usage"])
            self.empty = read.get("empty", 0)  # a process of the version before says nothing of them
        elif isinstance(data, ToolCall) and self.step:
            read = json.loads(state)
            request = self.step.requests[read["index"]]
            result = ToolResult(
                content=read["content"], status=data.status, attempts=data.attempts, elapsed_ms=data.elapsed_ms
            )
            passages = tuple(Passage.model_validate(each) for each in read["passages"])
            lexical_only = read.get("lexical_only", False)  # a process of the version before says nothing of it
            self.step.outcomes[read["index"]] = ToolOutcome(request, result, passages, lexical_only)


def _tool_message(outcome: ToolOutcome, content: str) -> ToolMessage:
    well = outcome.result.status in {"ok", "standby"}
    return ToolMessage(
        content,
        tool_call_id=outcome.request.id,
        name=outcome.request.name,
        status="success" if well else "error",
    )
