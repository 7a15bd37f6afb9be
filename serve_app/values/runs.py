"""A run: its events, its state, and what a user thinks of its answer."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from serve_app.values.tools import ToolCall, ToolRequest
from serve_app.values.turns import Answer, Failed, Failure
from serve_app.values.value import Value

RunStatus = Literal["queued", "running", "success", "degraded", "failed", "cancelled"]
"""`queued` waits for its session's turn; the last four are final."""
FinalStatus = Literal["success", "degraded", "failed", "cancelled"]
"""How a run may have ended."""


class RunStarted(Value):
    """The first frame of a run, and of each process that goes on with it: then it is `recovered`."""

    event: ClassVar[str] = "run"
    run_id: str
    recovered: bool = False


class Token(Value):
    """A piece of the answer's text; `restart` says that what came before is to be discarded."""

    event: ClassVar[str] = "token"
    text: str
    restart: bool = False


class Reasoning(Value):
    """A piece of the model's thinking, for a client that asked for it; never a part of the answer."""

    event: ClassVar[str] = "reasoning"
    text: str


class Cancelled(Value):
    """The run was cancelled: it has no answer."""

    event: ClassVar[str] = "cancelled"
    run_id: str


EventData = RunStarted | Token | Reasoning | ToolRequest | ToolCall | Answer | Failed | Cancelled


class RunEvent(Value):
    """One step of a run that a client can see; `id` rises by one within the run."""

    id: int
    data: EventData

    @property
    def name(self) -> str:
        """The SSE event name."""
        return self.data.event

    @property
    def last(self) -> bool:
        """Whether the run ends with this event."""
        return isinstance(self.data, Answer | Failed | Cancelled)


class RunRecord(Value):
    """A run as `GET /agent/runs/{run_id}` tells it."""

    run_id: str
    session_id: str
    status: RunStatus
    created_at: float = Field(description="Unix time in seconds.")
    adoptions: int = Field(default=0, description="How often another process took the run over from one that died.")
    last_event_id: int = Field(default=0, description="The id of the latest event.")
    answer: Answer | None = Field(default=None, description="There once the run has answered.")
    error: Failure | None = Field(default=None, description="There where the run failed.")


class Claim(Value):
    """Which run a request is; not `fresh` where an earlier request with its idempotency key has begun it."""

    run_id: str
    fresh: bool


Rating = Literal["up", "down"]


class FeedbackRequest(Value):
    """The body of `POST /agent/feedback`."""

    run_id: str = Field(pattern="^[A-Za-z0-9_-]{1,64}$", description="As the turn's first frame or answer has it.")
    rating: Rating
    comment: str | None = Field(default=None, max_length=4000, description="In the user's own words.")


class Feedback(Value):
    """A vote, and what it is about."""

    run_id: str
    session_id: str
    user_id: str | None = None
    rating: Rating
    comment: str | None = None
    at: float = Field(description="Unix time in seconds of the vote.")
    question: str
    answer: str | None = Field(default=None, description="None where the run failed or was cancelled.")
    status: str = Field(description="How the run ended.")
    degraded: tuple[str, ...] = ()
    model: str | None = None


class FeedbackList(Value):
    """The latest votes, latest first, and how many there are of each rating."""

    feedback: tuple[Feedback, ...]
    up: int
    down: int
