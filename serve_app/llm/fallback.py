"""Several models as one: fallback > circuit breaker > retry > time-out > call.

What a reply says of it stands in its `response_metadata`: keys of our own, because a provider's may have any name, and
in one chunk of a stream only, because LangChain adds up what stands in several.
"""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field, InstanceOf, SkipValidation

from serve_app.config import FallbackOn  # noqa: TC001 - pydantic reads the annotations
from serve_app.errors import ModelUnavailable, ServeAppError
from serve_app.llm.error_translation import (
    CUT_OFF,
    FILTERED,
    ContentFiltered,
    ContextOverflow,
    KeyRefused,
    ModelTooSlow,
    QuotaSpent,
    ReplyCutOff,
    RequestRefused,
)
from serve_app.llm.message_keys import FALLBACK, FINISH, MODEL, RESTART, TRUNCATED
from serve_app.llm.provider_messages import strip_tool_messages
from serve_app.llm.telemetry import measure_call, split_model_name, to_openai_messages, trace_call
from serve_app.llm.tool_schema import adapt_schema
from serve_app.observability.metric_catalogue import MODEL_FALLBACKS, MODEL_RETRIES
from serve_app.observability.null import NULL_METRICS, NULL_SPAN
from serve_app.ports import Metrics
from serve_app.resilience.deadline import remaining_s
from serve_app.values import DependencyCheck

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable, RunnableBinding
    from langchain_core.tools import BaseTool

    from serve_app.llm.guarded import GuardedModel
    from serve_app.llm.telemetry import CallRecord
    from serve_app.llm.tool_schema import Dialect
    from serve_app.ports import Metrics, Span, SpanContent
    from serve_app.resilience.circuit_breaker import GuardedCalls
    from serve_app.resilience.retry import RetryBudget


class FallbackModel(BaseChatModel):
    """A chat model that tries several models in order until one answers.

    Calls share no state but the circuit breakers. Options of one call:
        deadline: Unix time in seconds by which the call ends.
        budget: the retries that the request may use.
        restarts: a stream that breaks goes on with another attempt, whose first chunk is marked `RESTART`. Without it
            the break is an error, as everywhere in LangChain.
        on_discarded: a function that takes each whole reply that is not used because another model shall answer.
        span: each attempt is recorded as a child of it.

    A provider that refuses what the conversation says gives a reply all the same: without text, its `FINISH` is
    `content_filter`. A call raises:
        ContextOverflow: the conversation is longer than the models read.
        DeadlineExceeded: the deadline has come.
        ModelUnavailable: no model answered; `retry_after_s` is the shortest that any of them named.
    """

    candidates: tuple[InstanceOf[ModelCandidate], ...]
    attempts: int
    fallback_on: frozenset[FallbackOn] = frozenset()
    """Which whole replies the next model is asked for, too."""
    metrics: SkipValidation[Metrics] = Field(default=NULL_METRICS, repr=False, exclude=True)

    @property
    def circuits(self) -> dict[str, GuardedCalls]:
        """The breaker of each model."""
        return {f"model:{candidate.name}": candidate.circuit for candidate in self.candidates}

    @property
    def _llm_type(self) -> str:
        return "chain"

    def checks(self) -> list[DependencyCheck]:
        """Whether each model is asked now; none is required while another one is."""
        answerable = any(candidate.circuit.admits and not candidate.problem for candidate in self.candidates)
        return [_candidate_check(candidate, required=not answerable) for candidate in self.candidates]

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """As they are: each model binds them in its provider's form when it is asked."""
        chosen = {"tool_choice": tool_choice} if tool_choice else {}
        return self.bind(tools=list(tools), **chosen, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError("a chain is asked asynchronously: a blocking call cannot be ended in time")

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        *,
        deadline: float | None = None,
        budget: RetryBudget | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        span, on_discarded = kwargs.pop("span", NULL_SPAN), kwargs.pop("on_discarded", None)
        attempts = ModelAttempts(
            self.candidates, self.attempts, deadline, budget, self.metrics, span, partial(to_openai_messages, messages)
        )
        async for candidate, attempt in attempts:
            with attempt as record:
                sent, given = _bind_options(candidate, messages, kwargs)
                result = await candidate.model._agenerate(sent, stop, run_manager, deadline=deadline, **given)  # noqa: SLF001 - see Guarded
                for generation in result.generations:
                    record.add(generation.message)
                    self._judge(generation.message, attempts)
                    self._mark(generation.message, candidate)
                return result
            if on_discarded:
                for message in record.messages:
                    on_discarded(message)
            if attempts.filtered and not self._falls_back("refusal", attempts):
                break
        return ChatResult(generations=[ChatGeneration(message=self._refusal(attempts))])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002 - `astream` reports what this yields
        *,
        deadline: float | None = None,
        budget: RetryBudget | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        restarts, begun = kwargs.pop("restarts", False), False
        span = kwargs.pop("span", NULL_SPAN)
        attempts = ModelAttempts(
            self.candidates, self.attempts, deadline, budget, self.metrics, span, partial(to_openai_messages, messages)
        )
        async for candidate, attempt in attempts:
            with attempt as record:
                sent, given = _bind_options(candidate, messages, kwargs)
                stream = candidate.model._astream(sent, stop, deadline=deadline, **given)  # noqa: SLF001
                async with aclosing(cast("AsyncGenerator[ChatGenerationChunk]", stream)) as chunks:
                    fresh = True
                    async for chunk in chunks:
                        record.add(chunk.message)
                        self._judge(chunk.message, attempts)
                        if fresh:
                            self._mark(chunk.message, candidate, restart=begun)
                        fresh, begun = False, True
                        yield chunk
                return
            if (begun and not restarts) or (attempts.filtered and not self._falls_back("refusal", attempts)):
                break
        if begun and not restarts:
            raise attempts.failure
        refusal = self._refusal(attempts)
        if begun:
            refusal.response_metadata[RESTART] = True
        yield ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata=refusal.response_metadata))

    def _judge(self, message: BaseMessage, attempts: ModelAttempts) -> None:
        """Go on to the next model where the settings name the reply's end, or it was cut off before it said anything.

        Raises:
            ContentFiltered: the reply is a refusal.
            ReplyCutOff: the reply was cut off at a limit.
        """
        finish = message.response_metadata.get(FINISH)
        if finish == "content_filter" and self._falls_back("refusal", attempts):
            raise ContentFiltered(FILTERED)
        metadata = message.response_metadata
        useless = TRUNCATED not in metadata and attempts.another
        if finish == "length" and (useless or self._falls_back("length", attempts)):
            raise ReplyCutOff(CUT_OFF)

    def _falls_back(self, kind: FallbackOn, attempts: ModelAttempts) -> bool:
        return kind in self.fallback_on and attempts.another

    def _refusal(self, attempts: ModelAttempts) -> AIMessage:
        """The reply of a provider that refused with an error.

        Raises:
            ServeAppError: the call failed otherwise.
        """
        if not attempts.refused:
            raise attempts.failure
        candidate = self.candidates[0]
        return AIMessage("", response_metadata={FINISH: "content_filter", MODEL: candidate.name})

    def _mark(self, message: BaseMessage, candidate: ModelCandidate, *, restart: bool = False) -> None:
        marks = {MODEL: candidate.name, FALLBACK: candidate is not self.candidates[0], RESTART: restart}
        message.response_metadata = {**message.response_metadata, **{key: mark for key, mark in marks.items() if mark}}


def _bind_options(
    candidate: ModelCandidate, messages: list[BaseMessage], kwargs: dict[str, Any]
) -> tuple[list[BaseMessage], dict[str, Any]]:
    """The conversation and the call's options in the form of one model and its provider."""
    others = dict(kwargs)
    tools = others.pop("tools", None)
    if not candidate.takes_tools:
        others.pop("tool_choice", None)
        return strip_tool_messages(messages), others
    if not tools:
        return messages, others
    adapted = [_adapt_tool(tool, candidate) for tool in tools]
    bound = cast("RunnableBinding[Any, Any]", candidate.model.bind_tools(adapted, **others))
    return messages, dict(bound.kwargs)


def _adapt_tool(tool: Any, candidate: ModelCandidate) -> Any:
    """A tool with the schema that the provider takes."""
    if not (isinstance(tool, dict) and isinstance(tool.get("function"), dict)):
        return tool
    function = tool["function"]
    parameters = adapt_schema(function.get("parameters") or {}, candidate.dialect)
    return {**tool, "function": {**function, "parameters": parameters}}


def _candidate_check(candidate: ModelCandidate, *, required: bool) -> DependencyCheck:
    name = f"model:{candidate.name}"
    if candidate.problem:
        return DependencyCheck(name=name, ok=False, reason=candidate.problem, required=required)
    if candidate.circuit.admits:
        return DependencyCheck(name=name, ok=True, required=required)
    reason = f"It has failed again and again, and is left alone for {math.ceil(candidate.circuit.retry_after_s)} s"
    return DependencyCheck(name=name, ok=False, reason=reason, required=required)


logger = logging.getLogger(__name__)

WAIT_MIN_S, WAIT_MAX_S = 0.5, 4.0


@dataclass(slots=True)
class ModelCandidate:
    """One model of a chain, behind the circuit breaker that has its name."""

    model: GuardedModel
    circuit: GuardedCalls
    context_tokens: int | None = None
    """How much it reads, where the settings say so."""
    takes_tools: bool = True
    dialect: Dialect = "full"
    """The form of tool schemas that its provider takes."""
    key_env: str = ""
    """The environment variable that holds its key."""
    problem: str | None = None
    """Why the operator has to do something before it answers again; found by the latest call."""

    def note(self, error: ServeAppError | None) -> None:
        """Take in how a call ended, as far as only the operator can change it."""
        variable = self.key_env or "its environment variable"
        problem = None
        if isinstance(error, KeyRefused):
            problem = f"Its provider does not accept the key in {variable}: set a valid one and deploy again"
        elif isinstance(error, QuotaSpent):
            problem = f"Its provider says that the account of the key in {variable} has no quota left"
        if problem and problem != self.problem:
            logger.error("model_needs_operator", extra={"model": self.name, "problem": problem})
        self.problem = problem

    @property
    def name(self) -> str:
        return self.circuit.name


@dataclass(slots=True)
class ModelAttempts:
    """The attempts of one call, each a model and the block in which it is asked; who iterates stops at an answer."""

    candidates: Sequence[ModelCandidate]
    attempts: int
    deadline: float | None
    """Unix time in seconds."""
    budget: RetryBudget | None
    """The request's retries; attempt the next model is none."""
    metrics: Metrics
    span: Span = NULL_SPAN
    """What is recorded of the call; each try is a part of it."""
    given: SpanContent | None = None
    """Tells what the models are asked with."""
    _place: int = 0
    """Of the model that is being asked."""
    _made: int = 0
    """Tries of this model."""
    _failed: dict[int, ServeAppError] = field(default_factory=dict)
    """The latest failure of each model, by its place."""

    def __aiter__(self) -> ModelAttempts:
        return self

    async def __anext__(self) -> tuple[ModelCandidate, AbstractContextManager[CallRecord]]:
        """The next try, after the pause before it."""
        if self._made:
            pause_s = self._pause_s()
            if pause_s is None:
                self._switch()
            else:
                await asyncio.sleep(pause_s)
                self.metrics.count(MODEL_RETRIES, model=self.candidates[self._place].name)
        while self._place < len(self.candidates):
            candidate = self.candidates[self._place]
            if candidate.circuit.admits:
                self._made += 1
                return candidate, self._attempt(candidate)
            self._failed.setdefault(self._place, candidate.circuit.make_refusal(ModelUnavailable))
            self._switch()
        raise StopAsyncIteration

    @property
    def failure(self) -> ServeAppError:
        """What the call failed with: as the first model did, and when to come back to any of them."""
        first, everything = self._failed[0], self._failed.values()
        overflow = next((each for each in everything if isinstance(each, ContextOverflow)), None)
        if overflow or not any(each.retryable for each in everything):
            return overflow or first
        to_openai_messages = [each.retry_after_s for each in everything if each.retry_after_s is not None]
        return ModelUnavailable(first.message, min(to_openai_messages, default=None))

    @property
    def filtered(self) -> bool:
        """Whether the latest model refused what the conversation says."""
        return isinstance(self._failed.get(self._place), ContentFiltered)

    @property
    def refused(self) -> bool:
        """Whether any model refused what the conversation says."""
        return any(isinstance(each, ContentFiltered) for each in self._failed.values())

    @contextmanager
    def _attempt(self, candidate: ModelCandidate) -> Iterator[CallRecord]:
        """The block asks the model, which its breaker admits now; a failure is noted and goes no further.

        Raises:
            DeadlineExceeded: the request's time ran out.
        """
        try:
            with candidate.circuit.guard(ModelUnavailable, (ModelUnavailable,)):
                try:
                    provider, model = split_model_name(candidate.name)
                    call = self.span.start_child("model", model, self.given)
                    with measure_call(self.metrics, candidate.name) as record, trace_call(call, record) as span:
                        span.set_attributes(
                            provider=provider, model=model, attempt=self._made, fallback=self._place > 0
                        )
                        yield record
                    candidate.note(None)
                    if self._place:
                        self.metrics.count(MODEL_FALLBACKS, model=candidate.name)
                except (ContextOverflow, RequestRefused, KeyRefused, QuotaSpent) as error:  # no outage of the model
                    candidate.note(error)
                    self._failed[self._place] = error
        except ModelUnavailable as error:
            self._failed[self._place] = error

    def _pause_s(self) -> float | None:
        """Seconds until the model that has just failed is tried once more; None where it is not."""
        error = self._failed[self._place]
        if self._made == self.attempts or not error.retryable or not self.candidates[self._place].circuit.admits:
            return None
        growing_s = min(WAIT_MIN_S * 2 ** (self._made - 1), WAIT_MAX_S)
        pause_s = growing_s if error.retry_after_s is None else error.retry_after_s
        if self.another and (isinstance(error, ModelTooSlow) or pause_s > WAIT_MAX_S):
            return None
        if self.deadline is not None and pause_s >= remaining_s(self.deadline):
            return None
        return pause_s if self.budget is None or self.budget.take() else None

    @property
    def another(self) -> bool:
        """Whether a later model would take a call now."""
        return any(candidate.circuit.admits for candidate in self.candidates[self._place + 1 :])

    def _switch(self) -> None:
        """Go on to the next model; after an overflow, to the next that may read more."""
        error, name = self._failed[self._place], self.candidates[self._place].name
        reads = self.candidates[self._place].context_tokens
        self._place += 1
        self._made = 0
        if isinstance(error, ContextOverflow) and reads:
            while (
                self._place < len(self.candidates)
                and (self.candidates[self._place].context_tokens or reads + 1) <= reads
            ):
                self._place += 1
        if self._place < len(self.candidates):
            logger.warning(
                "model_switched",
                extra={"model": self.candidates[self._place].name, "after": name, "error": error.message},
            )
