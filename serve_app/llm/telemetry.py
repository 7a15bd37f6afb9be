"""Metrics, traces and token estimates of one model call."""

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
from serve_app.llm.provider_messages import ESTIMATED
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
"""Anything else is a cancellation, not a failure of the model."""
CANCELLED = "cancelled"


@dataclass(slots=True)
class CallRecord:
    """The reply, or its chunks, and the token counts so far."""

    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False
    """Whether the token counts are an estimate."""
    messages: list[Any] = field(default_factory=list)

    def add(self, message: Any) -> None:
        """Add a reply or a chunk, with its token counts."""
        self.messages.append(message)
        usage = getattr(message, "usage_metadata", None)
        self.estimated = self.estimated or bool(message.response_metadata.get(ESTIMATED))
        if usage:
            self.input_tokens += usage["input_tokens"]
            self.output_tokens += usage["output_tokens"]

    def reset(self) -> None:
        """Clear the record before another attempt."""
        self.input_tokens = self.output_tokens = 0
        self.estimated = False
        self.messages.clear()


@contextmanager
def measure_call(metrics: Metrics, model: str) -> Iterator[CallRecord]:
    """Count and time the call in the block, which adds its messages to the record."""
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
    """Return the outcome label of a call that raised `error`."""
    return next((outcome for kinds, outcome in OUTCOMES if isinstance(error, kinds)), CANCELLED)


@contextmanager
def trace_call(call: AbstractContextManager[Span], record: CallRecord) -> Iterator[Span]:
    """Trace the call in the block, with its reply and its tokens."""
    with call as span:
        span.set_outputs(partial(to_openai_messages, record.messages))
        try:
            yield span
        finally:
            if record.input_tokens or record.output_tokens:
                span.set_attributes(input_tokens=record.input_tokens, output_tokens=record.output_tokens)


def to_openai_messages(messages: Sequence[BaseMessage]) -> Any:
    """Convert messages of any provider to OpenAI's form; chunks become one message."""
    chunks = [each for each in messages if isinstance(each, AIMessageChunk)]
    others = [each for each in messages if not isinstance(each, AIMessageChunk)]
    return convert_to_openai_messages([*others, *([add_ai_message_chunks(*chunks)] if chunks else [])])


def split_model_name(name: str) -> tuple[str, str]:
    """Split `provider:model`; a name without a provider stands for both."""
    provider, _, model = name.partition(":")
    return provider, model or provider


BYTES_PER_TOKEN = 4
"""Of UTF-8: about one short English word, or one Chinese character."""


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text."""
    return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def estimate_usage(messages: Sequence[BaseMessage], record: CallRecord) -> Usage:
    """Return the tokens of a cancelled call: the provider's counts, else an estimate.

    Some providers send their counts at the start, when next to nothing is written. Then the text so far counts, if it
    is more.
    """
    written = estimate_tokens("".join(message.text for message in record.messages))
    return Usage(
        input_tokens=record.input_tokens or sum(estimate_tokens(message.text) for message in messages),
        output_tokens=max(record.output_tokens, written),
        estimated=record.estimated or not record.input_tokens or written > record.output_tokens,
    )
