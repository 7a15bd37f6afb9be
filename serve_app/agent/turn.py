"""How is one turn run, from the user's message to the answer?"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage
from langchain_core.messages.utils import message_chunk_to_message

from serve_app.agent.messages import kept, recalled, requests_of, usage_of, with_calls
from serve_app.agent.progress import Progress
from serve_app.agent.prompts import citations, system
from serve_app.agent.toolbelt import Outcome
from serve_app.errors import DeadlineExceeded, ModelUnavailable, RunAbandoned, StoreUnavailable
from serve_app.memory.repair import repaired
from serve_app.memory.window import Recalled
from serve_app.resilience.deadline import remaining_s
from serve_app.values import Answer, Exchange, IdempotencyKey, Token, ToolResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from langchain_core.language_models import BaseChatModel, LanguageModelInput
    from langchain_core.runnables import Runnable

    from serve_app.agent.progress import Step
    from serve_app.agent.toolbelt import Toolbelt
    from serve_app.config import AgentSettings
    from serve_app.memory.window import Window
    from serve_app.runs.run import Run
    from serve_app.values import ToolRequest

    Say = Callable[[Token], None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Turn:
    """Runs turns; one object serves all of them."""

    model: BaseChatModel
    model_name: str
    belt: Toolbelt
    window: Window
    settings: AgentSettings

    async def run(self, run: Run) -> Answer:
        """The answer; every step on the way is logged, and goes on from where the log ends.

        Raises:
            DeadlineExceeded: the request's time ran out.
            NotOurs: another process has the run, or it was ended.
            RunAbandoned: too many processes have died over it.
            RunTooLarge: the log would grow over its limit.
            Unavailable: the model, Redis or the tools' list is out of reach.
        """
        try:
            async with asyncio.timeout(remaining_s(run.context.deadline)):
                return await self._answer(run)
        except TimeoutError:
            raise DeadlineExceeded("The turn did not end within its time") from None

    async def _answer(self, run: Run) -> Answer:
        memory = await self._recalled(run)
        progress = Progress.of(run.request.user_input, run.entries)
        self._keep_effects(run, progress)
        if run.abandoned:
            raise RunAbandoned("Each process that ran this turn died")
        history = [SystemMessage(system(self.settings.prompt)), *recalled(memory.exchanges)]
        result = await self._think(run, history, progress)
        run.exchange = _exchange(run, progress)
        degraded = sorted(
            {part for part in progress.missing.values() if part} | (set() if memory.whole else {"memory"})
        )
        return Answer(
            result=result,
            session_id=run.context.session_id,
            status="degraded" if degraded else "success",
            run_id=run.context.run_id,
            degraded=degraded,
            citations=citations(result, progress.passages),
            tool_calls=progress.calls,
            usage=progress.usage,
            model=self.model_name,
        )

    async def _recalled(self, run: Run) -> Recalled:
        """What the session remembers; while Redis is away the turn runs without."""
        if run.detached:
            return Recalled([], whole=False)
        try:
            return await self.window.recall(run.context, run.held.epoch, run.held.remembered)
        except StoreUnavailable:
            return Recalled([], whole=False)

    async def _think(self, run: Run, history: list[BaseMessage], progress: Progress) -> str:
        """Model and tools by turns, until the model answers; its last step has no tools to call."""
        tools = [_for_model(spec) for spec in await self.belt.specs()]
        terms: dict[str, Any] = {"deadline": run.context.deadline, "faults": run.context.faults}
        bound = self.model.bind_tools(tools, **terms)
        say = run.say if run.request.stream else None
        if progress.step:
            await self._act(run, progress, progress.step)
        while progress.steps < self.settings.max_steps - 1:
            reply = await _ask(bound, [*history, *progress.messages], progress, say)
            requests = requests_of(reply)
            if not requests:
                break
            step = progress.begin(with_calls(reply, requests), requests)
            await run.record(*step.begun(progress.usage))
            await self._act(run, progress, step)
        else:
            unbound = self.model.bind(**terms)
            reply = with_calls(await _ask(unbound, [*history, *progress.messages], progress, say), [])
        if not reply.text.strip():
            raise ModelUnavailable("The model gave no answer")
        progress.messages.append(reply)
        return reply.text

    async def _act(self, run: Run, progress: Progress, step: Step) -> None:
        """All calls of one step that have not ended, side by side."""

        async def call(index: int) -> None:
            step.outcomes[index] = await self._outcome(run, step.number, index, step.requests[index])
            await run.record(step.ended(index))

        self._keep_effects(run, progress)
        try:
            async with asyncio.TaskGroup() as group:
                for index in step.open:
                    group.create_task(call(index))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        progress.close()
        self._keep_effects(run, progress)

    def _keep_effects(self, run: Run, progress: Progress) -> None:
        """What a turn did is remembered even if no answer comes: a user who asks again must not have it done again."""
        made = [call.name for call in progress.calls]
        begun = [request.name for request in progress.step.requests] if progress.step else []
        if any(self.belt.effect(name) != "pure" for name in [*made, *begun]):
            run.exchange = _exchange(run, progress)

    async def _outcome(self, run: Run, step: int, index: int, request: ToolRequest) -> Outcome:
        """What one call brings; a call with an effect is made by one process only, after it has said so."""
        if self.belt.effect(request.name) == "effect":
            try:
                if not await run.reserve(step, index):
                    return Outcome(request, ToolResult.unknown(request.name, 1, 0))
            except StoreUnavailable:
                return Outcome(request, ToolResult.refused(request.name, "its effect cannot be recorded now"))
        key = IdempotencyKey(f"{run.context.run_id}:{step}:{index}")
        return await self.belt.call(run.context, request, key)


def _exchange(run: Run, progress: Progress) -> str:
    """The turn as memory keeps it, as far as it is."""
    messages, _ = repaired(kept([*progress.messages, *([progress.step.reply] if progress.step else [])]))
    exchange = Exchange(run_id=run.context.run_id, at=time.time(), user_id=run.request.user_id, messages=messages)
    return exchange.model_dump_json()


async def _ask(
    model: Runnable[LanguageModelInput, AIMessage], messages: list[BaseMessage], progress: Progress, say: Say | None
) -> AIMessage:
    """One model step; with `say`, its text is sent as it comes."""
    reply = await (_streamed(model, messages, progress, say) if say else model.ainvoke(messages))
    progress.usage = usage_of(reply, progress.usage)
    return reply


async def _streamed(
    model: Runnable[LanguageModelInput, AIMessage], messages: list[BaseMessage], progress: Progress, say: Say
) -> AIMessage:
    whole: Any = None
    restart = progress.said
    async for chunk in model.astream(messages):
        whole = chunk if whole is None else whole + chunk
        if chunk.text:
            say(Token(text=chunk.text, restart=restart))
            restart, progress.said = False, True
    if whole is None:
        raise ModelUnavailable("The model gave no answer")
    return cast("AIMessage", message_chunk_to_message(whole))


def _for_model(spec: Any) -> dict[str, Any]:
    function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": function}
