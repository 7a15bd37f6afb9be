"""Who stands behind the API?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve_app.observability.recorders import SILENT

if TYPE_CHECKING:
    from serve_app.http.auth import Gate
    from serve_app.http.places import Admission
    from serve_app.ports import Agent, Faults, Feedback, Keys, Limiter, Lines, Metrics, Nodes, Retriever, Runs, Tools


@dataclass(frozen=True, slots=True)
class Parts:
    """The other parts of the service, each by its port."""

    agent: Agent
    runs: Runs
    retriever: Retriever
    tools: Tools
    lines: Lines
    feedback: Feedback
    nodes: Nodes
    keys: Keys
    gate: Gate | None = None
    """None where no key is asked for."""
    faults: Faults | None = None
    """None where nothing goes wrong on purpose."""
    limiter: Limiter | None = None
    """None where nobody counts what is asked for."""
    admission: Admission | None = None
    """None where all turns are served at once."""
    metrics: Metrics = SILENT
    model_name: str = ""
    """The model behind the agent, as it is configured."""
