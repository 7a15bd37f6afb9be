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
from serve_app.llm.guarded import AsyncChatModel
from serve_app.llm.provider_messages import FALLBACK, FINISH, MODEL, RESTART, TRUNCATED, strip_tool_messages
from serve_app.llm.telemetry import measure_call, split_model_name, to_openai_messages, trace_call
from serve_app.llm.tool_schema import adapt_schema
from serve_app.observability.metric_catalogue import MODEL_FALLBACKS, MODEL_RETRIES
from serve_app.observability.metrics import NULL_METRICS
from serve_app.observability.spans import NULL_SPAN
from serve_app.ports import Metrics
from serve_app.resilience.deadline import remaining_s
from serve_app.resilience.retry import backoff_s
from serve_app.values import DependencyCheck

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
    from contextlib import AbstractContextManager

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import RunnableBinding

    from serve_app.llm.guarded import GuardedModel
    from serve_app.llm.telemetry import CallRecord
    from serve_app.llm.tool_schema import Dialect
    from serve_app.ports import Metrics, Span, SpanContent
    from serve_app.resilience.circuit_breaker import GuardedCalls
    from serve_app.resilience.retry import RetryBudget


logger = logging.getLogger(__name__)

OWN_OPTIONS = frozenset({"faults", "nonempty"})
"""Options of `GuardedModel`, which no provider reads."""
WAIT_MIN_S, WAIT_MAX_S = 0.5, 4.0
"""Between two attempts of one model, where its provider names no time."""


class FallbackModel(AsyncChatModel):
    """A chat model that tries several models in order until one answers.

    Calls share no state but the circuit breakers. Options of one call:
        deadline: Unix time in seconds by which the call ends.
        budget: the retries that the request may use.
        restarts: a stream that breaks goes on with another attempt, whose first chunk is marked `RESTART`. Without it
            the break is an error, as everywhere in LangChain.
        on_discarded: a function that takes each whole reply that is not used because another model shall answer.
        span: each attempt is recorded as a child of it.

    If a provider refuses the content of the conversation, the reply has no text and its `FINISH` is `content_filter`.
    A call raises:
        ContextOverflow: the conversation is longer than any model reads.
        DeadlineExceeded: the deadline has come.
        ModelUnavailable: no model answered; `retry_after_s` is the shortest that a provider gave.
    """

    candidates: tuple[InstanceOf[ModelCandidate], ...]
    attempts: int
    fallback_on: frozenset[FallbackOn] = frozenset()
    """Ends of a whole reply after which the next model is called too."""
    metrics: SkipValidation[Metrics] = Field(default=NULL_METRICS, repr=False, exclude=True)

    @property
    def circuits(self) -> dict[str, GuardedCalls]:
        """The circuit breaker of each model."""
        return {f"model:{candidate.name}": candidate.circuit for candidate in self.candidates}

    @property
    def _llm_type(self) -> str:
        return "fallback"

    def checks(self) -> list[DependencyCheck]:
        """Return whether each model takes calls now; none is required while another one does."""
        answerable = any(candidate.circuit.admits and not candidate.problem for candidate in self.candidates)
        return [_check_candidate(candidate, required=not answerable) for candidate in self.candidates]

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
                result = await candidate.model._agenerate(sent, stop, run_manager, deadline=deadline, **given)  # noqa: SLF001 - see GuardedModel
                for generation in result.generations:
                    record.add(generation.message)
                    self._check_end(generation.message, attempts)
                    self._mark(generation.message, candidate)
                return result
            if on_discarded:
                for message in record.messages:
                    on_discarded(message)
            if attempts.filtered and not self._falls_back("refusal", attempts):
                break
        return ChatResult(generations=[ChatGeneration(message=self._make_refusal(attempts))])

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
                        self._check_end(chunk.message, attempts)
                        if fresh:
                            self._mark(chunk.message, candidate, restart=begun)
                        fresh, begun = False, True
                        yield chunk
                return
            if (begun and not restarts) or (attempts.filtered and not self._falls_back("refusal", attempts)):
                break
        if begun and not restarts:
            raise attempts.failure
        refusal = self._make_refusal(attempts)
        if begun:
            refusal.response_metadata[RESTART] = True
        yield ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata=refusal.response_metadata))

    def _check_end(self, message: BaseMessage, attempts: ModelAttempts) -> None:
        """Reject a reply whose end makes the next model be called.

        Raises:
            ContentFiltered: the reply is a refusal.
            ReplyCutOff: the reply was cut off at a limit, without any text or where `fallback_on` has `length`.
        """
        finish = message.response_metadata.get(FINISH)
        if finish == "content_filter" and self._falls_back("refusal", attempts):
            raise ContentFiltered(FILTERED)
        metadata = message.response_metadata
        is_useless = TRUNCATED not in metadata and attempts.has_next
        if finish == "length" and (is_useless or self._falls_back("length", attempts)):
            raise ReplyCutOff(CUT_OFF)

    def _falls_back(self, kind: FallbackOn, attempts: ModelAttempts) -> bool:
        return kind in self.fallback_on and attempts.has_next

    def _make_refusal(self, attempts: ModelAttempts) -> AIMessage:
        """Return the reply for a provider that refused the content with an error.

        Raises:
            ServeAppError: the call failed for another reason.
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
    """Return conversation and options of a call in the form of one model."""
    others = dict(kwargs)
    tools = others.pop("tools", None)
    if not candidate.takes_tools:
        others.pop("tool_choice", None)
        return strip_tool_messages(messages), others
    return messages, candidate.bind_tools(tools, others) if tools else others


def _adapt_tool(tool: Any, dialect: Dialect) -> Any:
    """Return a tool with the schema dialect of the provider."""
    if not (isinstance(tool, dict) and isinstance(tool.get("function"), dict)):
        return tool
    function = tool["function"]
    parameters = adapt_schema(function.get("parameters") or {}, dialect)
    return {**tool, "function": {**function, "parameters": parameters}}


def _check_candidate(candidate: ModelCandidate, *, required: bool) -> DependencyCheck:
    name = f"model:{candidate.name}"
    if candidate.problem:
        return DependencyCheck(name=name, ok=False, reason=candidate.problem, required=required)
    if candidate.circuit.admits:
        return DependencyCheck(name=name, ok=True, required=required)
    reason = f"It failed repeatedly; its circuit breaker stays open for {math.ceil(candidate.circuit.retry_after_s)} s"
    return DependencyCheck(name=name, ok=False, reason=reason, required=required)


@dataclass(slots=True)
class ModelCandidate:
    """One of several models, with its circuit breaker."""

    model: GuardedModel
    circuit: GuardedCalls
    context_tokens: int | None = None
    """The most that it reads; None where the settings do not say."""
    takes_tools: bool = True
    dialect: Dialect = "full"
    """The dialect of JSON Schema that its provider takes for tools."""
    key_env: str = ""
    """The environment variable that holds its key."""
    problem: str | None = None
    """What the operator has to repair before the model answers again, as of the latest call."""
    _latest_tools: tuple[list[Any], dict[str, Any]] = field(default=([], {}), repr=False)
    """The tools of the latest call, and the options that they became."""

    def bind_tools(self, tools: list[Any], options: dict[str, Any]) -> dict[str, Any]:
        """Return the options of a call with these tools, in the form of the model.

        To adapt a tool costs 0.3 ms, so a list that comes again, as the same object, is not adapted again.
        """
        if not options.keys() <= OWN_OPTIONS:  # the model's class may give others another form, too
            return self._adapt_tools(tools, options)
        if self._latest_tools[0] is not tools:
            self._latest_tools = tools, self._adapt_tools(tools, {})
        return {**self._latest_tools[1], **options}

    def _adapt_tools(self, tools: list[Any], options: dict[str, Any]) -> dict[str, Any]:
        adapted = [_adapt_tool(tool, self.dialect) for tool in tools]
        return dict(cast("RunnableBinding[Any, Any]", self.model.bind_tools(adapted, **options)).kwargs)

    def record_outcome(self, error: ServeAppError | None) -> None:
        """Record whether a call failed for a reason that only the operator can remove."""
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
    """Iterates over the attempts of one call until the caller has an answer.

    Each attempt is a model and the context manager in which to call it.
    """

    candidates: Sequence[ModelCandidate]
    attempts: int
    deadline: float | None
    """Unix time in seconds."""
    budget: RetryBudget | None
    """The retries left to the request; a call of the next model is no retry."""
    metrics: Metrics
    span: Span = NULL_SPAN
    """The trace span of the call; each attempt is a child."""
    content: SpanContent | None = None
    """Returns the input of the model for the trace."""
    _index: int = 0
    """Of the model that is called."""
    _count: int = 0
    """Attempts of this model so far."""
    _failures: dict[int, ServeAppError] = field(default_factory=dict)
    """The latest failure of each model, by its index."""

    def __aiter__(self) -> ModelAttempts:
        return self

    async def __anext__(self) -> tuple[ModelCandidate, AbstractContextManager[CallRecord]]:
        """Wait before a retry, and return the next attempt."""
        if self._count:
            pause_s = self._pause_s()
            if pause_s is None:
                self._switch()
            else:
                await asyncio.sleep(pause_s)
                self.metrics.count(MODEL_RETRIES, model=self.candidates[self._index].name)
        while self._index < len(self.candidates):
            candidate = self.candidates[self._index]
            if candidate.circuit.admits:
                self._count += 1
                return candidate, self._attempt(candidate)
            self._failures.setdefault(self._index, candidate.circuit.make_refusal(ModelUnavailable))
            self._switch()
        raise StopAsyncIteration

    @property
    def failure(self) -> ServeAppError:
        """The failure of the first model, with the shortest `retry_after_s` of all models."""
        first, everything = self._failures[0], self._failures.values()
        overflow = next((each for each in everything if isinstance(each, ContextOverflow)), None)
        if overflow or not any(each.retryable for each in everything):
            return overflow or first
        waits_s = [each.retry_after_s for each in everything if each.retry_after_s is not None]
        return ModelUnavailable(first.message, min(waits_s, default=None))

    @property
    def filtered(self) -> bool:
        """Whether the latest model refused the content of the conversation."""
        return isinstance(self._failures.get(self._index), ContentFiltered)

    @property
    def refused(self) -> bool:
        """Whether any model refused the content of the conversation."""
        return any(isinstance(each, ContentFiltered) for each in self._failures.values())

    @contextmanager
    def _attempt(self, candidate: ModelCandidate) -> Iterator[CallRecord]:
        """Measure and trace the call in the block; record its failure instead of raising it.

        Raises:
            DeadlineExceeded: the request's time ran out.
        """
        try:
            with candidate.circuit.guard(ModelUnavailable, (ModelUnavailable,)):
                try:
                    provider, model = split_model_name(candidate.name)
                    call = self.span.start_child("model", model, self.content)
                    with measure_call(self.metrics, candidate.name) as record, trace_call(call, record) as span:
                        span.set_attributes(
                            provider=provider, model=model, attempt=self._count, fallback=self._index > 0
                        )
                        yield record
                    candidate.record_outcome(None)
                    if self._index:
                        self.metrics.count(MODEL_FALLBACKS, model=candidate.name)
                except (ContextOverflow, RequestRefused, KeyRefused, QuotaSpent) as error:  # no outage of the model
                    candidate.record_outcome(error)
                    self._failures[self._index] = error
        except ModelUnavailable as error:
            self._failures[self._index] = error

    def _pause_s(self) -> float | None:
        """Return the seconds before the failed model is called again; None for no retry."""
        error = self._failures[self._index]
        if self._count == self.attempts or not error.retryable or not self.candidates[self._index].circuit.admits:
            return None
        growing_s = backoff_s(self._count, WAIT_MIN_S, WAIT_MAX_S)
        pause_s = growing_s if error.retry_after_s is None else error.retry_after_s
        if self.has_next and (isinstance(error, ModelTooSlow) or pause_s > WAIT_MAX_S):
            return None
        if self.deadline is not None and pause_s >= remaining_s(self.deadline):
            return None
        return pause_s if self.budget is None or self.budget.take() else None

    @property
    def has_next(self) -> bool:
        """Whether the circuit breaker of a later model admits a call now."""
        return any(candidate.circuit.admits for candidate in self.candidates[self._index + 1 :])

    def _switch(self) -> None:
        """Switch to the next model; after an overflow, to the next that may read more."""
        error, name = self._failures[self._index], self.candidates[self._index].name
        reads = self.candidates[self._index].context_tokens
        self._index += 1
        self._count = 0
        if isinstance(error, ContextOverflow) and reads:
            while (
                self._index < len(self.candidates)
                and (self.candidates[self._index].context_tokens or reads + 1) <= reads
            ):
                self._index += 1
        if self._index < len(self.candidates):
            logger.warning(
                "model_switched",
                extra={"model": self.candidates[self._index].name, "after": name, "error": error.message},
            )
