"""Which models does one call ask, in what order, and after which waits?"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serve_app.errors import InvalidRequest, ModelUnavailable, ServeAppError
from serve_app.llm.measuring import measured
from serve_app.llm.telling import named, recorded
from serve_app.llm.translate import ModelTooSlow, RequestRefused
from serve_app.observability.catalogue import MODEL_FALLBACKS, MODEL_RETRIES
from serve_app.observability.untraced import UNRECORDED
from serve_app.resilience.deadline import remaining_s

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from serve_app.llm.guarded import Guarded
    from serve_app.llm.measuring import Heard
    from serve_app.ports import Metrics, Span, Telling
    from serve_app.resilience.budget import Budget
    from serve_app.resilience.circuit import Circuit

logger = logging.getLogger(__name__)

WAIT_MIN_S, WAIT_MAX_S = 0.5, 4.0


@dataclass(frozen=True, slots=True)
class Link:
    """One model of a chain, behind the breaker that has its name."""

    model: Guarded
    circuit: Circuit

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
        if not any(each.retryable for each in everything):
            return first
        told = [each.retry_after_s for each in everything if each.retry_after_s is not None]
        return ModelUnavailable(first.message, min(told, default=None))

    @contextmanager
    def _asking(self, link: Link) -> Iterator[Heard]:
        """The block asks the model, which its breaker admits now; a failure is noted and goes no further.

        Raises:
            DeadlineExceeded: the request's time ran out.
            InvalidRequest: the first model cannot take the conversation.
        """
        try:
            with link.circuit.passing(ModelUnavailable, (ModelUnavailable,)):
                try:
                    provider, model = named(link.name)
                    call = self.span.child("model", model, self.given)
                    with measured(self.metrics, link.name) as heard, recorded(call, heard) as span:
                        span.note(provider=provider, model=model, attempt=self._made, fallback=self._place > 0)
                        yield heard
                    if self._place:
                        self.metrics.count(MODEL_FALLBACKS, model=link.name)
                except (InvalidRequest, RequestRefused) as error:  # the model is well
                    if isinstance(error, InvalidRequest) and self._place == 0:
                        raise
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
        if self._another() and (isinstance(error, ModelTooSlow) or pause_s > WAIT_MAX_S):
            return None
        if self.deadline is not None and pause_s >= remaining_s(self.deadline):
            return None
        return pause_s if self.budget is None or self.budget.take() else None

    def _another(self) -> bool:
        """Whether a later model would take a call now."""
        return any(link.circuit.admits for link in self.links[self._place + 1 :])

    def _switch(self) -> None:
        """Go on to the next model."""
        error, name = self._failed[self._place], self.links[self._place].name
        self._place += 1
        self._made = 0
        if self._place < len(self.links):
            logger.warning(
                "model_switched", extra={"model": self.links[self._place].name, "after": name, "error": error.message}
            )
