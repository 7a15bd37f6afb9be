"""How is one call made: with how many attempts, past which breaker, and by whom in its place?"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serve_app.errors import DeadlineExceeded, ToolUnavailable
from serve_app.observability.traceparent import carrying, passed_on
from serve_app.resilience.deadline import elapsed_ms, limit_s, remaining_s, until
from serve_app.resilience.faults import GARBAGE, strike
from serve_app.resilience.retry import retry
from serve_app.tools.contained import Crashed, contained
from serve_app.tools.failures import BrokenOff, Late, Transient, Unreachable, translated
from serve_app.tools.tool import Said, WrongArguments
from serve_app.values import ToolResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serve_app.resilience.circuit import Circuit
    from serve_app.tools.tool import Tool
    from serve_app.values import Context, IdempotencyKey, ToolRequest, ToolSpec

logger = logging.getLogger(__name__)

FAULT = "a fault set on purpose"


@dataclass(frozen=True, slots=True)
class Line:
    """A tool, and everything that a call of it goes by."""

    tool: Tool
    circuit: Circuit
    retry_on: tuple[type[Transient], ...]
    standby: Line | None = None
    max_result_characters: int = 100_000

    @property
    def spec(self) -> ToolSpec:
        spec = self.tool.spec
        return spec.model_copy(update={"standby_s": self.standby.tool.spec.timeout_s}) if self.standby else spec

    async def close(self) -> None:
        """Let go of what the tool and its own second endpoint hold."""
        await self.tool.close()
        if self.standby:
            await self.standby.close()


class Call:
    """One call of a tool, and the attempts that it has taken so far."""

    def __init__(self, context: Context, request: ToolRequest, key: IdempotencyKey) -> None:
        self.context = context
        self.request = request
        self.key = key
        self.attempts = 0
        self._begun = time.monotonic()
        self._until = until(context)

    async def through(self, line: Line) -> ToolResult:
        """The result: the tool's; after its attempts have failed, that of one attempt of its standby."""
        try:
            given = line.tool.read(self.request.arguments)
        except WrongArguments as error:
            return ToolResult.not_run(f"wrong arguments for {self.request.name}: {error}")
        allowed = line.spec.attempts if self.context.retries is None else 1 + self.context.retries
        try:
            said = await self._tried(line, given, min(line.spec.attempts, allowed))
        except (Transient, ToolUnavailable, DeadlineExceeded) as failure:
            logger.warning("tool_failed", extra={"tool": self.request.name, "error": repr(failure)})
            own = self.attempts
            result = await self._instead(line) or self._failed(line.spec, failure)
            return result.model_copy(update={"by_standby": self.attempts - own})
        return self._result(said, "ok")

    async def _instead(self, line: Line) -> ToolResult | None:
        """What the standby says; None where there is none, or it does not help either."""
        if line.standby is None:
            return None
        try:
            said = await self._tried(line.standby, line.standby.tool.read(self.request.arguments), 1)
        except (Transient, ToolUnavailable, DeadlineExceeded, WrongArguments) as failure:
            name = line.standby.circuit.name
            logger.warning("standby_failed", extra={"tool": name, "error": repr(failure)})
            return None
        return self._result(said, "standby")

    async def _tried(self, line: Line, given: Mapping[str, Any], attempts: int) -> Said:
        async def attempt() -> Said:
            return await self._once(line, given)

        return await retry(attempt, attempts, remaining_s(self._until), line.retry_on)

    async def _once(self, line: Line, given: Mapping[str, Any]) -> Said:
        """One attempt; the tool's own error is an answer, what may pass is raised.

        Raises:
            Transient: the call failed, and counts against the tool.
            ToolUnavailable: its breaker is open; nothing was asked.
            DeadlineExceeded: the request's time is over, for which the tool is not to blame.
        """
        timeout_s = line.tool.spec.timeout_s
        left_s = limit_s(self._until, timeout_s)
        with line.circuit.passing(ToolUnavailable, (Transient,)):
            self.attempts += 1
            try:
                with translated():
                    async with asyncio.timeout(left_s):
                        if await strike(self.context.faults, f"tool:{line.circuit.name}", ConnectionError(FAULT)):
                            return Said(GARBAGE)
                        with carrying(passed_on(self.context)):
                            return await contained(line.tool.ask(given, self.key))
            except Late:
                if left_s < timeout_s:
                    raise DeadlineExceeded("The request's time ran out") from None
                raise
            except (Transient, MemoryError):
                raise
            except Exception as error:
                if isinstance(error, Crashed) and line.tool.spec.effect == "effect":
                    raise BrokenOff from error
                logger.warning("tool_failed", extra={"tool": self.request.name}, exc_info=error)
                kind = str(error) if isinstance(error, Crashed) else type(error).__name__
                return Said(f"error: {self.request.name} failed ({kind})", well=False)

    def _result(self, said: Said, status: Any) -> ToolResult:
        return ToolResult(
            content=said.content,
            status=status if said.well else "error",
            attempts=self.attempts,
            elapsed_ms=elapsed_ms(self._begun),
        )

    def _failed(self, spec: ToolSpec, failure: Exception) -> ToolResult:
        """The result of a call that brought no answer; whoever may have done a deed is not asked again."""
        name, taken_ms = self.request.name, elapsed_ms(self._begun)
        if not self.attempts and isinstance(failure, ToolUnavailable):
            return ToolResult.refused(name, "it has failed again and again, and is left alone for a while")
        if self.attempts and spec.effect == "effect" and not isinstance(failure, Unreachable):
            return ToolResult.unknown(name, self.attempts, taken_ms)
        if isinstance(failure, Late | DeadlineExceeded):
            return ToolResult.timed_out(name, self.attempts, taken_ms)
        what = failure.what if isinstance(failure, Transient) else Unreachable.what
        return ToolResult(content=f"error: {name} {what}", status="error", attempts=self.attempts, elapsed_ms=taken_ms)
