"""Which verbs are there, whoever does them?"""

from serve_app.ports.access import Access, Keys
from serve_app.ports.admitting import Limiter, Meter, Tenants
from serve_app.ports.serving import Agent, Faults, Feedback, Lines, Retriever, Runs, Tools
from serve_app.ports.watching import Fact, Metrics, Nodes, Span, SpanKind, Telling, Tracer, TurnSpan

__all__ = [
    "Access",
    "Agent",
    "Fact",
    "Faults",
    "Feedback",
    "Keys",
    "Limiter",
    "Lines",
    "Meter",
    "Metrics",
    "Nodes",
    "Retriever",
    "Runs",
    "Span",
    "SpanKind",
    "Telling",
    "Tenants",
    "Tools",
    "Tracer",
    "TurnSpan",
]
