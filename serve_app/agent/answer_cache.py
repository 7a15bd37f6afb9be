"""How is a turn answered as one was before, and its answer kept for those that come after?"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from serve_app.agent.messages import exchange
from serve_app.agent.prompts import system
from serve_app.agent.sharing import Sharing, said, terms
from serve_app.cache.question import digest, fingerprint
from serve_app.cache.shared_answers import Asked, Found, Lead, SharedAnswers
from serve_app.errors import ServeAppError, StoreUnavailable
from serve_app.observability.metric_catalogue import CACHE_LOOKUPS
from serve_app.observability.null import NULL_METRICS
from serve_app.observability.redaction import Redactor
from serve_app.runs.run import NotOurs
from serve_app.stores.redis_keys import AnswerKeys
from serve_app.values import Answer, Message, Token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from langchain_core.messages import BaseMessage

    from serve_app.agent.progress import TurnProgress
    from serve_app.agent.tool_dispatch import ToolDispatcher
    from serve_app.cache.kept import KeptAnswer
    from serve_app.config import Settings
    from serve_app.ports import Metrics
    from serve_app.runs.run import Run

    Make = Callable[[], Awaitable[Answer]]

logger = logging.getLogger(__name__)

Lookup = Literal["hit", "joined", "miss", "bypassed"]

AWAY_S = 1.0
"""For how long no turn looks after one found Redis away: each would wait for it in vain."""


@dataclass(slots=True)
class AnswerCache:
    """Answers turns out of what was answered before, and keeps what may be kept; one object serves all of them."""

    answers: SharedAnswers
    belt: ToolDispatcher
    sharing: Sharing
    collection: str
    """Of the knowledge base: a change of its documents ends what rests on them."""
    depends_on: str
    """The fingerprint of the settings by which answers are made."""
    metrics: Metrics = NULL_METRICS
    clock: Callable[[], float] = time.monotonic
    _look_from: float | None = field(default=None, init=False)
    """Where Redis is away: when a turn may look again."""

    async def answer(self, run: Run, history: Sequence[BaseMessage], progress: TurnProgress, make: Make) -> Answer:
        """The answer of the turn, before which `history` was said; made by `make` where there is none."""
        found: Found | Lead | None = None
        lookup: Lookup = "bypassed"
        if self._reachable and self.sharing.may_look(run, history, progress):
            try:
                asked = await self._asked(run, history)
                found = await self.answers.find(asked, afresh=run.context.cache == "no-cache")
                lookup = _lookup(run, found)
                self._note(None)
            except StoreUnavailable as error:
                self._note(error)
        self.metrics.count(CACHE_LOOKUPS, outcome=lookup)
        if isinstance(found, Found):
            return _given(run, found.kept)
        if isinstance(found, Lead):
            return await self._led(found, progress, make)
        return await make()

    async def _asked(self, run: Run, history: Sequence[BaseMessage]) -> Asked:
        context = [terms(run.request), said(history)]
        hashed = digest(run.request.user_input, context, self.depends_on, *await self.belt.specs())
        return Asked(AnswerKeys(run.context.tenant, hashed, self.collection), run.context.run_id)

    async def _led(self, lead: Lead, progress: TurnProgress, make: Make) -> Answer:
        """Make the answer for all who wait for it; however that ends, they learn of it."""
        try:
            with self.answers.leading(lead):
                answer = await make()
            await self._share(lead, self.sharing.kept(answer, progress))
        except (asyncio.CancelledError, NotOurs):
            self.answers.release(lead, alone=False)
            raise
        except ServeAppError:
            self.answers.release(lead, alone=True)
            raise
        return answer

    async def _share(self, lead: Lead, kept: KeptAnswer | None) -> None:
        if kept is None:
            self.answers.release(lead, alone=True)
            return
        try:
            await self.answers.keep(lead, kept)
        except StoreUnavailable as error:
            self._note(error)

    @property
    def _reachable(self) -> bool:
        return self._look_from is None or self.clock() >= self._look_from

    def _note(self, error: StoreUnavailable | None) -> None:
        """Tell once that Redis is away, and that it is back: turns go on without."""
        if error and self._look_from is None:
            logger.warning("cache_away", extra={"error": error.message})
        elif self._look_from is not None and not error:
            logger.warning("cache_back")
        self._look_from = self.clock() + AWAY_S if error else None


def caching(settings: Settings, answers: SharedAnswers, belt: ToolDispatcher, metrics: Metrics) -> AnswerCache:
    """For turns that are run by these settings."""
    made_by = (settings.model, settings.agent, settings.tools, settings.orders, settings.knowledge, settings.memory)
    return AnswerCache(
        answers=answers,
        belt=belt,
        sharing=Sharing(belt, Redactor.from_patterns(settings.observability.redact), settings.cache),
        collection=settings.knowledge.collection,
        depends_on=fingerprint(system(settings.agent.prompt), *made_by),
        metrics=metrics,
    )


def _lookup(run: Run, found: Found | Lead | None) -> Lookup:
    if isinstance(found, Found):
        return "joined" if found.waited else "hit"
    return "bypassed" if run.context.cache else "miss"


def _given(run: Run, kept: KeptAnswer) -> Answer:
    """The kept answer as this run's: told and remembered as if the turn had been made, and free of charge."""
    if run.request.stream:
        run.say(Token(text=kept.result))
    run.exchange = exchange(run, [Message(role="user", content=run.request.user_input), *kept.messages])
    run.span.set_attributes(cached=True)
    return Answer(
        session_id=run.context.session_id,
        run_id=run.context.run_id,
        cached=True,
        result=kept.result,
        citations=kept.citations,
        tool_calls=kept.tool_calls,
        model=kept.model,
    )
