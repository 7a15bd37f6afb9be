"""The services that the routes call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve_app.observability.null import NULL_METRICS

if TYPE_CHECKING:
    from serve_app.http.admission_controller import AdmissionController
    from serve_app.http.auth import Authenticator
    from serve_app.ports import Agent, Metrics, Retriever, Tools
    from serve_app.runs.event_log import RunEventLog
    from serve_app.runs.feedback import FeedbackStore
    from serve_app.stores.api_key_store import ApiKeyStore
    from serve_app.stores.fault_store import FaultStore
    from serve_app.stores.rate_limiter import RateLimiter
    from serve_app.stores.run_log import RunLogStore

ReadNodePages = Callable[[], Awaitable[dict[str, str | None]]]
"""Reads each node's metrics page, by the node's address; None for a node that did not answer in time."""


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes and the middlewares call: the other deployments and the stores."""

    agent: Agent
    runs: RunEventLog
    retriever: Retriever
    tools: Tools
    lines: RunLogStore
    feedback: FeedbackStore
    read_node_pages: ReadNodePages
    keys: ApiKeyStore
    authenticator: Authenticator | None = None
    """None where the service needs no keys."""
    faults: FaultStore | None = None
    """None where fault injection is off."""
    limiter: RateLimiter | None = None
    """None where there are no rate limits."""
    admission: AdmissionController | None = None
    """None where all turns are served at once."""
    metrics: Metrics = NULL_METRICS
    model_name: str = ""
    """The configured name of the agent's model."""
