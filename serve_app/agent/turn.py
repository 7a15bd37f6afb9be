"""A turn: recall -> think <-> act -> remember -> answer.

`Turn.run` reads from top to bottom in this order. The loop of thinking and acting (ReAct) is `_think_and_act`. Each
step is logged before the next one begins, so that another process goes on with the turn where this one dies.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, SystemMessage
from langchain_core.messages.tool import tool_call

from serve_app.agent.citations import cite_passages
from serve_app.agent.messages import malformed_calls, to_langchain, to_memory, tool_requests, with_calls
from serve_app.agent.model_call import BoundModel, call_model
from serve_app.agent.progress import TurnProgress, reached_limit
from serve_app.agent.prompts import (
    BASIC_ANSWER,
    CUT_OFF_CALLS,
    EMPTY_REPLY,
    localize_error,
    refusal_message,
    system_prompt,
)
from serve_app.agent.tool_dispatch import ToolOutcome
from serve_app.errors import DeadlineExceeded, ModelUnavailable, RunAbandoned, StoreUnavailable, Unavailable
from serve_app.llm.error_translation import ToolsRefused
from serve_app.llm.provider_messages import CUT_CALLS, MODEL, TRUNCATED, new_call_id
from serve_app.llm.reply_reader import read_finish_reason
from serve_app.memory import Recalled, repair_messages, serialize_exchange
from serve_app.resilience.deadline import local_deadline, remaining_s
from serve_app.resilience.retry import RetryBudget
from serve_app.values import KNOWLEDGE_SEARCH, Answer, IdempotencyKey, Token, ToolResult, TurnRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from langchain_core.language_models import BaseChatModel

    from serve_app.agent.answer_cache import AnswerCache
    from serve_app.agent.progress import Step
    from serve_app.agent.tool_dispatch import ToolDispatcher
    from serve_app.config import AgentSettings
    from serve_app.memory import ConversationMemory
    from serve_app.ports import SpanKind
    from serve_app.runs.run import Run
    from serve_app.values import Reasoning

logger = logging.getLogger(__name__)

NO_TOOLS = "the model takes no tools"


@dataclass(frozen=True, slots=True)
class Turn:
    """Runs turns; one object serves all turns of a process."""

    model: BaseChatModel
    model_name: str
    tools: ToolDispatcher
    memory: ConversationMemory
    settings: AgentSettings
    cache: AnswerCache | None = None
    takes_tools: bool = True
    """False where the model takes none: then documents are searched before it is called."""

    async def run(self, run: Run) -> Answer:
        """Return the answer; a turn that was begun elsewhere goes on where its log ends.

        Raises:
            DeadlineExceeded: the request's time ran out.
            NotOurs: another process has the run, or it was ended.
            RunAbandoned: too many processes have died over it.
            RunTooLarge: the log would grow over its limit.
            Unavailable: the model, Redis or the tools' list is out of reach.
        """
        try:
            async with asyncio.timeout(remaining_s(local_deadline(run.context))):
                recalled = await self._recall(run)
                progress = self._restore_progress(run, recalled)
                try:
                    return await self._answer_or_reuse(run, progress, use_cache=recalled.complete)
                finally:
                    run.usage = progress.usage  # it is charged however the turn ends
        except Unavailable as error:
            raise localize_error(error, run.request.user_input) from error
        except TimeoutError:
            raise DeadlineExceeded("The turn did not end within its time") from None

    async def _recall(self, run: Run) -> Recalled:
        """Return what the session remembers, if there is one.

        While Redis is away the turn runs without.
        """
        if not run.context.session_id:
            return Recalled([], complete=True)
        if run.detached:
            return Recalled([], complete=False)
        try:
            return await self.memory.recall(run.context, run.lease.epoch, run.lease.memory_rows)
        except StoreUnavailable:
            return Recalled([], complete=False)

    def _restore_progress(self, run: Run, recalled: Recalled) -> TurnProgress:
        """Return where the turn stands: at its beginning, or where a dead process left it."""
        request = run.request
        instructions = request.instructions if isinstance(request, TurnRequest) else ""
        earlier = request.history if isinstance(request, TurnRequest) else ()
        progress = TurnProgress.restore(request.user_input, run.entries, self.settings.max_result_characters)
        system = SystemMessage(system_prompt(self.settings.prompt, instructions))
        progress.history = [system, *to_langchain((*earlier, *recalled.messages))]
        progress.stream = _create_stream(run)
        progress.budget = RetryBudget(self.settings.retry_budget)
        progress.span = run.span
        if not recalled.complete:
            progress.mark_memory_missing()
        self._remember_effects(run, progress)
        return progress

    async def _answer_or_reuse(self, run: Run, progress: TurnProgress, *, use_cache: bool) -> Answer:
        """Return the cached answer to the same question, or make and cache one."""
        if run.abandoned:
            raise RunAbandoned("Each process that ran this turn died")
        if self.cache is None or not use_cache:
            return await self._answer(run, progress)
        cached = await self.cache.get(run, progress)
        if isinstance(cached, Answer):
            return cached
        try:
            answer = await self._answer(run, progress)
            await self.cache.put(cached, answer, progress)
        except BaseException as error:
            self.cache.release(cached, error)
            raise
        return answer

    async def _answer(self, run: Run, progress: TurnProgress) -> Answer:
        """Think and act until there is an answer, and remember it."""
        reply = await self._think_and_act(run, progress)
        if not reply.text.strip():  # a refusal without a word
            sentence = refusal_message(run.request.user_input)
            reply = reply.model_copy(update={"content": sentence})
            if progress.stream:
                progress.stream(Token(text=sentence, restart=progress.has_text))
        progress.messages.append(reply)
        self._remember(run, progress)
        truncated = {"truncated"} if reply.response_metadata.get(TRUNCATED) else set()
        degraded = sorted(progress.lacks | truncated)
        return Answer(
            result=reply.text,
            session_id=run.context.session_id,
            status="degraded" if degraded else "success",
            run_id=run.context.run_id,
            degraded=degraded,
            citations=cite_passages(reply.text, progress.passages),
            tool_calls=progress.calls,
            usage=progress.usage,
            model=reply.response_metadata.get(MODEL, self.model_name),
            finish_reason=read_finish_reason(reply),
        )

    async def _think_and_act(self, run: Run, progress: TurnProgress) -> AIMessage:
        """Call the model and its tools by turns, until the model answers.

        At a limit it has to answer without tools.
        """
        specs = await self.tools.specs()
        known_tools = {spec.name for spec in specs}
        model, model_without_tools = self._bind(run, progress)
        if progress.step:  # a process died between the calls of a step
            await self._act(run, progress, progress.step)
        elif not self.takes_tools and not progress.steps:
            await self._search_first(run, progress)
        own_steps = 0 if self.takes_tools else progress.steps
        correction = ""
        while not (limit := reached_limit(progress, self.settings, known_tools, own_steps)):
            try:
                reply = await call_model(model, progress, correction)
            except ToolsRefused:
                limit = NO_TOOLS
                break
            if requests := tool_requests(reply):
                await self._act(run, progress, await self._begin_step(run, progress, with_calls(reply, requests)))
                correction = ""
            elif is_answer(reply):
                return reply
            else:
                progress.empty_replies += 1
                correction = CUT_OFF_CALLS if reply.response_metadata.get(CUT_CALLS) else EMPTY_REPLY
        if progress.model_calls > own_steps or limit == NO_TOOLS:
            logger.warning("run_answers_without_tools", extra={"reason": limit})
            progress.mark_forced(truncated=correction == CUT_OFF_CALLS)
        reply = with_calls(await call_model(model_without_tools, progress, BASIC_ANSWER), [])
        if not (reply.text.strip() or is_answer(reply)):
            raise ModelUnavailable("The model gave no answer")
        return reply

    def _bind(self, run: Run, progress: TurnProgress) -> tuple[BoundModel, BoundModel]:
        """Return the model with its tools, and without."""
        options: dict[str, Any] = {
            "deadline": local_deadline(run.context),
            "budget": progress.budget,
            "faults": run.context.faults,
        }
        without_tools = BoundModel(self.model, options)
        if not self.takes_tools:
            return without_tools, without_tools
        return BoundModel(self.model, {**options, "tools": self.tools.schemas}), without_tools

    async def _begin_step(self, run: Run, progress: TurnProgress, reply: AIMessage) -> Step:
        """Log the calls of a reply before any of them is made."""
        step = progress.begin_step(reply, tool_requests(reply))
        await run.record(*step.begin_events(progress.usage, progress.empty_replies))
        return step

    async def _search_first(self, run: Run, progress: TurnProgress) -> None:
        """Search the documents for the question, as a call that the service makes itself."""
        call = tool_call(id=new_call_id(), name=KNOWLEDGE_SEARCH, args={"query": run.request.user_input})
        await self._act(run, progress, await self._begin_step(run, progress, AIMessage("", tool_calls=[call])))

    async def _act(self, run: Run, progress: TurnProgress, step: Step) -> None:
        """Make all calls of a step that have not ended, side by side."""

        async def call(index: int) -> None:
            step.outcomes[index] = outcome = await self._call_tool(run, progress, step, index)
            self.tools.count(outcome)
            await run.record(step.end_event(index))

        self._remember_effects(run, progress)
        try:
            async with asyncio.TaskGroup() as group:
                for index in step.open_calls:
                    group.create_task(call(index))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        progress.finish_step()
        self._remember_effects(run, progress)

    async def _call_tool(self, run: Run, progress: TurnProgress, step: Step, index: int) -> ToolOutcome:
        """Make one call of a step, unless it must not be made."""
        request = step.requests[index]
        kind: SpanKind = "retrieval" if request.name == KNOWLEDGE_SEARCH else "tool"
        with progress.span.start_child(kind, request.name, lambda: request.arguments) as span:
            span.hide_values(self.tools.sensitive_values(request))
            if result := await self._refuse_call(run, progress, step, index):
                outcome = ToolOutcome(request, result)
            else:
                key = IdempotencyKey(f"{run.context.run_id}:{step.number}:{index}")
                context = run.context.model_copy(update={"traceparent": span.traceparent})
                outcome = await self.tools.call(context, request, key, progress.budget)
            outcome.record(span)
        return outcome

    async def _refuse_call(self, run: Run, progress: TurnProgress, step: Step, index: int) -> ToolResult | None:
        """Return the result of a call that must not be made.

        A call with an effect is journaled before it is made.
        """
        name = step.requests[index].name
        if index in malformed_calls(step.reply):
            return ToolResult.not_run(f"wrong arguments for {name}: not a JSON object")
        if len(progress.calls) + index >= self.settings.max_tool_calls:
            return ToolResult.refused(name, "this turn has made all the calls that it may")
        effect = self.tools.effect(name)
        if effect != "pure" and not run.context.effects:
            return ToolResult.refused(name, "the request's key cannot be kept now")
        if effect == "effect":
            try:
                if not await run.journal_effect(step.number, index):
                    return ToolResult.unknown(name, 1, 0)
            except StoreUnavailable:
                return ToolResult.refused(name, "its effect cannot be recorded now")
        return None

    def _remember_effects(self, run: Run, progress: TurnProgress) -> None:
        """Remember what the turn did, even if no answer comes.

        A user who asks again must not have it done again.
        """
        finished = [call.name for call in progress.calls]
        begun = [request.name for request in progress.step.requests] if progress.step else []
        if any(self.tools.effect(name) != "pure" for name in [*finished, *begun]):
            self._remember(run, progress)

    def _remember(self, run: Run, progress: TurnProgress) -> None:
        """Set what memory keeps of the turn.

        It is written with the last event of the run.
        """
        begun = [progress.step.reply] if progress.step else []
        messages, _ = repair_messages(to_memory([*progress.messages, *begun]))
        run.exchange = serialize_exchange(run.context, run.request, messages)


def is_answer(reply: AIMessage) -> bool:
    """Whether a reply ends the turn.

    It has text or is a refusal, and has no calls that were cut off.
    """
    if read_finish_reason(reply) == "content_filter":
        return True
    return bool(reply.text.strip()) and not reply.response_metadata.get(CUT_CALLS)


def _create_stream(run: Run) -> Callable[[Token | Reasoning], None] | None:
    """Return what sends text to the run's followers.

    Reasoning is sent only to a client that asked for it.
    """
    if not run.request.stream:
        return None

    def stream(piece: Token | Reasoning) -> None:
        if run.request.reasoning or isinstance(piece, Token):
            run.stream(piece)

    return stream
