"""What is counted of one call of a model, and under which outcome?"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serve_app.errors import DeadlineExceeded, InvalidRequest, ServeAppError
from serve_app.llm.reply_reader import ESTIMATED
from serve_app.llm.translate import ModelBusy, ModelRefused, ModelTooSlow, ModelUnreadable
from serve_app.observability.catalogue import MODEL_CALLS, MODEL_S, MODEL_TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve_app.ports import Metrics

OUTCOMES: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((ModelTooSlow, DeadlineExceeded), "timeout"),
    ((ModelBusy,), "rate_limited"),
    ((ModelRefused, InvalidRequest), "refused"),
    ((ModelUnreadable,), "unreadable"),
    ((ServeAppError,), "unavailable"),
)
"""What else ends a call is no failure of the model: whoever asked gave it up, or this process did."""
CANCELLED = "cancelled"


@dataclass(slots=True)
class Heard:
    """What the provider has told, and the tokens as far as it has told them."""

    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False
    """Whether the tokens are an estimate."""
    messages: list[Any] = field(default_factory=list)

    def hear(self, message: Any) -> None:
        """Take note of the reply, or a chunk of it, and of what it says of tokens."""
        self.messages.append(message)
        usage = getattr(message, "usage_metadata", None)
        self.estimated = self.estimated or bool(message.response_metadata.get(ESTIMATED))
        if usage:
            self.input_tokens += usage["input_tokens"]
            self.output_tokens += usage["output_tokens"]

    def forget(self) -> None:
        """Begin anew, with another try."""
        self.input_tokens = self.output_tokens = 0
        self.estimated = False
        self.messages.clear()


@contextmanager
def measured(metrics: Metrics, model: str) -> Iterator[Heard]:
    """Make one call in the block, and say there what is heard."""
    begun, outcome, heard = time.monotonic(), "ok", Heard()
    try:
        yield heard
    except BaseException as error:
        outcome = outcome_of(error)
        raise
    finally:
        metrics.count(MODEL_CALLS, model=model, outcome=outcome)
        metrics.observe(MODEL_S, time.monotonic() - begun, model=model)
        if heard.input_tokens or heard.output_tokens:
            metrics.count(MODEL_TOKENS, heard.input_tokens, model=model, direction="input")
            metrics.count(MODEL_TOKENS, heard.output_tokens, model=model, direction="output")


def outcome_of(error: BaseException) -> str:
    """How a call ended that raised `error`."""
    return next((outcome for kinds, outcome in OUTCOMES if isinstance(error, kinds)), CANCELLED)
