"""The process that runs tools, so that none runs in an agent's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray import serve

from serve_app.tools.runner import Runner

if TYPE_CHECKING:
    from serve_app.config import Settings
    from serve_app.values import Check, Context, IdempotencyKey, ToolRequest, ToolResult, ToolSpec


@serve.deployment
class Tools:
    """`ports.Tools`, as a deployment."""

    def __init__(self, settings: Settings) -> None:
        self._runner = Runner(settings.tools.named, [settings.orders], settings.egress.private_hosts)

    async def specs(self) -> list[ToolSpec]:
        return await self._runner.specs()

    async def call(self, context: Context, request: ToolRequest, key: IdempotencyKey) -> ToolResult:
        return await self._runner.call(context, request, key)

    async def checks(self) -> list[Check]:
        return await self._runner.checks()
