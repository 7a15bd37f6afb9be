"""The processes that run tools, so that none runs in an agent's."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

from ray import serve

from serve_app.deployments.memory_limit import limit_memory
from serve_app.deployments.replica_logs import redact_logs
from serve_app.deployments.replica_metrics import create_metrics
from serve_app.errors import ToolUnavailable
from serve_app.observability.process_metrics import report_process_metrics
from serve_app.observability.tracing import disable_langchain_tracing
from serve_app.resilience.tasks import cancel_and_wait
from serve_app.tools.tool_runner import ToolRunner

if TYPE_CHECKING:
    from ray.serve import Application

    from serve_app.config import Settings
    from serve_app.values import Context, DependencyCheck, IdempotencyKey, ToolRequest, ToolResult, ToolSpec


@serve.deployment
class ToolsDeployment:
    """`ports.Tools`, as a deployment: the tools of one group, or those of none."""

    async def __init__(self, settings: Settings, group: str | None) -> None:  # type: ignore[misc]  # Serve awaits it
        redact_logs(settings.observability)
        disable_langchain_tracing()
        tools = settings.tools
        self._runner = ToolRunner(
            tools.by_name, [settings.orders], settings.egress.private_hosts, tools.names_of_group(group)
        )
        self._runner.start()
        beating = report_process_metrics(create_metrics(exported=settings.observability.metrics), self._breakers)
        self._beating = asyncio.create_task(beating, context=contextvars.Context())
        limit_mb = tools.groups[group].memory_mb if group else None
        if limit_mb:
            limit_memory(limit_mb)

    async def specs(self) -> list[ToolSpec]:
        return await self._runner.specs()

    async def call(self, context: Context, request: ToolRequest, key: IdempotencyKey) -> ToolResult:
        return await self._runner.call(context, request, key)

    async def checks(self) -> list[DependencyCheck]:
        return await self._runner.checks()

    def check_health(self) -> None:
        """A process that has come to the end of its memory may never have enough again: another takes its place."""
        if self._runner.out_of_memory:
            raise ToolUnavailable("out of memory")

    async def __del__(self) -> None:
        await cancel_and_wait(self._beating)
        await self._runner.close()

    def _breakers(self) -> dict[str, str]:
        return {name: circuit.state for name, circuit in self._runner.circuits.items()}


def bind_tool_groups(settings: Settings) -> dict[str | None, Application]:
    """A deployment for the tools of no group, `Tools`, and one for each group, `Tools-NAME`."""
    named = {group: "Tools" if group is None else f"Tools-{group}" for group in (None, *settings.tools.groups)}
    return {group: ToolsDeployment.options(name=name).bind(settings, group) for group, name in named.items()}
