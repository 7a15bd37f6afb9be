"""The process that keeps the embedded Redis and Milvus Lite running."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

import ray
from ray import serve

from serve_app.deployments.embedded_stores import EmbeddedStores
from serve_app.deployments.replica_logs import redact_logs
from serve_app.deployments.replica_metrics import create_metrics
from serve_app.errors import Internal, InvalidConfiguration, Problem
from serve_app.observability.process_metrics import report_process_metrics

if TYPE_CHECKING:
    from pathlib import Path

    from serve_app.config import ObservabilitySettings
    from serve_app.deployments.data_folder import StorePorts
    from serve_app.values import DependencyCheck


@serve.deployment(
    num_replicas=1,
    max_surge_percent=0,  # the folder has one owner: the old replica ends before the new one starts
    max_ongoing_requests=100,
    ray_actor_options={"num_cpus": 0.1},
    graceful_shutdown_wait_loop_s=0.1,
    graceful_shutdown_timeout_s=20,  # both stores may use up their `STOP_S`, twice
    health_check_period_s=1,  # bounds how long the death of the replica, and with it of both stores, goes unnoticed
)
class StoresDeployment:
    """Answers once the stores do. Its replica's death ends them, and its successor starts them on the same ports."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, data_dir: Path, ports: StorePorts, telling: ObservabilitySettings, *, redis: bool, milvus: bool
    ) -> None:
        redact_logs(telling)
        self._stores = EmbeddedStores(data_dir, ports, redis=redis, milvus=milvus)
        require_single_node(sum(node["Alive"] for node in ray.nodes()))
        self._stores.start()
        self._beating = asyncio.create_task(
            report_process_metrics(create_metrics(exported=telling.metrics)), context=contextvars.Context()
        )

    async def ready(self) -> list[DependencyCheck]:
        """The state of each store, asked now."""
        return await asyncio.to_thread(self._stores.checks)

    def check_health(self) -> None:
        # A store that is being started again is no reason to replace the replica: that would end the other one, too.
        if not self._stores.supervised:
            raise Internal("nobody would notice the death of a store")

    def __del__(self) -> None:
        self._stores.stop()


def require_single_node(nodes: int) -> None:
    """Refuse stores on loopback where a replica on another machine would look for them in vain.

    Raises:
        InvalidConfiguration: the cluster has more than one node.
    """
    if nodes > 1:
        mend = "Name servers that every node reaches: redis: redis://host:port/0 and milvus: http://host:port"
        raise InvalidConfiguration((Problem("redis, milvus", f"`embedded` serves one node, not {nodes}", mend),))
