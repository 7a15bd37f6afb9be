"""Values for operators: dependency checks, fault injection, run logs and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from serve_app.values.value import Value


class DependencyCheck(Value):
    """The state of one dependency, as `/readyz` reports it.

    Without a dependency that is not `required`, turns are still answered, some of them degraded.
    """

    name: str
    ok: bool
    reason: str | None = None
    """Why the dependency is not ok."""
    required: bool = True


FaultMode = Literal["timeout", "error", "slow", "garbage"]
"""What an affected call does: never answer, fail, answer late, or answer with unreadable data."""

FaultTarget = Annotated[
    str,
    Field(
        pattern=r"^(tool:[A-Za-z_][A-Za-z0-9_-]{0,63}|model(:[!-~]{1,128})?|retriever|embedding)$",
        description="Where calls fail: `tool:NAME`, `model` for every model, `model:NAME`, `retriever` or `embedding`.",
    ),
]


class Fault(Value):
    """An active injected fault: which calls it affects, how often, and until when."""

    target: FaultTarget
    mode: FaultMode
    rate: float = Field(ge=0, le=1, description="The share of calls that are affected.")
    delay_s: float = Field(ge=0, description="The added delay of a `slow` call, in seconds.")
    until: float = Field(description="Unix time in seconds.")


class FaultList(Value):
    """The active faults, sorted by target."""

    faults: tuple[Fault, ...]


class RunLogLine(Value):
    """One log line of a run, redacted as in the log files."""

    ts: str = Field(description="The time, in UTC.")
    level: str
    process: str = Field(description="The deployment and its replica.")
    event: str
    fields: dict[str, Any] = Field(description="The fields of the event.")
    exception: str | None = Field(default=None, description="The end of the traceback.")


class RunLogLines(Value):
    """The latest log lines of a run, from all processes, in order."""

    run_id: str
    lines: tuple[RunLogLine, ...]


class RequestLogLines(Value):
    """What became of a request: its run with the run's log lines, or its refusal."""

    request_id: str
    run_id: str | None = Field(description="The run that the request started or joined; null of a refused turn.")
    lines: tuple[RunLogLine, ...]


MetricKind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """A Prometheus metric. Two metrics are equal only if they are the same object.

    Label values must come from the configuration, from a route template or from a list in the code: each value makes
    a time series, and Prometheus stores all of them.
    """

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """The upper bounds of a histogram's buckets, without the infinite one."""
