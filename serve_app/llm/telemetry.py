"""What is counted of one call of a model, and under which outcome?"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from langchain_core.messages import convert_to_openai_messages
from langchain_core.messages.ai import AIMessageChunk, add_ai_message_chunks

from serve_app.errors import DeadlineExceeded, InvalidRequest, ServeAppError
from serve_app.llm.error_translation import ModelBusy, ModelRefused, ModelTooSlow, ModelUnreadable
from serve_app.llm.message_keys import ESTIMATED
from serve_app.observability.metric_catalogue import MODEL_CALLS, MODEL_S, MODEL_TOKENS
from serve_app.values import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from langchain_core.messages import BaseMessage

    from serve_app.ports import Metrics, Span


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
class CallRecord:
    """What the provider has told, and the tokens as far as it has told them."""

    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False
    """Whether the tokens are an estimate."""
    messages: list[Any] = field(default_factory=list)

    def add(self, message: Any) -> None:
        """Take note of the reply, or a chunk of it, and of what it says of tokens."""
        self.messages.append(message)
        usage = getattr(message, "usage_metadata", None)
        self.estimated = self.estimated or bool(message.response_metadata.get(ESTIMATED))
        if usage:
            self.input_tokens += usage["input_tokens"]
            self.output_tokens += usage["output_tokens"]

    def reset(self) -> None:
        """Begin anew, with another try."""
        self.input_tokens = self.output_tokens = 0
        self.estimated = False
        self.messages.clear()


@contextmanager
def measure_call(metrics: Metrics, model: str) -> Iterator[CallRecord]:
    """Make one call in the block, and say there what is record."""
    begun, outcome, record = time.monotonic(), "ok", CallRecord()
    try:
        yield record
    except BaseException as error:
        outcome = classify_outcome(error)
        raise
    finally:
        metrics.count(MODEL_CALLS, model=model, outcome=outcome)
        metrics.observe(MODEL_S, time.monotonic() - begun, model=model)
        if record.input_tokens or record.output_tokens:
            metrics.count(MODEL_TOKENS, record.input_tokens, model=model, direction="input")
            metrics.count(MODEL_TOKENS, record.output_tokens, model=model, direction="output")


def classify_outcome(error: BaseException) -> str:
    """How a call ended that raised `error`."""
    return next((outcome for kinds, outcome in OUTCOMES if isinstance(error, kinds)), CANCELLED)


@contextmanager
def trace_call(call: AbstractContextManager[Span], record: CallRecord) -> Iterator[Span]:
    """Record the call that is made in the block: how it ends, and what is record of it."""
    with call as span:
        span.set_outputs(partial(to_openai_messages, record.messages))
        try:
            yield span
        finally:
            if record.input_tokens or record.output_tokens:
                span.set_attributes(input_tokens=record.input_tokens, output_tokens=record.output_tokens)


def to_openai_messages(messages: Sequence[BaseMessage]) -> Any:
    """Messages in OpenAI's form, whichever provider they are for or from; chunks of a stream as one."""
    chunks = [each for each in messages if isinstance(each, AIMessageChunk)]
    others = [each for each in messages if not isinstance(each, AIMessageChunk)]
    return convert_to_openai_messages([*others, *([add_ai_message_chunks(*chunks)] if chunks else [])])


def split_model_name(name: str) -> tuple[str, str]:
    """The provider and the model that a configured name means; a name without a provider stands for both."""
    provider, _, model = name.partition(":")
    return provider, model or provider


BYTES_PER_TOKEN = 4
"""Of UTF-8: a token is then about one short word, or one Chinese character."""


def estimate_tokens(text: str) -> int:
    """An estimate for a text."""
    return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def estimate_usage(messages: Sequence[BaseMessage], record: CallRecord) -> Usage:
    """By a call that was given up, asked with `messages`: what the provider has told, else an estimate.

    Some providers tell at the start what was read and that next to nothing is written, so that what has come counts
    where it is more.
    """
    written = estimate_tokens("".join(message.text for message in record.messages))
    return Usage(
        input_tokens=record.input_tokens or sum(estimate_tokens(message.text) for message in messages),
        output_tokens=max(record.output_tokens, written),
        estimated=record.estimated or not record.input_tokens or written > record.output_tokens,
    )
