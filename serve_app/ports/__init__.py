"""Which verbs are there, whoever does them?"""

from serve_app.ports.serving import Agent, Faults, Feedback, Lines, Retriever, Runs, Tools
from serve_app.ports.watching import Fact, Metrics, Nodes, Span, SpanKind, Telling, Tracer, TurnSpan

__all__ = [
    "Agent",
    "Fact",
    "Faults",
    "Feedback",
    "Lines",
    "Metrics",
    "Nodes",
    "Retriever",
    "Runs",
    "Span",
    "SpanKind",
    "Telling",
    "Tools",
    "Tracer",
    "TurnSpan",
]
