"""The attempts of one model call: which models are asked, in which order, after which waits."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serve_app.errors import ModelUnavailable, ServeAppError
from serve_app.llm.measuring import measured
from serve_app.llm.telling import named, recorded
from serve_app.llm.translate import (
    ContentFiltered,
    ContextOverflow,
    KeyRefused,
    ModelTooSlow,
    QuotaSpent,
    RequestRefused,
)
from serve_app.observability.catalogue import MODEL_FALLBACKS, MODEL_RETRIES
from serve_app.observability.untraced import UNRECORDED
from serve_app.resilience.deadline import remaining_s

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from serve_app.llm.guarded import Guarded
    from serve_app.llm.measuring import Heard
    from serve_app.llm.tool_schema import Dialect
    from serve_app.ports import Metrics, Span, Telling
    from serve_app.resilience.budget import Budget
    from serve_app.resilience.circuit import Circuit

logger = logging.getLogger(__name__)

WAIT_MIN_S, WAIT_MAX_S = 0.5, 4.0


@dataclass(slots=True)
class Link:
    """One model of a chain, behind the circuit breaker that has its name."""

    model: Guarded
    circuit: Circuit
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
class Tries:
    """The tries of one call, each a model and the block in which it is asked; who iterates stops at an answer."""

    links: Sequence[Link]
    attempts: int
    deadline: float | None
    """Unix time in seconds."""
    budget: Budget | None
    """The request's retries; asking the next model is none."""
    metrics: Metrics
    span: Span = UNRECORDED
    """What is recorded of the call; each try is a part of it."""
    given: Telling | None = None
    """Tells what the models are asked with."""
    _place: int = 0
    """Of the model that is being asked."""
    _made: int = 0
    """Tries of this model."""
    _failed: dict[int, ServeAppError] = field(default_factory=dict)
    """The latest failure of each model, by its place."""

    def __aiter__(self) -> Tries:
        return self

    async def __anext__(self) -> tuple[Link, AbstractContextManager[Heard]]:
        """The next try, after the pause before it."""
        if self._made:
            pause_s = self._pause_s()
            if pause_s is None:
                self._switch()
            else:
                await asyncio.sleep(pause_s)
                self.metrics.count(MODEL_RETRIES, model=self.links[self._place].name)
        while self._place < len(self.links):
            link = self.links[self._place]
            if link.circuit.admits:
                self._made += 1
                return link, self._asking(link)
            self._failed.setdefault(self._place, link.circuit.refused(ModelUnavailable))
            self._switch()
        raise StopAsyncIteration

    @property
    def failure(self) -> ServeAppError:
        """What the call failed with: as the first model did, and when to come back to any of them."""
        first, everything = self._failed[0], self._failed.values()
        overflow = next((each for each in everything if isinstance(each, ContextOverflow)), None)
        if overflow or not any(each.retryable for each in everything):
            return overflow or first
        told = [each.retry_after_s for each in everything if each.retry_after_s is not None]
        return ModelUnavailable(first.message, min(told, default=None))

    @property
    def filtered(self) -> bool:
        """Whether the latest model refused what the conversation says."""
        return isinstance(self._failed.get(self._place), ContentFiltered)

    @property
    def refused(self) -> bool:
        """Whether any model refused what the conversation says."""
        return any(isinstance(each, ContentFiltered) for each in self._failed.values())

    @contextmanager
    def _asking(self, link: Link) -> Iterator[Heard]:
        """The block asks the model, which its breaker admits now; a failure is noted and goes no further.

        Raises:
            DeadlineExceeded: the request's time ran out.
        """
        try:
            with link.circuit.passing(ModelUnavailable, (ModelUnavailable,)):
                try:
                    provider, model = named(link.name)
                    call = self.span.child("model", model, self.given)
                    with measured(self.metrics, link.name) as heard, recorded(call, heard) as span:
                        span.note(provider=provider, model=model, attempt=self._made, fallback=self._place > 0)
                        yield heard
                    link.note(None)
                    if self._place:
                        self.metrics.count(MODEL_FALLBACKS, model=link.name)
                except (ContextOverflow, RequestRefused, KeyRefused, QuotaSpent) as error:  # no outage of the model
                    link.note(error)
                    self._failed[self._place] = error
        except ModelUnavailable as error:
            self._failed[self._place] = error

    def _pause_s(self) -> float | None:
        """Seconds until the model that has just failed is tried once more; None where it is not."""
        error = self._failed[self._place]
        if self._made == self.attempts or not error.retryable or not self.links[self._place].circuit.admits:
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
        return any(link.circuit.admits for link in self.links[self._place + 1 :])

    def _switch(self) -> None:
        """Go on to the next model; after an overflow, to the next that may read more."""
        error, name = self._failed[self._place], self.links[self._place].name
        reads = self.links[self._place].context_tokens
        self._place += 1
        self._made = 0
        if isinstance(error, ContextOverflow) and reads:
            while self._place < len(self.links) and (self.links[self._place].context_tokens or reads + 1) <= reads:
                self._place += 1
        if self._place < len(self.links):
            logger.warning(
                "model_switched", extra={"model": self.links[self._place].name, "after": name, "error": error.message}
            )
