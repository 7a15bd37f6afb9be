"""How does a turn's trace come from the turn to whoever collects traces?"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from serve_app.config import langsmith_target, otlp_target
from serve_app.observability import spans
from serve_app.observability.exporter import Outbox
from serve_app.observability.null import NULL_SPAN, NullTracer
from serve_app.observability.traceparent import is_kept, is_sampled, trace_origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from serve_app.config import LangSmithTarget, ObservabilitySettings, OtlpTarget
    from serve_app.observability.exporter import Send
    from serve_app.observability.redaction import Redactor
    from serve_app.ports import Tracer, TurnSpan
    from serve_app.values import ChatRequest, Context

logger = logging.getLogger(__name__)

CLOSE_S = 2.0
"""What a shutdown waits for sinks, for all of them together."""


class Traces:
    """Records turns and hands those that are kept to each outbox; implements `ports.Tracer`."""

    def __init__(self, outboxes: Sequence[Outbox], share: float) -> None:
        self._outboxes = outboxes
        self._share = share

    @contextmanager
    def start_turn(self, context: Context, request: ChatRequest) -> Iterator[TurnSpan]:
        come_from = trace_origin(context)
        if come_from is None:
            yield NULL_SPAN
            return
        sampled = is_sampled(come_from, self._share)
        with spans.begun(context, request, come_from, sampled=sampled) as root:
            yield root
        if root.outcome is not None and is_kept(root.outcome, sampled=sampled):
            for outbox in self._outboxes:
                outbox.put(root.recording)

    async def shutdown(self) -> None:
        until = time.monotonic() + CLOSE_S
        for outbox in self._outboxes:
            outbox.close()
        for outbox in self._outboxes:
            await asyncio.to_thread(outbox.join, until)


def create_tracer(settings: ObservabilitySettings, redactor: Redactor, dropped: Callable[[str, int], None]) -> Tracer:
    """What records turns, by what the environment names; nothing is imported for a sink that it does not name.

    `dropped` is told the sink and a number of spans, from whichever thread.
    """
    builds: dict[str, Callable[[], Send]] = {}
    disable_langchain_tracing()
    if langsmith := langsmith_target():
        builds["langsmith"] = partial(_langsmith, langsmith)
    if otlp := otlp_target():
        builds["otlp"] = partial(_otlp, otlp)
    if not builds:
        return NullTracer()
    logger.info("turns are traced to %s, %g of them and all that fail", " and ".join(builds), settings.trace_sampling)
    outboxes = [Outbox(name, build, redactor, dropped) for name, build in builds.items()]
    return Traces(outboxes, settings.trace_sampling)


def disable_langchain_tracing() -> None:
    """Have LangChain trace nothing itself in this process, where the environment would have it trace everything."""
    if langsmith_target():
        from serve_app.observability.langsmith import disable_langchain_tracing as disable

        disable()


def _langsmith(target: LangSmithTarget) -> Send:
    from serve_app.observability.langsmith import sender

    return sender(target)


def _otlp(target: OtlpTarget) -> Send:
    from serve_app.observability.otlp import sender

    return sender(target)
