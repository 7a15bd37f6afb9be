"""The deployment that runs tools, so that no tool runs in an agent's process."""

from __future__ import annotations

import logging
import resource
from typing import TYPE_CHECKING

from ray import serve

from serve_app.deployments.runtime import ReplicaRuntime
from serve_app.errors import ToolUnavailable
from serve_app.observability.metrics import STATM
from serve_app.observability.tracing import disable_langchain_tracing
from serve_app.tools.registry import ToolRegistry

if TYPE_CHECKING:
    from ray.serve import Application

    from serve_app.config import Settings
    from serve_app.values import Context, DependencyCheck, IdempotencyKey, ToolRequest, ToolResult, ToolSpec

logger = logging.getLogger(__name__)

MB = 2**20


@serve.deployment(name="Tools")
class ToolsDeployment:
    """The tools of one group, or those of no group; implements `ports.Tools`."""

    async def __init__(self, settings: Settings, group: str | None) -> None:  # type: ignore[misc]  # Serve awaits it
        self._runtime = ReplicaRuntime(settings.observability)
        disable_langchain_tracing()
        tools = settings.tools
        self._registry = ToolRegistry(
            tools.by_name, [settings.orders], settings.egress.private_hosts, tools.names_of_group(group)
        )
        self._registry.start()
        self._runtime.on_close("tools", self._registry.close)
        self._runtime.start_process_metrics(self._breakers)
        limit_mb = tools.groups[group].memory_mb if group else None
        if limit_mb:
            limit_memory(limit_mb)

    async def specs(self) -> list[ToolSpec]:
        return await self._registry.specs()

    async def call(self, context: Context, request: ToolRequest, key: IdempotencyKey) -> ToolResult:
        return await self._registry.call(context, request, key)

    async def checks(self) -> list[DependencyCheck]:
        return await self._registry.checks()

    def check_health(self) -> None:
        """Have Serve replace a process that ran out of memory or lost a background task."""
        if self._registry.out_of_memory:
            raise ToolUnavailable("out of memory")
        self._runtime.check_tasks()

    async def __del__(self) -> None:
        await self._runtime.close()

    def _breakers(self) -> dict[str, str]:
        return {name: circuit.state for name, circuit in self._registry.circuits.items()}


def bind_tool_groups(settings: Settings) -> dict[str | None, Application]:
    """Return the deployment `Tools`, for tools of no group, and one `Tools-NAME` a group."""
    names = {group: "Tools" if group is None else f"Tools-{group}" for group in (None, *settings.tools.groups)}
    return {group: ToolsDeployment.options(name=name).bind(settings, group) for group, name in names.items()}


def limit_memory(beyond_mb: int) -> None:
    """Let this process use `beyond_mb` more than now; beyond it, `MemoryError` is raised.

    The limit is on addresses (RLIMIT_AS). A Ray worker has mapped nearly 8 GB of them at its start, most of it shared
    memory that it does not use, so only the increase means anything: with 256 MB more, a program that allocates without
    end stopped at 282 MB, and the process survived. A thread takes 8 MB for its stack.
    """
    if not STATM.exists():
        logger.warning("memory_not_limited", extra={"reason": "this system does not show the memory of a process"})
        return
    used = int(STATM.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + beyond_mb * MB, most))
