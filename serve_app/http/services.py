"""The services that the routes call."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serve_app.observability.metrics import NULL_METRICS

if TYPE_CHECKING:
    from serve_app.http.admission_controller import AdmissionController
    from serve_app.http.auth import Authenticator
    from serve_app.observability.metrics_page import MetricsPage
    from serve_app.ports import Agent, Metrics, Retriever, Tools
    from serve_app.runs.event_log import RunEventLog
    from serve_app.runs.feedback import FeedbackStore
    from serve_app.stores.api_key_store import ApiKeyStore
    from serve_app.stores.fault_store import FaultStore
    from serve_app.stores.rate_limiter import RateLimiter
    from serve_app.stores.request_log import RequestLogStore
    from serve_app.stores.run_log import RunLogStore


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes and the middlewares call: the other deployments and the stores."""

    agent: Agent
    runs: RunEventLog
    retriever: Retriever
    tools: Tools
    run_logs: RunLogStore
    feedback: FeedbackStore
    metrics_page: MetricsPage
    keys: ApiKeyStore
    authenticator: Authenticator | None = None
    """None where the service needs no keys."""
    faults: FaultStore | None = None
    """None where fault injection is off."""
    limiter: RateLimiter | None = None
    """None where there are no rate limits."""
    request_logs: RequestLogStore | None = None
    """None where nothing is kept of requests by their id."""
    admission: AdmissionController | None = None
    """None where all turns are served at once."""
    metrics: Metrics = NULL_METRICS
    model_name: str = ""
    """The configured name of the agent's model."""
    started_at: float = field(default_factory=time.monotonic)
    """When this process started, by `time.monotonic`."""
    answered: set[str] = field(default_factory=set)
    """The services that have answered a check of `/readyz` once."""
