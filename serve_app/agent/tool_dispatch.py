"""Tool dispatch: sends each call to the process of its tool, and takes the outcome."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from serve_app.agent.prompts import format_passages, knowledge_search_spec
from serve_app.errors import DeadlineExceeded, Overloaded, RetrieverUnavailable, ServeAppError, ToolUnavailable
from serve_app.observability.logs import hide_in_logs
from serve_app.observability.metric_catalogue import (
    RETRIEVAL_EMPTY,
    RETRIEVAL_PASSAGES,
    RETRIEVAL_S,
    RETRIEVALS,
    TOOL_ATTEMPTS,
    TOOL_CALLS,
    TOOL_S,
    UNKNOWN,
)
from serve_app.observability.metrics import NULL_METRICS
from serve_app.observability.redaction import mask_sensitive
from serve_app.resilience.deadline import elapsed_ms
from serve_app.resilience.retry import max_duration_s, retry_after, retry_until
from serve_app.resilience.tasks import SingleFlight
from serve_app.values import KNOWLEDGE_SEARCH, Passage, ToolCall, ToolResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve_app import ports
    from serve_app.config import KnowledgeSettings
    from serve_app.resilience.retry import RetryBudget
    from serve_app.values import CallStatus, Context, Effect, IdempotencyKey, ToolRequest, ToolSpec

logger = logging.getLogger(__name__)

GRACE_S = 1.0
"""The other side may take so much longer than its attempts: it may be gone, and then keeps no time limit."""
FAILOVER_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Before a call goes to another replica: for a while Serve may still route to the one that is gone. These are no
retries of the tool, which the other side makes; they end with the time that the call may take."""
FIRST_LOAD_S = 5.0
"""How long the first turns of a process wait for the list of tools, where it could not be loaded before them."""
SPECS_TTL_S = 10.0
"""The age at which the list of tools is refreshed: a rolling update of Tools shows soon after it."""
SUCCESSFUL = {"ok", "standby"}


class ToolDispatcher:
    """Dispatches calls to the Tools deployments, and searches to the retriever."""

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
        self._search_spec = knowledge_search_spec(settings)
        self._clock = clock
        self._metrics = metrics
        self._specs: dict[str, ToolSpec] = {}
        self._offered: list[ToolSpec] = []
        self._schemas: list[dict[str, Any]] = []
        self._fresh_until = float("-inf")
        self._first_load = SingleFlight(lambda: retry_until(self._load, FIRST_LOAD_S, ToolUnavailable))
        self._refreshing: asyncio.Task[None] | None = None

    async def prepare(self, timeout_s: float) -> None:
        """Load the list of tools, so that no turn waits for it.

        Where no Tools deployment answers within `timeout_s`, the first turn tries again.
        """
        try:
            await retry_until(self._load, timeout_s, ToolUnavailable)
        except ServeAppError as error:
            logger.warning("tools_not_loaded", extra={"error": error.message})

    async def specs(self) -> list[ToolSpec]:
        """Return the tools for the model; the last known list while no Tools deployment answers.

        A tool that is away stays in the list: a model that calls it learns that it is away, and the answer says so.
        A tool of which nothing is known yet is left out.

        Raises:
            ToolUnavailable: no list was ever loaded: no turn is run without the tools that it should have.
        """
        if not self._specs:
            await self._first_load.run()
        if self._clock() >= self._fresh_until:
            self._fresh_until = self._clock() + SPECS_TTL_S
            self._refreshing = asyncio.create_task(self._refresh(), context=contextvars.Context())
        return self._offered

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """The tools that `specs` returns as models read them; the same object while nothing changes."""
        return self._schemas

    async def _load(self) -> None:
        specs = {spec.name: spec for spec in (*await self._tools.specs(), self._search_spec)}
        if specs != self._specs:
            self._specs = specs
            self._offered = [spec for spec in specs.values() if spec.ready or spec.parameters]
            self._schemas = [to_function_schema(spec) for spec in self._offered]
        self._fresh_until = self._clock() + SPECS_TTL_S

    async def _refresh(self) -> None:
        """Refresh the list beside the turns.

        A tools process that does not answer must not make them wait.
        """
        try:
            await self._load()
        except ServeAppError as error:
            logger.warning("tools_not_refreshed", extra={"error": error.message})
        except Exception:
            logger.exception("tools_not_refreshed")

    def count(self, outcome: ToolOutcome) -> None:
        """Count a call that has ended, made or not."""
        name = outcome.request.name
        outcome.count(self._metrics, name if self._spec(name) else UNKNOWN)

    def effect(self, name: str) -> Effect:
        """Return the tool's effect class.

        While the list of tools is unknown it is the strictest, `effect`; a tool that does not exist is `pure`.
        """
        if name == KNOWLEDGE_SEARCH:
            return self._search_spec.effect
        spec = self._spec(name)
        if spec is None:
            return "pure" if self._specs else "effect"
        return spec.effect

    def sensitive_values(self, request: ToolRequest) -> list[Any]:
        """Return the values among the arguments that must not leave the service."""
        spec = self._spec(request.name)
        return spec.sensitive_values(request.arguments) if spec else []

    async def call(
        self, context: Context, request: ToolRequest, key: IdempotencyKey, budget: RetryBudget
    ) -> ToolOutcome:
        """Make one call.

        A dependency that is down or hangs is a result that says so. A call whose replica dies is sent to another one,
        under the same key, unless it has an effect. Retries are made on the other side, as far as the request's
        `budget` grants them.
        """
        spec = self._spec(request.name)
        begun = time.monotonic()
        with hide_in_logs(self.sensitive_values(request)):
            try:
                outcome = await self._call_within_budget(context, request, key, budget)
            except (TimeoutError, ServeAppError) as error:
                outcome = ToolOutcome(request, _result_without_answer(request.name, spec, error, begun))
            result, arguments = outcome.result, mask_sensitive(request.arguments, spec.sensitive if spec else ())
            fields = {"tool": request.name, "arguments": arguments, "status": result.status}
            times = {"attempts": result.attempts, "elapsed_ms": result.elapsed_ms}
            logger.debug("tool_called", extra={**fields, **times})
        return outcome

    async def _call_within_budget(
        self, context: Context, request: ToolRequest, key: IdempotencyKey, budget: RetryBudget
    ) -> ToolOutcome:
        """Make the call with the retries that the budget grants, within their time.

        Raises:
            TimeoutError: the other side did not answer in time.
            ServeAppError: no replica answered, or it refused.
        """
        spec = self._spec(request.name)
        with budget.reserve(spec.attempts - 1 if spec else 0) as allowance:
            allowance.used = allowance.granted  # by a replica that does not answer
            granting = context.model_copy(update={"retries": allowance.granted})
            limit_s = GRACE_S
            if spec:
                limit_s += max_duration_s(spec.timeout_s, allowance.granted) + (spec.standby_s or 0)
            async with asyncio.timeout(limit_s):
                pauses_s = () if self.effect(request.name) == "effect" else FAILOVER_PAUSES_S
                send = partial(self._send, granting, request, key, time.monotonic())
                outcome = await retry_after(send, pauses_s, (ToolUnavailable, RetrieverUnavailable))
            allowance.used = outcome.result.retries
        return outcome

    async def _send(self, context: Context, request: ToolRequest, key: IdempotencyKey, begun: float) -> ToolOutcome:
        if request.name == KNOWLEDGE_SEARCH:
            return await self._search(context, request, begun)
        return ToolOutcome(request, await self._tools.call(context, request, key))

    async def _search(self, context: Context, request: ToolRequest, begun: float) -> ToolOutcome:
        query = request.arguments.get("query")
        if not isinstance(query, str) or not query.strip():
            reason = "wrong arguments for knowledge_search: query: a non-empty string is required"
            return ToolOutcome(request, ToolResult.not_run(reason))
        found = await self._retriever.search(context, query)
        status: CallStatus = "standby" if found.standby else "ok"
        result = ToolResult(content="", status=status, attempts=1, elapsed_ms=elapsed_ms(begun))
        return ToolOutcome(request, result, tuple(found.passages), found.lexical_only)

    def _spec(self, name: str) -> ToolSpec | None:
        return self._specs.get(name)


def to_function_schema(spec: ToolSpec) -> dict[str, Any]:
    """Return the tool as models read it: a function with a JSON schema."""
    function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": function}


def _result_without_answer(
    name: str, spec: ToolSpec | None, error: TimeoutError | ServeAppError, begun: float
) -> ToolResult:
    """Return the result of a call that no replica answered."""
    if spec is not None and spec.effect == "effect" and not isinstance(error, Overloaded):
        return ToolResult.unknown(name, 1, elapsed_ms(begun))
    if isinstance(error, TimeoutError | DeadlineExceeded):
        return ToolResult.timed_out(name, 1, elapsed_ms(begun))
    content = f"error: {name} is not available now"
    return ToolResult(content=content, status="error", attempts=1, elapsed_ms=elapsed_ms(begun))


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What one call brought, and the passages in it."""

    request: ToolRequest
    result: ToolResult
    passages: tuple[Passage, ...] = ()
    lexical_only: bool = False
    """Whether the passages were found by words alone, where meaning should have counted too."""

    @property
    def succeeded(self) -> bool:
        """Whether the tool, or its standby, has answered."""
        return self.result.status in SUCCESSFUL

    @property
    def call(self) -> ToolCall:
        """The call as the client sees it."""
        return ToolCall(
            name=self.request.name,
            arguments=self.request.arguments,
            status=self.result.status,
            attempts=self.result.attempts,
            elapsed_ms=self.result.elapsed_ms,
        )

    @property
    def purpose(self) -> str:
        """What the call was for: the tool with these arguments.

        All searches have the same purpose.
        """
        if self.request.name == KNOWLEDGE_SEARCH:
            return KNOWLEDGE_SEARCH
        return f"{self.request.name} {json.dumps(self.request.arguments, sort_keys=True)}"

    @property
    def missing(self) -> str | None:
        """What the answer lacks after this call.

        A wrong argument is the model's fault and lacks nothing.
        """
        result = self.result
        complete = self.succeeded and not self.lexical_only
        if complete or (result.status == "error" and result.attempts == 0):
            return None
        return "retriever" if self.request.name == KNOWLEDGE_SEARCH else f"tool:{self.request.name}"

    def content(self, passages_before: int) -> str:
        """Return what the model reads; passages are numbered on after those `passages_before` in the turn.

        It goes into a message of its own, of the role tool: the provider's protocol separates that from instructions,
        and no text can break out of it, as it could out of delimiters.
        """
        if self.request.name == KNOWLEDGE_SEARCH and self.succeeded:
            return format_passages(list(self.passages), passages_before + 1)
        return self.result.content

    def count(self, metrics: ports.Metrics, tool: str) -> None:
        """Count the call under the label `tool`.

        A search that was made counts as a retrieval and as no tool call.
        """
        result = self.result
        if self.request.name == KNOWLEDGE_SEARCH and result.attempts:
            self._count_search(metrics)
            return
        metrics.count(TOOL_CALLS, tool=tool, outcome=result.status)
        if result.attempts:
            metrics.count(TOOL_ATTEMPTS, result.attempts, tool=tool)
            metrics.observe(TOOL_S, result.elapsed_ms / 1000, tool=tool)

    def _count_search(self, metrics: ports.Metrics) -> None:
        status = self.result.status
        how = status if self.succeeded else "timeout" if status == "timeout" else "error"
        metrics.count(RETRIEVALS, outcome="lexical_only" if self.lexical_only else how)
        metrics.observe(RETRIEVAL_S, self.result.elapsed_ms / 1000)
        if self.succeeded:
            metrics.count(RETRIEVAL_PASSAGES, len(self.passages))
            if not self.passages:
                metrics.count(RETRIEVAL_EMPTY)

    def record(self, span: ports.Span) -> None:
        """Record in the span how the call went.

        Its time is that of the process that ran the tool.
        """
        result = self.result
        span.set_attributes(
            tool=self.request.name,
            call_id=self.request.id,
            outcome=result.status,
            attempts=result.attempts,
            standby=result.status == "standby",
            elapsed_ms=result.elapsed_ms,
        )
        if self.passages:
            span.set_attributes(passages=len(self.passages), lexical_only=self.lexical_only)
        if not self.succeeded:
            span.set_error(f"{result.status}: {result.content}")
        span.set_outputs(self._outputs)

    def _outputs(self) -> Any:
        passages = [{"content": each.text, "source": each.source, "score": each.score} for each in self.passages]
        return {"documents": passages} if passages else self.result.content
