"""A run: its events, its record, and the feedback on its answer."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from serve_app.values.tools import ToolCall, ToolRequest
from serve_app.values.turns import Answer, Failed, Failure
from serve_app.values.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable

RunStatus = Literal["queued", "running", "success", "degraded", "failed", "cancelled"]
"""`queued` waits for an earlier turn of its session. The last four are final."""
FinalStatus = Literal["success", "degraded", "failed", "cancelled"]
"""How a run can end."""


class RunStarted(Value):
    """The first event of a run; `recovered` if another process continues the run."""

    event: ClassVar[str] = "run"
    run_id: str
    recovered: bool = False


class Token(Value):
    """A piece of the answer's text; with `restart`, the client discards all text before it."""

    event: ClassVar[str] = "token"
    text: str
    restart: bool = False


class Reasoning(Value):
    """A piece of the model's thinking, sent only on request."""

    event: ClassVar[str] = "reasoning"
    text: str


class Cancelled(Value):
    """The last event of a cancelled run, which has no answer."""

    event: ClassVar[str] = "cancelled"
    run_id: str


EventData = RunStarted | Token | Reasoning | ToolRequest | ToolCall | Answer | Failed | Cancelled
EVENT_TYPES: dict[str, type[EventData]] = {
    kind.event: kind for kind in (RunStarted, Token, Reasoning, ToolRequest, ToolCall, Answer, Failed, Cancelled)
}
"""SSE event name -> its data."""
LAST_EVENTS = frozenset((Answer.event, Failed.event, Cancelled.event))
"""The events that end a run."""


class RunEvent:
    """One step of a run; `id` increases by one within the run.

    Its data is encoded once: the same JSON is written to the log, sent to another process and to the client. Another
    process parses it when it first reads the data; most tokens it only passes on.
    """

    def __init__(self, id: int, data: EventData) -> None:  # noqa: A002 - the name of the attribute
        self.id = id
        self.name: str = data.event
        """The SSE event name."""
        self.data = data

    @classmethod
    def sound(cls, event_id: int, data: EventData) -> RunEvent:
        """Return the event with its data sanitized."""
        data, json_data = data.sanitize_and_encode()
        event = cls(event_id, data)
        event.json_data = json_data
        return event

    @cached_property
    def data(self) -> EventData:
        """The data; fields of a later version are ignored."""
        return EVENT_TYPES[self.name].model_validate_json(self.json_data, extra="ignore")

    @cached_property
    def json_data(self) -> str:
        """The data as JSON."""
        return self.data.model_dump_json()

    @property
    def last(self) -> bool:
        """Whether this is the final event of the run."""
        return self.name in LAST_EVENTS

    def __reduce__(self) -> tuple[Callable[..., RunEvent], tuple[Any, ...]]:
        """Pickle the JSON.

        A failure is pickled as it is: its JSON has not all of it.
        """
        if self.name == Failed.event:
            return _build_event, (self.id, self.data)
        return _parse_event, (self.id, self.name, self.json_data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunEvent) and (self.id, self.data) == (other.id, other.data)

    def __hash__(self) -> int:
        return hash((self.id, self.name))

    def __repr__(self) -> str:
        return f"RunEvent(id={self.id}, data={self.data!r})"


def _build_event(event_id: int, data: EventData) -> RunEvent:
    """Return a pickled failure; the pickles of other versions name this function, too."""
    return RunEvent(event_id, data)


def _parse_event(event_id: int, name: str, json_data: str) -> RunEvent:
    """Return a pickled event, unread; the pickles of other versions name this function, too."""
    event = RunEvent.__new__(RunEvent)
    event.id, event.name, event.json_data = event_id, name, json_data
    return event


class RunRecord(Value):
    """A run, as `GET /agent/runs/{run_id}` returns it."""

    run_id: str
    session_id: str
    status: RunStatus
    created_at: float = Field(description="Unix time in seconds.")
    adoptions: int = Field(default=0, description="How often another process took the run over from a dead one.")
    last_event_id: int = Field(default=0, description="The id of the latest event.")
    answer: Answer | None = Field(default=None, description="The answer, once the run has one.")
    error: Failure | None = Field(default=None, description="The error, if the run failed.")


class Claim(Value):
    """The run of a request.

    It is not `fresh` if an earlier request with the same idempotency key started it.
    """

    run_id: str
    fresh: bool


Rating = Literal["up", "down"]


class FeedbackRequest(Value):
    """The body of `POST /agent/feedback`."""

    run_id: str = Field(pattern="^[A-Za-z0-9_-]{1,64}$", description="As in the turn's first frame or answer.")
    rating: Rating
    comment: str | None = Field(default=None, max_length=4000, description="The user's own words.")


class Feedback(Value):
    """A user's rating of an answer, with the question and the answer."""

    run_id: str
    session_id: str
    user_id: str | None = None
    rating: Rating
    comment: str | None = None
    at: float = Field(description="Unix time in seconds of the rating.")
    question: str
    answer: str | None = Field(default=None, description="None if the run failed or was cancelled.")
    status: str = Field(description="How the run ended.")
    degraded: tuple[str, ...] = ()
    model: str | None = None


class FeedbackList(Value):
    """The latest feedback, newest first, and the number of each rating."""

    feedback: tuple[Feedback, ...]
    up: int
    down: int
