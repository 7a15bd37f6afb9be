"""Values for operators: dependency checks, fault injection, run logs and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from serve_app.values.value import Value


class DependencyCheck(Value):
    """One dependency's state as `/readyz` tells it; `reason` is there where it is not ok.

    Without one that is not `required`, turns are answered all the same, some of them degraded.
    """

    name: str
    ok: bool
    reason: str | None = None
    required: bool = True


FaultMode = Literal["timeout", "error", "slow", "garbage"]
"""What a call that is hit does: not answer, fail, answer late, or answer with what cannot be read."""

FaultTarget = Annotated[
    str,
    Field(
        pattern=r"^(tool:[A-Za-z_][A-Za-z0-9_-]{0,63}|model(:[!-~]{1,128})?|retriever|embedding)$",
        description="What is hit: `tool:NAME`, `model` for every model, `model:NAME`, `retriever` or `embedding`.",
    ),
]


class Fault(Value):
    """A fault in force: which calls it hits, how often, and until when."""

    target: FaultTarget
    mode: FaultMode
    rate: float = Field(ge=0, le=1, description="The share of calls that are hit.")
    delay_s: float = Field(ge=0, description="How much later a `slow` call is answered.")
    until: float = Field(description="Unix time in seconds.")


class FaultList(Value):
    """The faults in force, by their targets."""

    faults: tuple[Fault, ...]


class RunLogLine(Value):
    """One log line about a run, masked as in the logs."""

    ts: str = Field(description="When, in UTC.")
    level: str
    process: str = Field(description="The deployment and its replica.")
    event: str
    fields: dict[str, Any] = Field(description="What belongs to the event.")
    exception: str | None = Field(default=None, description="The end of the traceback.")


class RunLogLines(Value):
    """The latest lines about a run, of all processes, in order."""

    run_id: str
    lines: tuple[RunLogLine, ...]


MetricKind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """A name under which something is measured, as Prometheus knows it; each is one object, and equal to itself only.

    The values of a label come from the configuration, from a route's template or from a list in the code: each one
    makes a series, which Prometheus keeps.
    """

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """The upper bounds of a histogram's buckets, without the infinite one."""
