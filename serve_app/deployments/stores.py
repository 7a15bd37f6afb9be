"""The deployment that runs the embedded Redis and Milvus Lite."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import ray
from ray import serve

from serve_app.deployments.embedded_stores import STOP_S, EmbeddedStores
from serve_app.deployments.runtime import ReplicaRuntime
from serve_app.errors import Internal, InvalidConfiguration, Problem

if TYPE_CHECKING:
    from pathlib import Path

    from serve_app.config import ObservabilitySettings
    from serve_app.deployments.embedded_stores import StorePorts
    from serve_app.values import DependencyCheck

STOP_TIMEOUT_S = 4 * STOP_S
"""Each of the two stores may use up its time twice: after SIGTERM, and after SIGKILL."""


@serve.deployment(
    name="Stores",
    num_replicas=1,
    max_surge_percent=0,  # the folder has one owner: the old replica ends before the new one starts
    max_ongoing_requests=100,
    ray_actor_options={"num_cpus": 0.1},
    graceful_shutdown_wait_loop_s=0.1,
    graceful_shutdown_timeout_s=STOP_TIMEOUT_S,
    health_check_period_s=1,  # bounds how long the death of the replica, and with it of both stores, goes unnoticed
)
class StoresDeployment:
    """The embedded stores.

    When its replica dies they end, and the next replica starts them on the same ports.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, data_dir: Path, ports: StorePorts, observability: ObservabilitySettings, *, redis: bool, milvus: bool
    ) -> None:
        self._runtime = ReplicaRuntime(observability)
        self._stores = EmbeddedStores(data_dir, ports, redis=redis, milvus=milvus)
        require_single_node(sum(node["Alive"] for node in ray.nodes()))
        try:
            self._stores.start()
        except BaseException:
            self._stores.stop()
            raise
        self._runtime.on_close("stores", partial(asyncio.to_thread, self._stores.stop), STOP_TIMEOUT_S)
        self._runtime.start_process_metrics()

    async def checks(self) -> list[DependencyCheck]:
        """Return the state of each store now."""
        return await asyncio.to_thread(self._stores.checks)

    def check_health(self) -> None:
        # A store that is being started again is no reason to replace the replica: that would end the other one, too.
        if not self._stores.supervised:
            raise Internal("The death of a store would go unnoticed")
        self._runtime.check_tasks()

    async def __del__(self) -> None:
        await self._runtime.close()


def require_single_node(nodes: int) -> None:
    """Check that the cluster has one node: no other node reaches stores on loopback.

    Raises:
        InvalidConfiguration: the cluster has more than one node.
    """
    if nodes > 1:
        fix = "Name servers that every node reaches: redis: redis://host:port/0 and milvus: http://host:port"
        raise InvalidConfiguration((Problem("redis, milvus", f"`embedded` serves one node, not {nodes}", fix),))
