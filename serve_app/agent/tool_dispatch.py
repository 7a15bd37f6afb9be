"""Which tools does the model see, and who runs each?"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serve_app.agent.measuring import measure
from serve_app.agent.prompts import KNOWLEDGE_SEARCH, knowledge_search, numbered
from serve_app.errors import (
    DeadlineExceeded,
    Overloaded,
    RetrieverUnavailable,
    ServeAppError,
    ToolUnavailable,
)
from serve_app.observability.logs import hide_in_logs
from serve_app.observability.metric_catalogue import UNKNOWN
from serve_app.observability.null import NULL_METRICS
from serve_app.observability.redaction import mask_sensitive
from serve_app.resilience.deadline import elapsed_ms
from serve_app.resilience.retry import WAIT_MAX_S
from serve_app.values import Passage, ToolCall, ToolResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve_app import ports
    from serve_app.config import KnowledgeSettings
    from serve_app.resilience.retry import RetryBudget
    from serve_app.values import CallStatus, Context, Effect, IdempotencyKey, ToolRequest, ToolSpec

logger = logging.getLogger(__name__)

GRACE_S = 1.0
RESEND_AFTER_S = (0.05, 0.1, 0.2, 0.4, 0.8)
"""The pauses before a call is made again: for a while a caller may still be sent to the replica that is gone."""
FRESH_S = 10.0
"""How long the tools' list is believed: a rolling update of Tools shows soon after the first turn past this time."""


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What one call brought: for the model, for the client, and the passages in it."""

    request: ToolRequest
    result: ToolResult
    passages: tuple[Passage, ...] = ()
    lexical_only: bool = False
    """Whether the passages were found by words alone, where meaning should have counted too."""

    @property
    def call(self) -> ToolCall:
        return ToolCall(
            name=self.request.name,
            arguments=self.request.arguments,
            status=self.result.status,
            attempts=self.result.attempts,
            elapsed_ms=self.result.elapsed_ms,
        )

    @property
    def purpose(self) -> str:
        """What the call was for: a search for anything; of another tool, these arguments."""
        if self.request.name == KNOWLEDGE_SEARCH:
            return KNOWLEDGE_SEARCH
        return f"{self.request.name} {json.dumps(self.request.arguments, sort_keys=True)}"

    @property
    def missing(self) -> str | None:
        """What the answer has to do without; a wrong argument is the model's fault and lacks nothing."""
        result = self.result
        well = result.status in {"ok", "standby"} and not self.lexical_only
        if well or (result.status == "error" and result.attempts == 0):
            return None
        return "retriever" if self.request.name == KNOWLEDGE_SEARCH else f"tool:{self.request.name}"


class ToolDispatcher:
    """The tools of the Tools deployments, and the retriever as one more."""

    def __init__(
        self,
        tools: ports.Tools,
        retriever: ports.Retriever,
        settings: KnowledgeSettings,
        clock: Callable[[], float],
        metrics: ports.Metrics = NULL_METRICS,
    ) -> None:
        self._tools = tools
        self._retriever = retriever
        self._search = knowledge_search(settings)
        self._clock = clock
        self._metrics = metrics
        self._specs: list[ToolSpec] = []
        self._known_until = float("-inf")
        self._asking = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None

    async def specs(self) -> list[ToolSpec]:
        """What the model is told; the last known list while no Tools deployment answers.

        A tool that is away is told of as it was last: a model that asks for it learns that it is away, and the answer
        says so. One of which nothing is known yet is not told of.

        Raises:
            ToolUnavailable: it has never answered: no turn is run without the tools that it should have.
        """
        async with self._asking:
            if not self._specs:
                await self._ask()
        if self._clock() >= self._known_until:
            self._known_until = self._clock() + FRESH_S
            self._refreshing = asyncio.create_task(self._refresh(), context=contextvars.Context())
        return [spec for spec in self._specs if spec.ready or spec.parameters]

    async def _ask(self) -> None:
        self._specs = [*await self._tools.specs(), self._search]
        self._known_until = self._clock() + FRESH_S

    async def _refresh(self) -> None:
        """Beside the turns: one process of tools that does not answer must not make all of them wait."""
        try:
            await self._ask()
        except ServeAppError as error:
            logger.warning("tools_not_told", extra={"error": error.message})
        except Exception:
            logger.exception("tools_not_told")

    def count(self, outcome: ToolOutcome) -> None:
        """Count a call that has ended, made or not."""
        name = outcome.request.name
        measure(self._metrics, name if self._spec(name) else UNKNOWN, outcome)

    def effect(self, name: str) -> Effect:
        """What a second call of the tool does: before the tools are known nobody can say; none runs that is not one."""
        if name == KNOWLEDGE_SEARCH:
            return self._search.effect
        spec = self._spec(name)
        if spec is None:
            return "pure" if self._specs else "effect"
        return spec.effect

    def hidden(self, request: ToolRequest) -> list[Any]:
        """The values among the arguments that must not leave the service."""
        spec = self._spec(request.name)
        return spec.sensitive_values(request.arguments) if spec else []

    async def call(
        self, context: Context, request: ToolRequest, key: IdempotencyKey, budget: RetryBudget
    ) -> ToolOutcome:
        """Run one call; a dependency that is down or hangs is a result that says so.

        A call whose replica dies under it is made again at once, under the same key, unless it has an effect. Further
        attempts, which are made on the other side, are drawn from the request's `budget`.
        """
        spec = self._spec(request.name)
        with hide_in_logs(self.hidden(request)):
            outcome = await self._allowed(context, request, key, budget)
            result, arguments = outcome.result, mask_sensitive(request.arguments, spec.sensitive if spec else ())
            told = {"tool": request.name, "arguments": arguments, "status": result.status, "attempts": result.attempts}
            logger.debug("tool_called", extra={**told, "elapsed_ms": result.elapsed_ms})
        return outcome

    async def _allowed(
        self, context: Context, request: ToolRequest, key: IdempotencyKey, budget: RetryBudget
    ) -> ToolOutcome:
        """The call, within what the budget grants it."""
        begun = time.monotonic()
        spec = self._spec(request.name)
        with budget.reserve(spec.attempts - 1 if spec else 0) as allowance:
            allowance.used = allowance.granted  # by whoever does not answer
            granting = context.model_copy(update={"retries": allowance.granted})
            try:
                async with asyncio.timeout(_patience_s(spec, allowance.granted)):
                    outcome = await self._insisting(granting, request, key, begun)
            except (TimeoutError, ServeAppError) as error:
                return ToolOutcome(request, _without_answer(request.name, spec, error, begun))
            allowance.used = outcome.result.retries
        return outcome

    async def _insisting(
        self, context: Context, request: ToolRequest, key: IdempotencyKey, begun: float
    ) -> ToolOutcome:
        """What the call brings that reaches a replica."""
        pauses_s = [] if self.effect(request.name) == "effect" else list(RESEND_AFTER_S)
        while True:
            try:
                return await self._called(context, request, key, begun)
            except (ToolUnavailable, RetrieverUnavailable):
                if not pauses_s:
                    raise
                await asyncio.sleep(pauses_s.pop(0))

    def _spec(self, name: str) -> ToolSpec | None:
        return next((spec for spec in self._specs if spec.name == name), None)

    async def _called(self, context: Context, request: ToolRequest, key: IdempotencyKey, begun: float) -> ToolOutcome:
        if request.name == KNOWLEDGE_SEARCH:
            return await self._searched(context, request, begun)
        return ToolOutcome(request, await self._tools.call(context, request, key))

    async def _searched(self, context: Context, request: ToolRequest, begun: float) -> ToolOutcome:
        query = request.arguments.get("query")
        if not isinstance(query, str) or not query.strip():
            reason = "wrong arguments for knowledge_search: query: a non-empty string is required"
            return ToolOutcome(request, ToolResult.not_run(reason))
        found = await self._retriever.search(context, query)
        status: CallStatus = "standby" if found.standby else "ok"
        result = ToolResult(content="", status=status, attempts=1, elapsed_ms=elapsed_ms(begun))
        return ToolOutcome(request, result, tuple(found.passages), found.lexical_only)


def _patience_s(spec: ToolSpec | None, retries: int) -> float:
    """What the other side may take with all its attempts, and a little: it may be gone, and then keeps no time-out."""
    if spec is None:
        return GRACE_S
    return (1 + retries) * spec.timeout_s + retries * WAIT_MAX_S + (spec.standby_s or 0) + GRACE_S


def _without_answer(name: str, spec: ToolSpec | None, error: TimeoutError | ServeAppError, begun: float) -> ToolResult:
    """The result of a call that no one answered."""
    if spec is not None and spec.effect == "effect" and not isinstance(error, Overloaded):
        return ToolResult.unknown(name, 1, elapsed_ms(begun))
    if isinstance(error, TimeoutError | DeadlineExceeded):
        return ToolResult.timed_out(name, 1, elapsed_ms(begun))
    content = f"error: {name} is not available now"
    return ToolResult(content=content, status="error", attempts=1, elapsed_ms=elapsed_ms(begun))


def shares(sizes: list[int], limit: int) -> list[int]:
    """How many characters each of several texts may have, so that together they have `limit`: short ones stay whole."""
    found = [0] * len(sizes)
    left = max(limit, 0)
    by_size = sorted(range(len(sizes)), key=lambda place: sizes[place])
    for rank, place in enumerate(by_size):
        found[place] = min(sizes[place], left // (len(sizes) - rank))
        left -= found[place]
    return found


def content_of(outcome: ToolOutcome, known: list[Passage]) -> str:
    """What the model reads of an outcome; its passages are counted on after those already `known` in the turn.

    It goes into a message of its own, of the role tool: the provider's protocol keeps that apart from instructions, and
    no text can step out of it, as it could out of delimiters of ours.
    """
    if outcome.request.name == KNOWLEDGE_SEARCH and outcome.result.status in {"ok", "standby"}:
        return numbered(list(outcome.passages), len(known) + 1)
    return outcome.result.content
