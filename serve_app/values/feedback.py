"""What did a user think of an answer?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from serve_app.values.value import Value

Rating = Literal["up", "down"]


class Vote(Value):
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
