"""May a turn be answered as one was before, and may its answer be given to others?

Only an answer that is whole, that no tool with an effect had a part in, and in which nothing personal is found. A turn
is asked with nothing personal, too: what it is asked with stands, hashed, in the name of a key.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from serve_app.agent.prompts import system
from serve_app.cache.answers import Answers, Asked, Found, Lead
from serve_app.cache.kept import KeptAnswer
from serve_app.cache.question import digest, fingerprint, normalised
from serve_app.errors import ServeAppError, StoreUnavailable
from serve_app.observability.catalogue import CACHE_LOOKUPS
from serve_app.observability.recorders import SILENT
from serve_app.observability.redaction import Redactor
from serve_app.runs.run import NotOurs
from serve_app.stores.keys import AnswerKeys
from serve_app.values import Answer, Exchange, Message, Token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from serve_app.agent.progress import Progress
    from serve_app.agent.toolbelt import Toolbelt
    from serve_app.config import CacheSettings, Settings
    from serve_app.memory.window import Recalled
    from serve_app.ports import Metrics
    from serve_app.runs.run import Run

    Make = Callable[[], Awaitable[Answer]]

logger = logging.getLogger(__name__)

Lookup = Literal["hit", "joined", "miss", "bypassed"]

AWAY_S = 1.0
"""For how long no turn looks after one found Redis away: each would wait for it in vain."""


@dataclass(slots=True)
class Caching:
    """Answers turns out of what was answered before, and keeps what may be kept; one object serves all of them."""

    answers: Answers
    belt: Toolbelt
    settings: CacheSettings
    redactor: Redactor
    collection: str
    """Of the knowledge base: a change of its documents ends what rests on them."""
    depends_on: str
    """The fingerprint of the settings by which answers are made."""
    metrics: Metrics = SILENT
    clock: Callable[[], float] = time.monotonic
    _look_from: float | None = field(default=None, init=False)
    """Where Redis is away: when a turn may look again."""

    async def answer(self, run: Run, memory: Recalled, progress: Progress, make: Make) -> Answer:
        """The answer of the turn, made by `make` where there is none."""
        found: Found | Lead | None = None
        lookup: Lookup = "bypassed"
        if self._may_look(run, memory, progress):
            try:
                asked = await self._asked(run, memory)
                found = await self.answers.find(asked, afresh=run.context.cache == "no-cache")
                lookup = _lookup(run, found)
                self._note(None)
            except StoreUnavailable as error:
                self._note(error)
        self.metrics.count(CACHE_LOOKUPS, outcome=lookup)
        if isinstance(found, Found):
            return _given(run, found.kept)
        if isinstance(found, Lead):
            return await self._led(run, found, progress, make)
        return await make()

    def _may_look(self, run: Run, memory: Recalled, progress: Progress) -> bool:
        """Whether the turn is one like others, of which nothing has happened yet."""
        context, begun = run.context, bool(progress.asked or progress.step or progress.said)
        if run.detached or not memory.whole or context.faults or context.cache == "no-store" or begun:
            return False
        if self._look_from is not None and self.clock() < self._look_from:
            return False
        question = run.request.user_input
        messages = [message for exchange in memory.exchanges for message in exchange.messages]
        return self._nothing_personal(question, normalised(question), _told(messages))

    async def _asked(self, run: Run, memory: Recalled) -> Asked:
        specs = await self.belt.specs()
        hashed = digest(run.request.user_input, memory.exchanges, self.depends_on, *specs)
        return Asked(AnswerKeys(run.context.tenant, hashed, self.collection), run.context.run_id)

    async def _led(self, run: Run, lead: Lead, progress: Progress, make: Make) -> Answer:
        """Make the answer for all who wait for it; however that ends, they learn of it."""
        try:
            with self.answers.leading(lead):
                answer = await make()
            kept = self._kept(run, progress, answer)
            if kept is None:
                self.answers.release(lead, alone=True)
            else:
                await self._keep(lead, kept)
        except (asyncio.CancelledError, NotOurs):
            self.answers.release(lead, alone=False)
            raise
        except ServeAppError:
            self.answers.release(lead, alone=True)
            raise
        return answer

    def _kept(self, run: Run, progress: Progress, answer: Answer) -> str | None:
        """What is kept of the answer; None where it is not for others."""
        if answer.status != "success" or not all(map(self._is_lasting, answer.tool_calls)):
            return None
        requests = [request for step in progress.done for request in step.requests]
        if any(self.belt.hidden(request) for request in requests):
            return None
        kept = KeptAnswer.of(answer, Exchange.model_validate_json(run.exchange).messages[1:])
        told = kept.model_dump(exclude={"messages"})
        if not self._nothing_personal(told, _told(kept.messages)):
            return None
        written = kept.model_dump_json()
        return written if len(written.encode()) <= self.settings.max_bytes else None

    def _is_lasting(self, call: Any) -> bool:
        """Whether the call would bring the same to whoever asks next."""
        return (
            call.status == "ok" and self.belt.effect(call.name) == "pure" and call.name not in self.settings.live_tools
        )

    def _nothing_personal(self, *values: Any) -> bool:
        return all(self.redactor.value(value) == value for value in values)

    async def _keep(self, lead: Lead, kept: str) -> None:
        try:
            await self.answers.keep(lead, kept)
        except StoreUnavailable as error:
            self._note(error)

    def _note(self, error: StoreUnavailable | None) -> None:
        """Tell once that Redis is away, and that it is back: turns go on without."""
        if error and self._look_from is None:
            logger.warning("cache_away", extra={"error": error.message})
        elif self._look_from is not None and not error:
            logger.warning("cache_back")
        self._look_from = self.clock() + AWAY_S if error else None


def caching(settings: Settings, answers: Answers, belt: Toolbelt, metrics: Metrics) -> Caching:
    """For turns that are run by these settings."""
    made_by = (settings.model, settings.agent, settings.tools, settings.orders, settings.knowledge, settings.memory)
    return Caching(
        answers=answers,
        belt=belt,
        settings=settings.cache,
        redactor=Redactor.of(settings.observability.redact),
        collection=settings.knowledge.collection,
        depends_on=fingerprint(system(settings.agent.prompt), *made_by),
        metrics=metrics,
    )


def _lookup(run: Run, found: Found | Lead | None) -> Lookup:
    if isinstance(found, Found):
        return "joined" if found.waited else "hit"
    return "bypassed" if run.context.cache else "miss"


def _told(messages: list[Message]) -> list[Any]:
    """What was said, without the ids of calls, whose digits may look like anything."""
    return [[each.content, [call.arguments for call in each.tool_calls]] for each in messages]


def _given(run: Run, kept: KeptAnswer) -> Answer:
    """The kept answer as this run's: told and remembered as if the turn had been made, and free of charge."""
    context, request = run.context, run.request
    if request.stream:
        run.say(Token(text=kept.result))
    messages = [Message(role="user", content=request.user_input), *kept.messages]
    exchange = Exchange(run_id=context.run_id, at=time.time(), user_id=request.user_id, messages=messages)
    run.exchange = exchange.model_dump_json()
    run.span.note(cached=True)
    return Answer(
        session_id=context.session_id,
        run_id=context.run_id,
        cached=True,
        result=kept.result,
        citations=kept.citations,
        tool_calls=kept.tool_calls,
        model=kept.model,
    )
