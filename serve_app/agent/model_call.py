"""One model call of a turn, streamed to the followers as it comes."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages.ai import add_ai_message_chunks

from serve_app.agent.messages import assemble_reply
from serve_app.agent.prompts import with_correction
from serve_app.errors import DeadlineExceeded, ModelUnavailable
from serve_app.llm.error_translation import ContextOverflow
from serve_app.llm.provider_messages import MODEL, REASONING, RESTART, RETRACTED, THINKING
from serve_app.llm.telemetry import CallRecord, estimate_usage, to_openai_messages
from serve_app.resilience.deadline import elapsed_ms
from serve_app.values import Reasoning, Token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping

    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
    from langchain_core.outputs import ChatGenerationChunk

    from serve_app.agent.progress import TurnProgress

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BoundModel:
    """A model and the options of its calls.

    It is called by LangChain's hooks, `_agenerate` and `_astream`: around them, `ainvoke` and `astream` prepare
    callbacks and caches that nobody here uses, which costs half a millisecond a call.
    """

    model: BaseChatModel
    options: Mapping[str, Any]

    async def reply(self, messages: list[BaseMessage], **options: Any) -> AIMessage:
        """Return the whole reply."""
        result = await self.model._agenerate(messages, **self.options, **options)  # noqa: SLF001 - see the class
        return cast("AIMessage", result.generations[0].message)

    async def stream(self, messages: list[BaseMessage], **options: Any) -> AsyncGenerator[AIMessageChunk, None]:
        """Yield the chunks of the reply."""
        chunks = self.model._astream(messages, **self.options, **options)  # noqa: SLF001 - see the class
        async with aclosing(cast("AsyncGenerator[ChatGenerationChunk]", chunks)):
            async for chunk in chunks:
                yield cast("AIMessageChunk", chunk.message)


async def call_model(model: BoundModel, progress: TurnProgress, correction: str) -> AIMessage:
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


async def _call(model: BoundModel, messages: list[BaseMessage], progress: TurnProgress) -> AIMessage:
    """Call the model once.

    If the reply before was empty, an empty one makes the fallback call the next model.
    """
    options: dict[str, Any] = {"nonempty": True} if progress.empty_replies else {}
    begun = time.monotonic()
    name = f"step {progress.model_calls + 1}"
    with progress.span.start_child("step", name) as span, _charge_usage(messages, progress) as record:
        if progress.stream:
            async with aclosing(model.stream(messages, restarts=True, span=span, **options)) as chunks:
                reply = await _stream(chunks, messages, progress, record)
        else:
            reply = await model.reply(messages, span=span, on_discarded=record.add, **options)
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
    chunks: AsyncIterator[AIMessageChunk], messages: list[BaseMessage], progress: TurnProgress, record: CallRecord
) -> AIMessage:
    """Send the text of the chunks to the followers, and return the whole reply."""
    send = progress.stream
    assert send  # noqa: S101 - the caller streams only with it
    pieces: list[AIMessageChunk] = []
    restart = progress.has_text
    async for chunk in chunks:
        if marks := chunk.response_metadata:
            if marks.get(RESTART):
                progress.usage += estimate_usage(messages, record)
                record.reset()
                pieces, restart = [], progress.has_text
            if marks.get(RETRACTED):
                pieces, restart = [each.model_copy(update={"content": ""}) for each in pieces], progress.has_text
        record.add(chunk)
        pieces.append(chunk)
        if thought := "".join(str(chunk.additional_kwargs.get(name, "")) for name in (REASONING, THINKING)):
            send(Reasoning(text=thought))
        if text := chunk.text:
            send(Token(text=str(text), restart=restart))
            restart, progress.has_text = False, True
    if not pieces:
        raise ModelUnavailable("The model gave no answer")
    return assemble_reply(add_ai_message_chunks(*pieces) if pieces[1:] else pieces[0])
