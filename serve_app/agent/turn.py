"""One turn, from the user's message to the answer."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, SystemMessage
from langchain_core.messages.tool import tool_call

from serve_app.agent.context_overflow import with_shorter_result, without_oldest
from serve_app.agent.guardrails import BASIC, CUT, EMPTY, forced, told
from serve_app.agent.localization import in_the_language_of, refusal, status
from serve_app.agent.messages import earlier, exchange, kept, malformed, requests_of, with_calls
from serve_app.agent.model_call import ask, for_model
from serve_app.agent.progress import TurnProgress
from serve_app.agent.prompts import KNOWLEDGE_SEARCH, citations, system
from serve_app.agent.recording import record
from serve_app.agent.tool_dispatch import ToolOutcome
from serve_app.errors import DeadlineExceeded, ModelUnavailable, RunAbandoned, StoreUnavailable, Unavailable
from serve_app.llm.error_translation import ContextOverflow, ToolsRefused
from serve_app.llm.message_keys import CUT_CALLS, MODEL, TRUNCATED
from serve_app.llm.provider_messages import new_call_id
from serve_app.llm.reply_reader import read_finish_reason
from serve_app.memory.conversation import Recalled
from serve_app.memory.repair import repaired
from serve_app.resilience.deadline import local_deadline, remaining_s
from serve_app.resilience.retry import RetryBudget
from serve_app.values import Answer, IdempotencyKey, Token, ToolResult, TurnRequest

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

    from serve_app.agent.answer_cache import AnswerCache
    from serve_app.agent.model_call import Say
    from serve_app.agent.progress import Step
    from serve_app.agent.tool_dispatch import ToolDispatcher
    from serve_app.config import AgentSettings
    from serve_app.memory.conversation import ConversationMemory
    from serve_app.ports import Span, SpanKind
    from serve_app.runs.run import Run
    from serve_app.values import Reasoning

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Turn:
    """Runs turns; one object serves all of them."""

    model: BaseChatModel
    model_name: str
    tools: ToolDispatcher
    memory: ConversationMemory
    settings: AgentSettings
    cache: AnswerCache | None = None
    takes_tools: bool = True
    """False where the model takes none: then documents are searched before it is asked."""

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
            async with asyncio.timeout(remaining_s(local_deadline(run.context))):
                return await self._answer(run)
        except Unavailable as error:
            raise in_the_language_of(run.request.user_input, error) from error
        except TimeoutError:
            raise DeadlineExceeded("The turn did not end within its time") from None

    async def _answer(self, run: Run) -> Answer:
        memory = await self._recalled(run)
        progress = TurnProgress.of(run.request.user_input, run.entries, self.settings.max_result_characters)
        progress.budget = RetryBudget(self.settings.retry_budget)
        progress.span = run.span
        self._keep_effects(run, progress)
        try:
            return await self._concluded(run, progress, memory)
        finally:
            run.usage = progress.usage  # it is charged however the turn ends

    async def _concluded(self, run: Run, progress: TurnProgress, memory: Recalled) -> Answer:
        """The answer that the turn comes to from here."""
        if run.abandoned:
            raise RunAbandoned("Each process that ran this turn died")
        prompt = system(self.settings.prompt, run.request.instructions if isinstance(run.request, TurnRequest) else "")
        history = [SystemMessage(prompt), *earlier(run.request, memory.exchanges)]
        make = partial(self._made, run, memory, history, progress)
        if self.cache is None or not memory.whole:
            return await make()
        return await self.cache.answer(run, history, progress, make)

    async def _made(self, run: Run, memory: Recalled, history: list[BaseMessage], progress: TurnProgress) -> Answer:
        reply = await self._think(run, history, progress)
        if not reply.text.strip():  # a refusal without a word
            sentence = refusal(run.request.user_input)
            reply = reply.model_copy(update={"content": sentence})
            if run.request.stream:
                run.say(Token(text=sentence, restart=progress.said))
        progress.messages.append(reply)
        result = reply.text
        run.exchange = _exchange(run, progress)
        lacking = {part for part in progress.missing.values() if part}
        lacking |= {"truncated"} if reply.response_metadata.get(TRUNCATED) else set()
        degraded = sorted(lacking if memory.whole else lacking | {"memory"})
        return Answer(
            result=result,
            session_id=run.context.session_id,
            status=status(degraded),
            run_id=run.context.run_id,
            degraded=degraded,
            citations=citations(result, progress.passages),
            tool_calls=progress.calls,
            usage=progress.usage,
            model=reply.response_metadata.get(MODEL, self.model_name),
            finish_reason=read_finish_reason(reply),
        )

    async def _recalled(self, run: Run) -> Recalled:
        """What the session remembers, if there is one; while Redis is away the turn runs without."""
        if not run.context.session_id:
            return Recalled([], whole=True)
        if run.detached:
            return Recalled([], whole=False)
        try:
            return await self.memory.recall(run.context, run.held.epoch, run.held.remembered)
        except StoreUnavailable:
            return Recalled([], whole=False)

    async def _think(self, run: Run, history: list[BaseMessage], progress: TurnProgress) -> AIMessage:
        """Model and tools by turns, until the model answers, or has to answer without tools."""
        specs = await self.tools.specs()
        context = run.context
        terms: dict[str, Any] = {
            "deadline": local_deadline(context),
            "budget": progress.budget,
            "faults": context.faults,
        }
        unbound = self.model.bind(**terms)
        bound = self.model.bind_tools([for_model(spec) for spec in specs], **terms) if self.takes_tools else unbound
        read = _Read(history, _say(run))
        if progress.step:
            await self._act(run, progress, progress.step)
        elif not self.takes_tools and not progress.steps:
            await self._search_first(run, progress)
        sentence = ""
        own_steps = 0 if self.takes_tools else progress.steps
        while not (why := forced(progress, self.settings, {spec.name for spec in specs}, own_steps)):
            try:
                reply = await self._ask(bound, read, progress, sentence)
            except ToolsRefused:
                why = "the model takes no tools"
                break
            requests = requests_of(reply)
            sentence = ""
            if requests:
                step = progress.begin(with_calls(reply, requests), requests)
                await run.record(*step.begun(progress.usage, progress.empty))
                await self._act(run, progress, step)
            elif is_answer(reply):
                return reply
            else:
                progress.empty += 1
                sentence = CUT if reply.response_metadata.get(CUT_CALLS) else EMPTY
        if progress.asked > own_steps or why == "the model takes no tools":
            logger.warning("run_answers_without_tools", extra={"reason": why})
            progress.force(truncated=sentence == CUT)
        reply = with_calls(await self._ask(unbound, read, progress, BASIC), [])
        if not (reply.text.strip() or is_answer(reply)):
            raise ModelUnavailable("The model gave no answer")
        return reply

    async def _ask(self, model: Any, read: _Read, progress: TurnProgress, sentence: str) -> AIMessage:
        """One model step; a conversation that is too long is shortened until the model reads it.

        Raises:
            ContextOverflow: nothing is left to shorten.
        """
        while True:
            history = told(read.history, sentence) if sentence else read.history
            try:
                return await ask(model, [*history, *progress.messages], progress, read.say)
            except ContextOverflow:
                if (less := without_oldest(read.history)) is not None:
                    read.history = less
                elif (shorter := with_shorter_result(progress.messages)) is not None:
                    progress.messages = shorter
                else:
                    raise
                logger.warning("conversation_shortened", extra={"messages": len(read.history)})
                progress.missing["memory"] = "memory"

    async def _search_first(self, run: Run, progress: TurnProgress) -> None:
        """Search the documents for the question, as a call that the service makes itself."""
        call = tool_call(id=new_call_id(), name=KNOWLEDGE_SEARCH, args={"query": run.request.user_input})
        reply = AIMessage("", tool_calls=[call])
        step = progress.begin(reply, requests_of(reply))
        await run.record(*step.begun(progress.usage, progress.empty))
        await self._act(run, progress, step)

    async def _act(self, run: Run, progress: TurnProgress, step: Step) -> None:
        """All calls of one step that have not ended, side by side."""

        async def call(index: int) -> None:
            step.outcomes[index] = outcome = await self._outcome(run, progress, step, index)
            self.tools.count(outcome)
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

    def _keep_effects(self, run: Run, progress: TurnProgress) -> None:
        """What a turn did is remembered even if no answer comes: a user who asks again must not have it done again."""
        made = [call.name for call in progress.calls]
        begun = [request.name for request in progress.step.requests] if progress.step else []
        if any(self.tools.effect(name) != "pure" for name in [*made, *begun]):
            run.exchange = _exchange(run, progress)

    async def _outcome(self, run: Run, progress: TurnProgress, step: Step, index: int) -> ToolOutcome:
        request = step.requests[index]
        kind: SpanKind = "retrieval" if request.name == KNOWLEDGE_SEARCH else "tool"
        with progress.span.start_child(kind, request.name, lambda: request.arguments) as span:
            span.hide_values(self.tools.hidden(request))
            outcome = await self._brought(run, progress, step, index, span)
            record(outcome, span)
        return outcome

    async def _brought(self, run: Run, progress: TurnProgress, step: Step, index: int, span: Span) -> ToolOutcome:
        """What one call brings; a call with an effect is made by one process only, after it has said so."""
        request = step.requests[index]
        if index in malformed(step.reply):
            return ToolOutcome(request, ToolResult.not_run(f"wrong arguments for {request.name}: not a JSON object"))
        if len(progress.calls) + index >= self.settings.max_tool_calls:
            return ToolOutcome(
                request, ToolResult.refused(request.name, "this turn has made all the calls that it may")
            )
        effect = self.tools.effect(request.name)
        if effect != "pure" and not run.context.effects:
            return ToolOutcome(request, ToolResult.refused(request.name, "the request's key cannot be kept now"))
        if effect == "effect":
            try:
                if not await run.reserve(step.number, index):
                    return ToolOutcome(request, ToolResult.unknown(request.name, 1, 0))
            except StoreUnavailable:
                return ToolOutcome(request, ToolResult.refused(request.name, "its effect cannot be recorded now"))
        key = IdempotencyKey(f"{run.context.run_id}:{step.number}:{index}")
        context = run.context.model_copy(update={"traceparent": span.traceparent})
        return await self.tools.call(context, request, key, progress.budget)


@dataclass(slots=True)
class _Read:
    """What a turn's model reads before the turn, and where its text goes as it comes."""

    history: list[BaseMessage]
    say: Say | None


def _say(run: Run) -> Say | None:
    """Sends text to the run's followers; thinking only to a client that asked for it."""
    if not run.request.stream:
        return None

    def say(piece: Token | Reasoning) -> None:
        if run.request.reasoning or isinstance(piece, Token):
            run.say(piece)

    return say


def is_answer(reply: AIMessage) -> bool:
    """Whether a reply ends the turn: it says something, or it is a refusal; not the beginning of calls cut off."""
    if read_finish_reason(reply) == "content_filter":
        return True
    return bool(reply.text.strip()) and not reply.response_metadata.get(CUT_CALLS)


def _exchange(run: Run, progress: TurnProgress) -> str:
    """The turn as memory keeps it, as far as it is."""
    messages, _ = repaired(kept([*progress.messages, *([progress.step.reply] if progress.step else [])]))
    return exchange(run, messages)
