"""One model call of a turn, streamed to the followers as it comes."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from serve_app.agent.messages import assemble_reply
from serve_app.agent.prompts import with_correction
from serve_app.errors import DeadlineExceeded, ModelUnavailable
from serve_app.llm.error_translation import ContextOverflow
from serve_app.llm.provider_messages import MODEL, REASONING, RESTART, RETRACTED, THINKING
from serve_app.llm.telemetry import CallRecord, estimate_usage, to_openai_messages
from serve_app.resilience.deadline import elapsed_ms
from serve_app.values import Reasoning, Token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.runnables import Runnable

    from serve_app.agent.progress import TurnProgress
    from serve_app.values import ToolSpec

    Model = Runnable[LanguageModelInput, AIMessage]

logger = logging.getLogger(__name__)


def to_function_schema(spec: ToolSpec) -> dict[str, Any]:
    """Return the tool as models read it: a function with a JSON schema."""
    function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": function}


async def call_model(model: Model, progress: TurnProgress, correction: str) -> AIMessage:
    """Return the model's reply.

    A conversation that is too long is shortened until the model reads it.

    Raises:
        ContextOverflow: nothing is left to shorten.
    """
    while True:
        history = with_correction(progress.history, correction) if correction else progress.history
        try:
            return await _call(model, [*history, *progress.messages], progress)
        except ContextOverflow:
            if not progress.shorten():
                raise
            logger.warning("conversation_shortened", extra={"messages": len(progress.history)})


async def _call(model: Model, messages: list[BaseMessage], progress: TurnProgress) -> AIMessage:
    """Call the model once.

    If the reply before was empty, an empty one makes the fallback call the next model.
    """
    options: dict[str, Any] = {"nonempty": True} if progress.empty_replies else {}
    begun = time.monotonic()
    name = f"step {progress.model_calls + 1}"
    with progress.span.start_child("step", name) as span, _charge_usage(messages, progress) as record:
        if progress.stream:
            chunks = model.astream(messages, restarts=True, span=span, **options)
            reply = await _stream(chunks, messages, progress, record)
        else:
            reply = await model.ainvoke(messages, span=span, on_discarded=record.add, **options)
            if record.messages:
                progress.usage += estimate_usage(messages, record)
        span.set_outputs(partial(to_openai_messages, [reply]))
    progress.add_reply(reply)
    fields = {"model": reply.response_metadata.get(MODEL), "calls": [call["name"] for call in reply.tool_calls]}
    logger.debug("model_replied", extra={**fields, "elapsed_ms": elapsed_ms(begun)})
    return reply


@contextmanager
def _charge_usage(messages: list[BaseMessage], progress: TurnProgress) -> Iterator[CallRecord]:
    """Charge the turn for a call in the block that brings no whole reply.

    The caller adds to the record what comes. A model that fails before it replies costs nothing; one whose call is
    cancelled has read its messages.
    """
    record = CallRecord()
    try:
        yield record
    except BaseException as error:
        if record.messages or isinstance(error, asyncio.CancelledError | DeadlineExceeded):
            progress.usage += estimate_usage(messages, record)
        raise


async def _stream(
    chunks: AsyncIterator[AIMessage], messages: list[BaseMessage], progress: TurnProgress, record: CallRecord
) -> AIMessage:
    """Send the text of the chunks to the followers, and return the whole reply."""
    send = progress.stream
    assert send  # noqa: S101 - the caller streams only with it
    whole: Any = None
    restart = progress.has_text
    async for chunk in chunks:
        if chunk.response_metadata.get(RESTART):
            progress.usage += estimate_usage(messages, record)
            record.reset()
            whole, restart = None, progress.has_text
        record.add(chunk)
        if whole is not None and chunk.response_metadata.get(RETRACTED):
            whole, restart = whole.model_copy(update={"content": ""}), progress.has_text
        whole = chunk if whole is None else whole + chunk
        if thought := "".join(str(chunk.additional_kwargs.get(name, "")) for name in (REASONING, THINKING)):
            send(Reasoning(text=thought))
        if chunk.text:
            send(Token(text=chunk.text, restart=restart))
            restart, progress.has_text = False, True
    if whole is None:
        raise ModelUnavailable("The model gave no answer")
    return assemble_reply(whole)
