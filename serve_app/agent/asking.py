"""How is the model asked for one reply, and heard while it speaks?"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from serve_app.agent.messages import streamed
from serve_app.errors import ModelUnavailable
from serve_app.llm.chain import MODEL, RESTART
from serve_app.llm.telling import told
from serve_app.resilience.deadline import elapsed_ms
from serve_app.values import Token

if TYPE_CHECKING:
    from collections.abc import Callable

    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.runnables import Runnable

    from serve_app.agent.progress import Progress
    from serve_app.ports import Span
    from serve_app.values import ToolSpec

    Say = Callable[[Token], None]


logger = logging.getLogger(__name__)


async def ask(
    model: Runnable[LanguageModelInput, AIMessage], messages: list[BaseMessage], progress: Progress, say: Say | None
) -> AIMessage:
    """One model step; with `say`, its text is sent as it comes."""
    begun = time.monotonic()
    with progress.span.child("step", f"step {progress.asked + 1}") as span:
        asking = _streamed(model, messages, progress, say, span) if say else model.ainvoke(messages, span=span)
        reply = await asking
        span.tell(partial(told, [reply]))
    progress.heard(reply)
    said = {"model": reply.response_metadata.get(MODEL), "calls": [call["name"] for call in reply.tool_calls]}
    logger.debug("model_replied", extra={**said, "elapsed_ms": elapsed_ms(begun)})
    return reply


def for_model(spec: ToolSpec) -> dict[str, Any]:
    """A tool as the model is told of it."""
    function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": function}


async def _streamed(
    model: Runnable[LanguageModelInput, AIMessage],
    messages: list[BaseMessage],
    progress: Progress,
    say: Say,
    span: Span,
) -> AIMessage:
    whole: Any = None
    restart = progress.said
    async for chunk in model.astream(messages, restarts=True, span=span):
        if chunk.response_metadata.get(RESTART):
            whole, restart = None, progress.said
        whole = chunk if whole is None else whole + chunk
        if chunk.text:
            say(Token(text=chunk.text, restart=restart))
            restart, progress.said = False, True
    if whole is None:
        raise ModelUnavailable("The model gave no answer")
    return streamed(whole)
