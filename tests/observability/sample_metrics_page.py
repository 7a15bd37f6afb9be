"""A metrics page as a busy service has it: every metric of the catalogue, with likely labels, rising."""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from serve_app.observability import metric_catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serve_app.values import Metric

LABELS = {
    "variant": ("stable",),
    "part": ("model", "tool:order_query", "retriever", "memory"),
    "route": ("/agent/chat", "/readyz"),
    "code": ("ok", "overloaded", "rate_limited"),
    "operation": ("ask", "charge"),
    "model": ("openai:glm-4", "offline"),
    "direction": ("input", "output"),
    "tool": ("order_query", "track_parcel"),
    "dependency": ("model:openai:glm-4", "tool:order_query", "milvus"),
    "store": ("redis", "milvus"),
    "rating": ("up", "down"),
    "sink": ("langsmith", "otlp"),
}
OUTCOMES = {
    "serve_app_turns_total": ("success", "degraded", "error", "cancelled"),
    "serve_app_turn_seconds": ("success", "degraded", "error", "cancelled"),
    "serve_app_responses_total": ("200", "503"),
    "serve_app_turns_refused_total": ("queue_full", "rate_limited"),
    "serve_app_model_calls_total": ("ok", "timeout", "rate_limited"),
    "serve_app_tool_calls_total": ("ok", "error", "timeout", "standby", "unknown", "refused"),
    "serve_app_retrievals_total": ("ok", "standby", "lexical_only", "error", "timeout"),
    "serve_app_sessions_repaired_total": ("mended", "set_aside"),
    "serve_app_store_calls_total": ("ok", "error"),
    "serve_app_cache_lookups_total": ("hit", "joined", "miss", "bypassed"),
}
"""What `status` and `outcome` may be differs by metric."""

WHERE = 'application="serve_app",deployment="Agent",replica="{replica}"'
RAYS = """\
serve_app_scrape_up{node="192.0.2.7"} 1
ray_cluster_active_nodes{node_type="head"} 1
ray_node_mem_total{ip="192.0.2.7"} 8e9
ray_node_mem_used{ip="192.0.2.7"} 3e9
ray_node_cpu_utilization{ip="192.0.2.7"} 40
ray_node_disk_utilization_percentage{ip="192.0.2.7"} 40
"""
RAYS_BY_DEPLOYMENT = {
    "ray_serve_deployment_status": 6,
    "ray_serve_autoscaling_desired_replicas": 2,
    "ray_serve_autoscaling_target_replicas": 2,
    "ray_serve_deployment_queued_queries": 1,
}
RAYS_BY_REPLICA = {
    "ray_serve_deployment_replica_healthy": 1,
    "ray_serve_replica_processing_queries": 7,
    "ray_serve_replica_utilization_percent": 30,
}


def page(seconds: float) -> str:
    """The page after so many seconds of traffic on two replicas."""
    lines = [RAYS.rstrip()]
    for name, value in RAYS_BY_DEPLOYMENT.items():
        lines += [f'{name}{{application="serve_app",deployment="{each}"}} {value}' for each in ("Agent", "Tools")]
    for replica in ("aaaa0001", "bbbb0002"):
        where = WHERE.format(replica=replica)
        lines += [f"{name}{{{where}}} {value}" for name, value in RAYS_BY_REPLICA.items()]
        for metric in metric_catalogue.ALL:
            for labels in _label_sets(metric):
                lines += _samples(metric, ",".join([where, *labels]), seconds)
    return "\n".join(lines) + "\n"


def _label_sets(metric: Metric) -> Iterator[tuple[str, ...]]:
    values = [LABELS.get(label) or OUTCOMES[metric.name] for label in metric.labels]
    for chosen in itertools.product(*values):
        yield tuple(f'{label}="{value}"' for label, value in zip(metric.labels, chosen, strict=True))


def _samples(metric: Metric, labels: str, seconds: float) -> Iterator[str]:
    name = f"ray_{metric.name}"
    if metric.kind == "counter":
        yield f"{name}{{{labels}}} {int(10 * seconds)}"
    elif metric.kind == "gauge":
        yield f"{name}{{{labels}}} 1"
    else:
        bounds = [*map(float, metric.buckets), float("inf")]
        for rank, bound in enumerate(bounds, start=1):
            le = "+Inf" if bound == float("inf") else bound
            yield f'{name}_bucket{{{labels},le="{le}"}} {int(10 * seconds * rank / len(bounds))}'
        yield f"{name}_count{{{labels}}} {int(10 * seconds)}"
        yield f"{name}_sum{{{labels}}} {10 * seconds}"


@contextmanager
def serve_page(answer: Callable[[float], str] = page) -> Iterator[str]:
    """A server whose every path is the page of now; its host:port."""
    begun = time.monotonic()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answer(time.monotonic() - begun).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(timeout=10)
