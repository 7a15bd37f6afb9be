"""One model call of a turn, with its text sent on as it comes."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from serve_app.agent.messages import streamed
from serve_app.errors import DeadlineExceeded, ModelUnavailable
from serve_app.llm.message_keys import MODEL, REASONING, RESTART, RETRACTED, THINKING
from serve_app.llm.telemetry import CallRecord, estimate_usage, to_openai_messages
from serve_app.resilience.deadline import elapsed_ms
from serve_app.values import Reasoning, Token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.runnables import Runnable

    from serve_app.agent.progress import TurnProgress
    from serve_app.values import ToolSpec

    Say = Callable[[Token | Reasoning], None]

logger = logging.getLogger(__name__)


async def ask(
    model: Runnable[LanguageModelInput, AIMessage], messages: list[BaseMessage], progress: TurnProgress, say: Say | None
) -> AIMessage:
    """One model step; with `say`, its text is sent as it comes.

    A turn whose model has said nothing before does not take nothing again: another model is asked then.
    """
    options: dict[str, Any] = {"nonempty": True} if progress.empty else {}
    begun = time.monotonic()
    with progress.span.start_child("step", f"step {progress.asked + 1}") as span, _charged(messages, progress) as heard:
        if say:
            chunks = model.astream(messages, restarts=True, span=span, **options)
            reply = await _streamed(chunks, messages, progress, say, heard)
        else:
            reply = await model.ainvoke(messages, span=span, on_discarded=heard.add, **options)
            if heard.messages:
                progress.usage += estimate_usage(messages, heard)
        span.set_outputs(partial(to_openai_messages, [reply]))
    progress.heard(reply)
    said = {"model": reply.response_metadata.get(MODEL), "calls": [call["name"] for call in reply.tool_calls]}
    logger.debug("model_replied", extra={**said, "elapsed_ms": elapsed_ms(begun)})
    return reply


def for_model(spec: ToolSpec) -> dict[str, Any]:
    """A tool as the model is told of it."""
    function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": function}


@contextmanager
def _charged(messages: list[BaseMessage], progress: TurnProgress) -> Iterator[CallRecord]:
    """Ask the model in the block, and say there what is heard: the turn pays for it where no whole reply comes.

    A model that fails before it speaks costs nothing; one that is given up has read what it was asked.
    """
    heard = CallRecord()
    try:
        yield heard
    except BaseException as error:
        if heard.messages or isinstance(error, asyncio.CancelledError | DeadlineExceeded):
            progress.usage += estimate_usage(messages, heard)
        raise


async def _streamed(
    chunks: AsyncIterator[AIMessage], messages: list[BaseMessage], progress: TurnProgress, say: Say, heard: CallRecord
) -> AIMessage:
    whole: Any = None
    restart = progress.said
    async for chunk in chunks:
        if chunk.response_metadata.get(RESTART):
            progress.usage += estimate_usage(messages, heard)
            heard.reset()
            whole, restart = None, progress.said
        heard.add(chunk)
        if whole is not None and chunk.response_metadata.get(RETRACTED):
            whole, restart = whole.model_copy(update={"content": ""}), progress.said
        whole = chunk if whole is None else whole + chunk
        if thought := "".join(str(chunk.additional_kwargs.get(name, "")) for name in (REASONING, THINKING)):
            say(Reasoning(text=thought))
        if chunk.text:
            say(Token(text=chunk.text, restart=restart))
            restart, progress.said = False, True
    if whole is None:
        raise ModelUnavailable("The model gave no answer")
    return streamed(whole)
