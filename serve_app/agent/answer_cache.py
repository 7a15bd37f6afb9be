"""The answer cache of turns: a get before the turn and a put after it.

Equal turns at the same time are made once. An answer is shared only if it is complete, no tool with an effect took part
in it, and nothing personal is found in it. If the question or the conversation before it has anything personal, the
turn is not even looked up, because the name of its key would contain their hash.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages import AIMessage, SystemMessage, ToolMessage

from serve_app.agent.messages import to_memory
from serve_app.agent.prompts import system_prompt
from serve_app.cache import (
    CachedAnswer,
    CacheLookup,
    Hit,
    Lead,
    SharedAnswers,
    hash_question,
    hash_settings,
    normalize_question,
)
from serve_app.errors import ServeAppError, StoreUnavailable
from serve_app.memory import repair_messages, serialize_exchange
from serve_app.observability.metric_catalogue import CACHE_LOOKUPS
from serve_app.observability.metrics import NULL_METRICS
from serve_app.observability.redaction import Redactor
from serve_app.runs.run import NotOurs
from serve_app.stores.redis_keys import AnswerKeys
from serve_app.values import Answer, Message, Token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.messages import BaseMessage

    from serve_app.agent.progress import TurnProgress
    from serve_app.agent.tool_dispatch import ToolDispatcher
    from serve_app.config import CacheSettings, Settings
    from serve_app.ports import Metrics
    from serve_app.runs.run import Run
    from serve_app.values import ChatRequest, ToolCall

LookupResult = Literal["hit", "joined", "miss", "bypassed"]

NOT_IN_THE_KEY = {"user_input", "session_id", "stream", "user_id", "reasoning"}
"""Fields of a request: the question, which is hashed by itself, and those that do not affect the answer."""


@dataclass(frozen=True, slots=True)
class AnswerCache:
    """The answers that turns share; one object serves all turns of a process."""

    answers: SharedAnswers
    tools: ToolDispatcher
    redactor: Redactor
    settings: CacheSettings
    collection: str
    """Of the knowledge base: a change of its documents ends the answers that rest on them."""
    depends_on: str
    """The hash of the settings by which answers are made."""
    metrics: Metrics = NULL_METRICS

    @classmethod
    def create(cls, settings: Settings, answers: SharedAnswers, tools: ToolDispatcher, metrics: Metrics) -> AnswerCache:
        """Return the cache for turns that are run by these settings."""
        parts = (settings.model, settings.agent, settings.tools, settings.orders, settings.knowledge, settings.memory)
        return cls(
            answers=answers,
            tools=tools,
            redactor=Redactor.from_patterns(settings.observability.redact),
            settings=settings.cache,
            collection=settings.knowledge.collection,
            depends_on=hash_settings(system_prompt(settings.agent.prompt), *parts),
            metrics=metrics,
        )

    async def get(self, run: Run, progress: TurnProgress) -> Answer | Lead | None:
        """Return the answer to an equal turn, as this run's; or the lead, or None.

        While another run makes the answer this waits for it. With the lead this run makes it for the others, and ends
        with `put` or `release`. With None it makes it for itself only. While Redis is away, turns go on without cache.
        """
        found: Hit | Lead | None = None
        lookup: LookupResult = "bypassed"
        if self.answers.availability.admits() and self._is_cacheable_question(run, progress):
            try:
                question = await self._question(run, progress.history)
                found = await self.answers.get(question, afresh=run.context.cache == "no-cache")
                lookup = _lookup_result(run, found)
            except StoreUnavailable:
                pass
        self.metrics.count(CACHE_LOOKUPS, outcome=lookup)
        return _answer_from(found.answer, run) if isinstance(found, Hit) else found

    async def put(self, lead: Lead | None, answer: Answer, progress: TurnProgress) -> None:
        """Store the answer and give it to the runs that wait.

        Where the answer is not for others, each run makes its own.
        """
        if lead is None:
            return
        cached = self._cacheable_answer(answer, progress)
        if cached is None:
            self.answers.release(lead, uncached=True)
            return
        try:
            await self.answers.put(lead, cached)
        except StoreUnavailable:
            return  # the lead expires, and another run makes the answer

    def release(self, lead: Lead | None, error: BaseException) -> None:
        """Give the lead up after an error.

        After a cancellation another run leads; after an error of ours each run makes its own answer.
        """
        if lead is None:
            return
        if isinstance(error, asyncio.CancelledError | NotOurs):
            self.answers.release(lead, uncached=False)
        elif isinstance(error, ServeAppError):
            self.answers.release(lead, uncached=True)
        else:
            self.answers.stop_renewing(lead)

    async def _question(self, run: Run, history: Sequence[BaseMessage]) -> CacheLookup:
        context = [request_options(run.request), hashable_messages(history)]
        digest = hash_question(run.request.user_input, context, self.depends_on, *await self.tools.specs())
        return CacheLookup(AnswerKeys(run.context.tenant, digest, self.collection), run.context.run_id)

    def _is_cacheable_question(self, run: Run, progress: TurnProgress) -> bool:
        """Whether the turn is new, may be cached, and has nothing personal in it."""
        begun = progress.model_calls or progress.step or progress.has_text
        if begun or run.detached or run.context.faults or run.context.cache == "no-store":
            return False
        question = run.request.user_input
        before = hashable_messages([each for each in progress.history if not isinstance(each, SystemMessage)])
        return self._nothing_personal(question, normalize_question(question), request_options(run.request), before)

    def _cacheable_answer(self, answer: Answer, progress: TurnProgress) -> CachedAnswer | None:
        """Return what is stored of the answer; None where it is not for others."""
        whole = answer.status == "success" and answer.finish_reason == "stop"
        if not whole or not all(map(self._is_repeatable, answer.tool_calls)):
            return None
        requests = [request for step in progress.finished_steps for request in step.requests]
        if any(self.tools.sensitive_values(request) for request in requests):
            return None
        messages, _ = repair_messages(to_memory(progress.messages))
        cached = CachedAnswer.of(answer, messages[1:])
        texts = [[each.content, [call.arguments for call in each.tool_calls]] for each in messages[1:]]
        if not self._nothing_personal(cached.model_dump(exclude={"messages"}), texts):  # digits of call ids mislead
            return None
        return cached if len(cached.model_dump_json().encode()) <= self.settings.max_bytes else None

    def _is_repeatable(self, call: ToolCall) -> bool:
        """Whether the call would bring the same for the next turn."""
        pure = self.tools.effect(call.name) == "pure"
        return pure and call.status == "ok" and call.name not in self.settings.live_tools

    def _nothing_personal(self, *values: Any) -> bool:
        return all(self.redactor.redact_value(value) == value for value in values)


def request_options(request: ChatRequest) -> dict[str, Any]:
    """Return the fields of a request that are in the key beside its question."""
    return request.model_dump(mode="json", exclude=NOT_IN_THE_KEY)


def hashable_messages(messages: Sequence[BaseMessage]) -> list[Any]:
    """Return the messages as JSON.

    Ids of calls, which providers make up, are replaced by the places of the calls.
    """
    places: dict[str | None, int] = {}
    for message in messages:
        for call in message.tool_calls if isinstance(message, AIMessage) else ():
            places.setdefault(call["id"], len(places))
    return [
        [
            each.type,
            each.content,
            [[call["name"], call["args"], places[call["id"]]] for call in getattr(each, "tool_calls", ())],
            places.get(each.tool_call_id) if isinstance(each, ToolMessage) else None,
        ]
        for each in messages
    ]


def _lookup_result(run: Run, found: Hit | Lead | None) -> LookupResult:
    if isinstance(found, Hit):
        return "joined" if found.waited else "hit"
    return "bypassed" if run.context.cache else "miss"


def _answer_from(cached: CachedAnswer, run: Run) -> Answer:
    """Return the cached answer as this run's.

    It is sent and remembered as if the turn had been run, and free of charge.
    """
    if run.request.stream:
        run.stream(Token(text=cached.result))
    messages = [Message(role="user", content=run.request.user_input), *cached.messages]
    run.exchange = serialize_exchange(run.context, run.request, messages)
    run.span.set_attributes(cached=True)
    return Answer(
        session_id=run.context.session_id,
        run_id=run.context.run_id,
        cached=True,
        result=cached.result,
        citations=cached.citations,
        tool_calls=cached.tool_calls,
        model=cached.model,
    )
