"""Invokes a tool with retries, circuit breaker, time-out and standby, and survives its crash."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from serve_app.errors import DeadlineExceeded, ToolUnavailable
from serve_app.observability.traceparent import outgoing_traceparent, use_traceparent
from serve_app.resilience.deadline import call_timeout_s, elapsed_ms, local_deadline, remaining_s
from serve_app.resilience.fault_injection import GARBAGE, inject_fault
from serve_app.resilience.retry import retry
from serve_app.tools.tool import (
    EffectInterrupted,
    RetryableToolError,
    ToolReply,
    ToolTimeout,
    ToolUnreachable,
    WrongArguments,
    translate_errors,
)
from serve_app.values import ToolResult

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from serve_app.resilience.circuit_breaker import GuardedCalls
    from serve_app.tools.tool import Tool
    from serve_app.values import Context, IdempotencyKey, ToolRequest, ToolSpec

logger = logging.getLogger(__name__)

T = TypeVar("T")

FAULT = "an injected fault"
CANCEL_TIMEOUT_S = 1.0
"""How long a cancelled tool may take to stop. After that, its call ends without it."""


@dataclass(frozen=True, slots=True)
class GuardedTool:
    """A tool with its circuit breaker, its retry rule and its standby."""

    tool: Tool
    circuit: GuardedCalls
    retry_on: tuple[type[RetryableToolError], ...]
    standby: GuardedTool | None = None
    max_result_characters: int = 100_000

    @property
    def spec(self) -> ToolSpec:
        spec = self.tool.spec
        return spec.model_copy(update={"standby_s": self.standby.tool.spec.timeout_s}) if self.standby else spec

    async def close(self) -> None:
        """Close the tool and its standby."""
        await self.tool.close()
        if self.standby:
            await self.standby.close()


class ToolInvocation:
    """One call by a model, and the attempts that it has taken."""

    def __init__(self, context: Context, request: ToolRequest, key: IdempotencyKey) -> None:
        self.context = context
        self.request = request
        self.key = key
        self.attempts = 0
        self._started = time.monotonic()
        self._deadline = local_deadline(context)

    async def run(self, guarded: GuardedTool) -> ToolResult:
        """The tool's result; if all attempts fail, the result of one attempt of the standby."""
        try:
            arguments = guarded.tool.read_arguments(self.request.arguments)
        except WrongArguments as error:
            return ToolResult.not_run(f"wrong arguments for {self.request.name}: {error}")
        allowed = guarded.spec.attempts if self.context.retries is None else 1 + self.context.retries
        try:
            reply = await self._attempt_repeatedly(guarded, arguments, min(guarded.spec.attempts, allowed))
        except (RetryableToolError, ToolUnavailable, DeadlineExceeded) as error:
            logger.warning("tool_failed", extra={"tool": self.request.name, "error": repr(error)})
            own_attempts = self.attempts
            result = await self._run_standby(guarded) or self._failure_result(guarded.spec, error)
            return result.model_copy(update={"by_standby": self.attempts - own_attempts})
        return self._result(reply, "ok")

    async def _run_standby(self, guarded: GuardedTool) -> ToolResult | None:
        """The standby's result; None if there is no standby or it fails too."""
        if guarded.standby is None:
            return None
        try:
            arguments = guarded.standby.tool.read_arguments(self.request.arguments)
            reply = await self._attempt_repeatedly(guarded.standby, arguments, 1)
        except (RetryableToolError, ToolUnavailable, DeadlineExceeded, WrongArguments) as error:
            logger.warning("standby_failed", extra={"tool": guarded.standby.circuit.name, "error": repr(error)})
            return None
        return self._result(reply, "standby")

    async def _attempt_repeatedly(
        self, guarded: GuardedTool, arguments: Mapping[str, Any], max_attempts: int
    ) -> ToolReply:
        async def attempt() -> ToolReply:
            return await self._attempt(guarded, arguments)

        return await retry(attempt, max_attempts, remaining_s(self._deadline), guarded.retry_on)

    async def _attempt(self, guarded: GuardedTool, arguments: Mapping[str, Any]) -> ToolReply:
        """Make one attempt. The tool's own error becomes a reply.

        Raises:
            RetryableToolError: the attempt failed; it counts against the circuit breaker.
            ToolUnavailable: the circuit breaker is open; no call was made.
            DeadlineExceeded: the request's time ran out; it does not count against the tool.
        """
        timeout_s = guarded.tool.spec.timeout_s
        left_s = call_timeout_s(self._deadline, timeout_s)
        with guarded.circuit.guard(ToolUnavailable, (RetryableToolError,)):
            self.attempts += 1
            try:
                with translate_errors():
                    async with asyncio.timeout(left_s):
                        fault = f"tool:{guarded.circuit.name}"
                        if await inject_fault(self.context.faults, fault, ConnectionError(FAULT)):
                            return ToolReply(GARBAGE)
                        with use_traceparent(outgoing_traceparent(self.context)):
                            return await run_contained(guarded.tool.call(arguments, self.key))
            except ToolTimeout:
                if left_s < timeout_s:
                    raise DeadlineExceeded("The request's time ran out") from None
                raise
            except (RetryableToolError, MemoryError):
                raise
            except Exception as error:
                if isinstance(error, ToolCrashed) and guarded.tool.spec.effect == "effect":
                    raise EffectInterrupted from error
                logger.warning("tool_raised", extra={"tool": self.request.name}, exc_info=error)
                kind = str(error) if isinstance(error, ToolCrashed) else type(error).__name__
                return ToolReply(f"error: {self.request.name} failed ({kind})", ok=False)

    def _result(self, reply: ToolReply, status: Any) -> ToolResult:
        return ToolResult(
            content=reply.content,
            status=status if reply.ok else "error",
            attempts=self.attempts,
            elapsed_ms=elapsed_ms(self._started),
        )

    def _failure_result(self, spec: ToolSpec, error: Exception) -> ToolResult:
        """The result when no attempt was answered; "outcome unknown" if an effect may have happened."""
        name, elapsed = self.request.name, elapsed_ms(self._started)
        if not self.attempts and isinstance(error, ToolUnavailable):
            return ToolResult.refused(name, "it has failed repeatedly, and its circuit breaker is open")
        if self.attempts and spec.effect == "effect" and not isinstance(error, ToolUnreachable):
            return ToolResult.unknown(name, self.attempts, elapsed)
        if isinstance(error, ToolTimeout | DeadlineExceeded):
            return ToolResult.timed_out(name, self.attempts, elapsed)
        problem = error.problem if isinstance(error, RetryableToolError) else ToolUnreachable.problem
        content = f"error: {name} {problem}"
        return ToolResult(content=content, status="error", attempts=self.attempts, elapsed_ms=elapsed)


class ToolCrashed(Exception):
    """The tool called `sys.exit`, cancelled itself, or raised something that is no `Exception`."""


class _ExitRequested(Exception):
    """Carries `SystemExit` or `KeyboardInterrupt` out of a task, where it would end the event loop."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


async def run_contained(call: Coroutine[Any, Any, T]) -> T:
    """Run a tool's code in its own task, so that it ends no other call.

    A cancellation from outside cancels that task and is raised again. A task that cancels itself has crashed.

    Raises:
        ToolCrashed: the code ended neither with a value nor with an `Exception`.
    """
    task = asyncio.create_task(_catch_exits(call))
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_TIMEOUT_S)
        if task.done() and not task.cancelled():
            task.exception()  # marks it as retrieved: asyncio would log it otherwise
        raise
    if task.cancelled():
        raise ToolCrashed("CancelledError")
    error = task.exception()
    if error is None:
        return task.result()
    cause = error.cause if isinstance(error, _ExitRequested) else error
    if isinstance(cause, Exception):
        raise cause
    raise ToolCrashed(type(cause).__name__) from cause


async def _catch_exits(call: Coroutine[Any, Any, T]) -> T:
    try:
        return await call
    except (SystemExit, KeyboardInterrupt) as error:
        raise _ExitRequested(error) from None
