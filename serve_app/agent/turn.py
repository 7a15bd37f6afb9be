"""How is one turn run, from the user's message to the answer?"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.utils import message_chunk_to_message

from serve_app.agent.messages import kept, recalled, requests_of, usage_of, with_calls
from serve_app.agent.prompts import citations, system
from serve_app.agent.toolbelt import content_of
from serve_app.errors import DeadlineExceeded, ModelUnavailable, StoreUnavailable
from serve_app.resilience.deadline import remaining_s
from serve_app.values import Answer, Exchange, RunStarted, Token, Usage

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from langchain_core.language_models import BaseChatModel, LanguageModelInput
    from langchain_core.runnables import Runnable

    from serve_app.agent.toolbelt import Outcome, Toolbelt
    from serve_app.config import AgentSettings
    from serve_app.memory.window import Window
    from serve_app.stores.lease import Lease
    from serve_app.values import ChatRequest, Context, Passage, ToolCall, ToolRequest

    Emit = Callable[[RunStarted | Token | ToolRequest | ToolCall | Answer], None]


logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Progress:
    """What a turn has gathered so far."""

    messages: list[BaseMessage]
    """This turn's only: the user's message, the steps, the answer."""
    passages: list[Passage] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    missing: dict[str, str | None] = field(default_factory=dict)
    """By purpose, what the latest call left the answer without: one that went well makes good for one that did not."""
    usage: Usage = field(default_factory=Usage)
    said: bool = False
    """Whether text of an unfinished answer was sent."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Runs turns; one object serves all of them."""

    model: BaseChatModel
    model_name: str
    belt: Toolbelt
    window: Window
    session: Callable[[Context], AbstractAsyncContextManager[Lease]]
    """Holds the right to the session's turn."""
    settings: AgentSettings

    async def run(self, context: Context, request: ChatRequest, emit: Emit) -> Answer:
        """The answer; every step on the way is emitted, the answer itself is not.

        Raises:
            DeadlineExceeded: the request's time ran out.
            SessionBusy: it ran out while another turn of the session was running.
            Unavailable: the model, Redis or the tools' list is out of reach.
        """
        async with self.session(context) as lease:
            emit(RunStarted(run_id=context.run_id))
            try:
                async with asyncio.timeout(remaining_s(context.deadline)):
                    return await self._answer(context, request, emit, lease)
            except TimeoutError:
                raise DeadlineExceeded("The turn did not end within its time") from None

    async def _answer(self, context: Context, request: ChatRequest, emit: Emit, lease: Lease) -> Answer:
        earlier = await self.window.recall(context)
        progress = Progress([HumanMessage(request.user_input)])
        history = [SystemMessage(system(self.settings.prompt)), *recalled(earlier)]
        result = await self._think(context, history, progress, emit if request.stream else None)
        exchange = Exchange(
            run_id=context.run_id, at=time.time(), user_id=request.user_id, messages=kept(progress.messages)
        )
        remembered = await self._remember(context, exchange, lease)
        missing = sorted({part for part in progress.missing.values() if part})
        degraded = missing if remembered else [*missing, "memory"]
        return Answer(
            result=result,
            session_id=context.session_id,
            status="degraded" if degraded else "success",
            run_id=context.run_id,
            degraded=degraded,
            citations=citations(result, progress.passages),
            tool_calls=progress.calls,
            usage=progress.usage,
            model=self.model_name,
        )

    async def _remember(self, context: Context, exchange: Exchange, lease: Lease) -> bool:
        """Whether it is kept; an answer that is there is not thrown away for its memory."""
        try:
            return await self.window.append(context, exchange, lease)
        except StoreUnavailable as error:
            logger.warning("run %s is not remembered: %s", context.run_id, error)
            return False

    async def _think(self, context: Context, history: list[BaseMessage], progress: Progress, emit: Emit | None) -> str:
        """Model and tools by turns, until the model answers; its last step has no tools to call."""
        tools = [_for_model(spec) for spec in await self.belt.specs()]
        bound = self.model.bind_tools(tools, deadline=context.deadline)
        for _ in range(self.settings.max_steps - 1):
            reply = await _ask(bound, [*history, *progress.messages], progress, emit)
            requests = requests_of(reply)
            if not requests:
                break
            progress.messages.append(with_calls(reply, requests))
            await self._act(context, requests, progress, emit)
        else:
            unbound = self.model.bind(deadline=context.deadline)
            reply = with_calls(await _ask(unbound, [*history, *progress.messages], progress, emit), [])
        if not reply.text.strip():
            raise ModelUnavailable("The model gave no answer")
        progress.messages.append(reply)
        return reply.text

    async def _act(self, context: Context, requests: list[ToolRequest], progress: Progress, emit: Emit | None) -> None:
        """All calls of one step, side by side; their results in the order of the calls."""

        async def run(request: ToolRequest) -> Outcome:
            outcome = await self.belt.call(context, request)
            if emit:
                emit(outcome.call)
            return outcome

        if emit:
            for request in requests:
                emit(request)
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(run(request)) for request in requests]
        for outcome in (task.result() for task in running):
            content = content_of(outcome, progress.passages)
            progress.passages.extend(outcome.passages)
            progress.calls.append(outcome.call)
            progress.missing[outcome.purpose] = outcome.missing
            progress.messages.append(_tool_message(outcome, content))


async def _ask(
    model: Runnable[LanguageModelInput, AIMessage], messages: list[BaseMessage], progress: Progress, emit: Emit | None
) -> AIMessage:
    """One model step; with `emit`, its text is sent as it comes."""
    reply = await (_streamed(model, messages, progress, emit) if emit else model.ainvoke(messages))
    progress.usage = usage_of(reply, progress.usage)
    return reply


async def _streamed(
    model: Runnable[LanguageModelInput, AIMessage], messages: list[BaseMessage], progress: Progress, emit: Emit
) -> AIMessage:
    whole: Any = None
    restart = progress.said
    async for chunk in model.astream(messages):
        whole = chunk if whole is None else whole + chunk
        if chunk.text:
            emit(Token(text=chunk.text, restart=restart))
            restart, progress.said = False, True
    if whole is None:
        raise ModelUnavailable("The model gave no answer")
    return cast("AIMessage", message_chunk_to_message(whole))


def _tool_message(outcome: Outcome, content: str) -> ToolMessage:
    well = outcome.result.status in {"ok", "standby"}
    return ToolMessage(
        content,
        tool_call_id=outcome.request.id,
        name=outcome.request.name,
        status="success" if well else "error",
    )


def _for_model(spec: Any) -> dict[str, Any]:
    function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": function}
