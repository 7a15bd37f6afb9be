"""The progress of a turn: what it has gathered, restored from the log; its limits.

A model step is logged with its reply, a tool step with what the tool brought. What follows from these is not logged: a
process that adopts a run replays the steps and comes to the same messages.

Bad output is corrected once: a malformed call and a call of an unknown tool by their results, an empty answer by a
sentence. When it comes again, the model is asked for the basic answer: what it can say without tools.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from serve_app.agent.messages import deserialize_reply, malformed_calls, serialize_reply, tool_requests, usage_of
from serve_app.agent.tool_dispatch import ToolOutcome
from serve_app.llm.provider_messages import FALLBACK
from serve_app.observability.spans import NULL_SPAN
from serve_app.resilience.retry import RetryBudget
from serve_app.values import Passage, Token, ToolCall, ToolRequest, ToolResult, Usage
from serve_app.values.sanitize import sanitize_text, truncate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet

    from serve_app.config import AgentSettings
    from serve_app.ports import Span
    from serve_app.runs.event_log import LogEntry
    from serve_app.values import EventData, Reasoning

_MODEL, _MEMORY, _TRUNCATED = "model", "memory", "truncated"
MIN_RESULT_CHARACTERS = 200
"""The model reads so much of a result at least, which says that it is cut and how much is missing."""
MIN_SHORTENED_CHARACTERS = 400
"""A result that is shortened because the conversation is too long is worth nothing below this."""
SHORTEN_TO = 4
"""A result is shortened to one in so many characters."""
MAX_BAD_OUTPUTS = 2
MAX_SAME_CALLS = 3
"""A call that is made twice may repeat one that failed; three times is a loop."""


@dataclass(slots=True)
class Step:
    """A reply that calls tools; `outcomes` are by place in the reply."""

    number: int
    reply: AIMessage
    requests: list[ToolRequest]
    outcomes: dict[int, ToolOutcome] = field(default_factory=dict)

    @property
    def open_calls(self) -> list[int]:
        """The calls that have not ended."""
        return [index for index in range(len(self.requests)) if index not in self.outcomes]

    def begin_events(self, usage: Usage, empty_replies: int) -> list[tuple[EventData, str]]:
        """Return an event per call for the log.

        The first has the reply and what was before it as its state.
        """
        state = json.dumps(
            {"reply": serialize_reply(self.reply), "usage": usage.model_dump(), "empty": empty_replies}, default=str
        )
        return [(request, "" if index else state) for index, request in enumerate(self.requests)]

    def end_event(self, index: int) -> tuple[EventData, str]:
        """Return the event of a call that has ended, with its result as the state."""
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
    """Those of this turn: the user's message, the steps, the answer."""
    history: list[BaseMessage] = field(default_factory=list)
    """What the model reads before them: the system prompt, and the conversation."""
    stream: Callable[[Token | Reasoning], None] | None = None
    """Sends text to the followers as it comes; None where they want the whole answer only."""
    steps: int = 0
    step: Step | None = None
    """The step whose calls are being made."""
    finished_steps: list[Step] = field(default_factory=list)
    empty_replies: int = 0
    """Replies without calls for which `is_answer` is false; `turn.py` counts them.

    They are logged with the step that follows. If a process dies before that, its successor calls the model once more.
    """
    passages: list[Passage] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    missing: dict[str, str | None] = field(default_factory=dict)
    """By purpose, what the answer lacks after the latest call; a call that succeeds makes up for one that failed."""
    usage: Usage = field(default_factory=Usage)
    budget: RetryBudget = field(default_factory=lambda: RetryBudget(0))
    """The retries that are left to the turn."""
    span: Span = NULL_SPAN
    result_characters: int = 200_000
    """What is left of the characters that the results of all tools may have together."""
    has_text: bool = False
    """Whether text of an unfinished answer was sent."""

    @classmethod
    def restore(cls, user_input: str, entries: Iterable[LogEntry], max_result_characters: int) -> TurnProgress:
        """Return the progress of the turn whose log holds `entries`."""
        progress = cls([HumanMessage(user_input)], result_characters=max_result_characters)
        for entry in entries:
            progress._replay(entry.event.data, entry.state)
        return progress

    @property
    def model_calls(self) -> int:
        """How often the model was called and did not answer."""
        return self.steps + self.empty_replies

    @property
    def lacks(self) -> set[str]:
        """The parts that the answer was made without."""
        return {part for part in self.missing.values() if part}

    def add_reply(self, reply: AIMessage) -> None:
        """Count what a reply cost, and note where a fallback model gave it."""
        self.usage += usage_of(reply)
        if reply.response_metadata.get(FALLBACK):
            self.missing[_MODEL] = _MODEL

    def mark_forced(self, *, truncated: bool = False) -> None:
        """Note that the answer was forced.

        `truncated` says that calls were cut off, and so were not made.
        """
        self.missing[_MODEL] = _MODEL
        if truncated:
            self.missing[_TRUNCATED] = _TRUNCATED

    def mark_memory_missing(self) -> None:
        """Note that the model has not read the whole conversation."""
        self.missing[_MEMORY] = _MEMORY

    def begin_step(self, reply: AIMessage, requests: list[ToolRequest]) -> Step:
        """Begin the next step."""
        self.step = Step(self.steps, reply, requests)
        self.steps += 1
        return self.step

    def finish_step(self) -> None:
        """Add the outcomes of the step's calls, in the order of the calls."""
        step = self.step
        if step is None:
            return
        self.messages.append(step.reply)
        outcomes = [outcome for _, outcome in sorted(step.outcomes.items())]
        contents: list[str] = []
        for outcome in outcomes:
            contents.append(sanitize_text(outcome.content(len(self.passages))))
            self.passages.extend(outcome.passages)
            self.calls.append(outcome.call)
            self.missing[outcome.purpose] = outcome.missing
        for outcome, content in zip(outcomes, self._truncate_results(contents), strict=True):
            self.messages.append(_tool_message(outcome, content))
        self.finished_steps.append(step)
        self.step = None

    def shorten(self) -> bool:
        """Shorten a conversation that is longer than the model reads.

        Returns False where nothing is left to shorten. The older half of the exchanges goes first; with none left, the
        longest tool result of the turn is cut.
        """
        if (history := without_oldest(self.history)) is not None:
            self.history = history
        elif (messages := with_shorter_result(self.messages)) is not None:
            self.messages = messages
        else:
            return False
        self.mark_memory_missing()
        return True

    def _truncate_results(self, contents: list[str]) -> list[str]:
        """Return the results as the model reads them, within what the turn may still read."""
        shares = share_characters([len(content) for content in contents], self.result_characters)
        cut = [
            truncate(content, max(share, MIN_RESULT_CHARACTERS))
            for content, share in zip(contents, shares, strict=True)
        ]
        self.result_characters -= sum(map(len, cut))
        return cut

    def _replay(self, data: EventData, state: str) -> None:
        if isinstance(data, Token):
            self.has_text = True
        elif isinstance(data, ToolRequest) and state:
            self.finish_step()
            logged = json.loads(state)
            reply = deserialize_reply(logged["reply"])
            self.begin_step(reply, tool_requests(reply))
            self.add_reply(reply)
            self.usage = Usage.model_validate(logged["usage"])
            self.empty_replies = logged["empty"]
        elif isinstance(data, ToolCall) and self.step:
            logged = json.loads(state)
            request = self.step.requests[logged["index"]]
            result = ToolResult(
                content=logged["content"], status=data.status, attempts=data.attempts, elapsed_ms=data.elapsed_ms
            )
            passages = tuple(Passage.model_validate(each) for each in logged["passages"])
            self.step.outcomes[logged["index"]] = ToolOutcome(request, result, passages, logged["lexical_only"])


def reached_limit(
    progress: TurnProgress, settings: AgentSettings, tools: AbstractSet[str], own_steps: int = 0
) -> str | None:
    """Return the limit that makes the next reply the answer.

    Returns None while the model may call `tools`. `own_steps` were made by the service itself and do not count as the
    model's.
    """
    used = progress.usage.input_tokens + progress.usage.output_tokens
    limits = {
        "bad output came again": progress.empty_replies + _count_bad(progress.finished_steps, tools) >= MAX_BAD_OUTPUTS,
        "one call was made again and again": _count_repeated(progress) >= MAX_SAME_CALLS,
        "max_steps is reached": progress.model_calls - own_steps >= settings.max_steps - 1,
        "max_tool_calls is reached": len(progress.calls) >= settings.max_tool_calls,
        "max_tokens is reached": used >= settings.max_tokens,
    }
    return next((limit for limit, reached in limits.items() if reached), None)


def _count_bad(steps: list[Step], tools: AbstractSet[str]) -> int:
    return sum(
        bool(malformed_calls(step.reply)) or any(request.name not in tools for request in step.requests)
        for step in steps
    )


def _count_repeated(progress: TurnProgress) -> int:
    calls = Counter((call.name, json.dumps(call.arguments, sort_keys=True)) for call in progress.calls)
    return max(calls.values(), default=0)


def share_characters(sizes: list[int], limit: int) -> list[int]:
    """Share `limit` characters among texts of these sizes; short ones stay whole."""
    shares = [0] * len(sizes)
    left = max(limit, 0)
    by_size = sorted(range(len(sizes)), key=lambda place: sizes[place])
    for rank, place in enumerate(by_size):
        shares[place] = min(sizes[place], left // (len(sizes) - rank))
        left -= shares[place]
    return shares


def without_oldest(history: list[BaseMessage]) -> list[BaseMessage] | None:
    """Return the system prompt and the later half of the exchanges.

    Returns None where there are no exchanges.
    """
    first = [message for message in history[:1] if isinstance(message, SystemMessage)]
    rest = history[len(first) :]
    starts = [place for place, message in enumerate(rest) if isinstance(message, HumanMessage)]
    if not rest:
        return None
    dropped = (len(starts) + 1) // 2
    return [*first, *(rest[starts[dropped] :] if dropped < len(starts) else [])]


def with_shorter_result(messages: list[BaseMessage]) -> list[BaseMessage] | None:
    """Return the messages with the longest tool result shortened; None where no result is long."""
    results = [message for message in messages if isinstance(message, ToolMessage)]
    longest = max(results, key=lambda message: len(message.text), default=None)
    if longest is None or len(longest.text) <= MIN_SHORTENED_CHARACTERS:
        return None
    content = truncate(longest.text, max(len(longest.text) // SHORTEN_TO, MIN_SHORTENED_CHARACTERS))
    short = longest.model_copy(update={"content": content})
    return [short if message is longest else message for message in messages]


def _tool_message(outcome: ToolOutcome, content: str) -> ToolMessage:
    return ToolMessage(
        content,
        tool_call_id=outcome.request.id,
        name=outcome.request.name,
        status="success" if outcome.succeeded else "error",
    )
