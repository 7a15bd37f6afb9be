"""Who is told how the service fares, whoever collects it?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from serve_app.values import Answer, ChatRequest, Context, Failed, FinalStatus, Metric

SpanKind = Literal["turn", "step", "model", "tool", "retrieval", "memory"]
"""What a part of a turn is: the whole, a thinking step, a call of a model, of a tool, a search, a use of memory."""
Fact = str | int | float | bool | list[str]
Telling = Callable[[], Any]
"""Tells what a span was given or has brought, as JSON. It is called later and in another thread, if at all."""


class Metrics(Protocol):
    """Takes observations of the metrics of `observability.catalogue`, each with a value for each of its labels.

    It costs a few microseconds, and never fails the one who observes.
    """

    def count(self, metric: Metric, by: float = 1, **labels: str) -> None:
        """Add to a counter."""
        ...

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        ...

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge, for the next twenty seconds."""
        ...

    def hand_over(self) -> None:
        """Pass on what has been observed and is still kept here."""
        ...


class Nodes(Protocol):
    """Knows the metrics pages of the machines that the service runs on."""

    async def pages(self) -> dict[str, str | None]:
        """Each node's page, by the node's address; None of a node that did not answer in time."""
        ...


class Span(Protocol):
    """What is recorded of one part of a turn. None of its methods waits or raises."""

    @property
    def traceparent(self) -> str:
        """By W3C Trace Context, for whoever is asked from within it."""
        ...

    def child(self, kind: SpanKind, name: str, given: Telling | None = None) -> AbstractContextManager[Span]:
        """A part of this part; it lasts as long as the block, and fails with it."""
        ...

    def note(self, **facts: Fact) -> None:
        """Record facts, in place of those of the same name."""
        ...

    def tell(self, told: Telling) -> None:
        """Record what it has brought."""
        ...

    def fail(self, error: str) -> None:
        """Record that it brought nothing of use; `error` begins with a word for the sort, and a colon."""
        ...

    def hide(self, values: Iterable[Any]) -> None:
        """Have nothing of the whole turn tell one of these values."""
        ...


class TurnSpan(Span, Protocol):
    """What is recorded of a turn."""

    def conclude(self, end: FinalStatus, last: Answer | Failed | None = None) -> None:
        """Say how the turn has ended; one that goes on in another process is told by that one."""
        ...


class Tracer(Protocol):
    """Records turns and tells them to whoever collects traces."""

    def turn(self, context: Context, request: ChatRequest) -> AbstractContextManager[TurnSpan]:
        """The turn that is run in the block."""
        ...

    async def close(self) -> None:
        """Tell what has not been told yet, within two seconds."""
        ...
