"""What is recorded where nobody traces? Nothing, but a caller's trace is passed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serve_app.observability.traceparent import passed_on

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serve_app.ports import Fact, SpanKind, Telling
    from serve_app.values import Answer, ChatRequest, Context, Failed, FinalStatus


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """Implements `ports.TurnSpan`."""

    traceparent: str = ""

    def child(self, kind: SpanKind, name: str, given: Telling | None = None) -> Unrecorded:  # noqa: ARG002 - see the port
        return self

    def note(self, **facts: Fact) -> None:
        """Not recorded."""

    def tell(self, told: Telling) -> None:
        """Not recorded."""

    def fail(self, error: str) -> None:
        """Not recorded."""

    def hide(self, values: Iterable[Any]) -> None:
        """Not recorded."""

    def conclude(self, end: FinalStatus, last: Answer | Failed | None = None) -> None:
        """Not recorded."""

    def __enter__(self) -> Unrecorded:
        return self

    def __exit__(self, *_: Any) -> None:
        """Nothing has begun."""


class Untraced:
    """Implements `ports.Tracer`."""

    def turn(self, context: Context, request: ChatRequest) -> Unrecorded:  # noqa: ARG002 - see the port
        return Unrecorded(passed_on(context))

    async def close(self) -> None:
        """Nothing is under way."""


UNRECORDED = Unrecorded()
