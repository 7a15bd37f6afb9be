"""The figures of a load test: percentiles, counts, errors, and a series by second."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from yarl import URL

from serve_app.cli.load_generator import SEED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from serve_app.cli.load_generator import LoadPlan, MeasuredTurn, Measurements
    from serve_app.cli.turn_client import TurnError

MAX_ERRORS = 100
"""Rows of the table of errors. A service that invents reasons does not make it endless."""
MAX_CLIENT_LAG_MS = 50.0
"""If the client starts turns later than this, its own machine is too slow for the rate."""
MS_PER_S = 1000.0

Share = Literal["answered", "refused", "failed"]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile of sorted values, of which there is at least one."""
    return values[max(0, math.ceil(share * len(values)) - 1)]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """The distribution of durations, in milliseconds."""

    count: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p99_9_ms: float
    max_ms: float

    @classmethod
    def of(cls, values_s: Iterable[float]) -> Percentiles | None:
        """Return those of durations in seconds; None if there is no duration."""
        values = sorted(value * MS_PER_S for value in values_s)
        if not values:
            return None
        shares = (percentile(values, share) for share in (0.5, 0.9, 0.99, 0.999, 1.0))
        return cls(len(values), *(round(value, 3) for value in shares))


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """Turns that ended with the same error."""

    kind: str
    status: int | None
    code: str
    reason: str
    count: int
    p50_ms: float
    """How long half of them took at most: a refusal takes milliseconds, a time-out all of its time."""
    label: str


@dataclass(frozen=True, slots=True)
class SecondOfLoad:
    """What was planned and what ended in one second; the latency of what was planned."""

    second: int
    planned: int
    answered: int
    refused: int
    failed: int
    latency_p50_ms: float | None
    latency_p99_ms: float | None


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """The figures of a whole load test."""

    planned: int
    sent: int
    answered: int
    degraded: int
    waiting: int
    cached: int
    without_tokens: int
    """Answered turns of a stream that had no token before the answer."""
    refused: int
    failed: int
    client_limit: int
    """Turns that were not sent, because too many were in flight. They are among the failed ones."""
    cut_off: int
    interrupted: bool
    elapsed_s: float
    """From the first planned second to the end of the last turn."""
    load_s: float
    """The planned duration, or the time until the interruption."""
    answered_per_s: float
    """Answers that came during `load_s`, by second. Those that came later do not count."""
    latency: Percentiles | None
    first_token: Percentiles | None
    between_tokens: Percentiles | None
    client_lag: Percentiles | None

    @property
    def due(self) -> int:
        """The turns whose time came, sent or not; at least 1, to divide by."""
        return max(1, self.sent + self.client_limit)

    @property
    def errors(self) -> int:
        return self.refused + self.failed

    @property
    def client_lags(self) -> bool:
        """Whether the client was too slow, so that the figures are not the service's."""
        return self.client_lag is not None and self.client_lag.p99_ms > MAX_CLIENT_LAG_MS


@dataclass(frozen=True, slots=True)
class LoadResult:
    """A load test that has ended: its plan, what was measured, and the figures."""

    plan: LoadPlan
    measurements: Measurements
    summary: LoadSummary
    errors: tuple[ErrorCount, ...]
    degraded_without: dict[str, int]
    """What answers were made without -> number of answers."""
    seconds: tuple[SecondOfLoad, ...]

    @classmethod
    def of(cls, plan: LoadPlan, measurements: Measurements) -> LoadResult:
        parts = Counter(part for turn in measurements.turns for part in turn.outcome.degraded)
        return cls(
            plan,
            measurements,
            summarize(plan, measurements),
            tuple(_count_errors(measurements.turns)),
            dict(parts.most_common(MAX_ERRORS)),
            tuple(count_by_second(measurements.turns)),
        )

    @property
    def answered(self) -> list[MeasuredTurn]:
        """The answered turns, in the order in which they were planned."""
        return sorted((turn for turn in self.measurements.turns if turn.is_answered), key=lambda turn: turn.planned_s)

    def parameters(self) -> dict[str, Any]:
        """Return how the load test was run, without what is secret."""
        plan = self.plan
        return {
            "url": public_url(plan.url),
            "started_at": self.measurements.started_at.isoformat(timespec="seconds"),
            "rate_turns_per_s": plan.rate_per_s,
            "duration_s": plan.duration_s,
            "stream": plan.stream,
            "inputs": len(plan.inputs),
            "first_input": plan.inputs[0],
            "sessions": plan.sessions,
            "max_in_flight": plan.max_in_flight,
            "timeout_s": plan.timeout_s,
            "seed": SEED,
            "session_prefix": f"loadtest-{plan.run_id}-",
        }

    def as_json(self) -> dict[str, Any]:
        """Return the content of the JSON report."""
        return {
            "parameters": self.parameters(),
            "summary": asdict(self.summary),
            "errors": [asdict(error) for error in self.errors],
            "degraded_without": self.degraded_without,
            "per_second": [asdict(second) for second in self.seconds],
        }


def public_url(url: str) -> str:
    """Return the URL without a user and password."""
    return str(URL(url).with_user(None))


def classify(turn: MeasuredTurn) -> Share:
    """Return what a turn counts as."""
    error = turn.outcome.error
    if error is None:
        return "answered"
    return "refused" if error.is_refusal else "failed"


def summarize(plan: LoadPlan, measurements: Measurements) -> LoadSummary:
    """Return the figures of the turns that were measured."""
    turns = measurements.turns
    answered = [turn for turn in turns if turn.is_answered]
    counts = Counter(classify(turn) for turn in turns)
    load_s = min(plan.duration_s, measurements.elapsed_s) if measurements.interrupted else plan.duration_s
    in_time = sum(turn.ended_s <= load_s for turn in answered)
    statuses = Counter(turn.outcome.status for turn in answered)
    return LoadSummary(
        planned=plan.turns,
        sent=measurements.sent,
        answered=counts["answered"],
        degraded=statuses["degraded"],
        waiting=statuses["waiting"],
        cached=sum(turn.outcome.cached for turn in answered),
        without_tokens=sum(turn.first_token_s is None for turn in answered) if plan.stream else 0,
        refused=counts["refused"],
        failed=counts["failed"],
        client_limit=sum(not turn.is_sent for turn in turns),
        cut_off=measurements.cut_off,
        interrupted=measurements.interrupted,
        elapsed_s=round(measurements.elapsed_s, 3),
        load_s=round(load_s, 3),
        answered_per_s=round(in_time / max(load_s, 1e-3), 3),
        latency=Percentiles.of(turn.latency_s for turn in answered),
        first_token=Percentiles.of(first_tokens_s(answered)),
        between_tokens=Percentiles.of(measurements.gaps.sample_s),
        client_lag=Percentiles.of(turn.started_s - turn.planned_s for turn in turns if turn.is_sent),
    )


def first_tokens_s(turns: Iterable[MeasuredTurn]) -> Iterator[float]:
    """Yield the times to the first token, of the turns that have one."""
    return (first_s for turn in turns if (first_s := turn.first_token_latency_s) is not None)


def _count_errors(turns: Iterable[MeasuredTurn]) -> Iterator[ErrorCount]:
    """Yield the errors, most frequent first; those beyond `MAX_ERRORS` as one."""
    latencies: defaultdict[TurnError, list[float]] = defaultdict(list)
    for turn in turns:
        if turn.outcome.error:
            latencies[turn.outcome.error].append(turn.latency_s)
    ranked = sorted(latencies.items(), key=lambda each: -len(each[1]))
    for error, values in ranked[:MAX_ERRORS]:
        yield _error_count(str(error), values, error)
    if rest := [value for _, values in ranked[MAX_ERRORS:] for value in values]:
        yield _error_count(f"{len(ranked) - MAX_ERRORS:,} other errors", rest)


def _error_count(label: str, values_s: list[float], error: TurnError | None = None) -> ErrorCount:
    p50_ms = round(MS_PER_S * percentile(sorted(values_s), 0.5), 3)
    if error is None:
        return ErrorCount("other", None, "", label, len(values_s), p50_ms, label)
    return ErrorCount(error.kind, error.status, error.code, error.reason, len(values_s), p50_ms, label)


def count_by_second(turns: Sequence[MeasuredTurn], width_s: int = 1) -> Iterator[SecondOfLoad]:
    """Yield each interval of `width_s` seconds, to the end of the last turn."""
    ended: defaultdict[int, Counter[Share]] = defaultdict(Counter)
    latencies: defaultdict[int, list[float]] = defaultdict(list)
    planned: Counter[int] = Counter()
    for turn in turns:
        begins, ends = int(turn.planned_s // width_s), int(turn.ended_s // width_s)
        planned[begins] += 1
        ended[ends][classify(turn)] += 1
        if turn.is_answered:
            latencies[begins].append(MS_PER_S * turn.latency_s)
    for place in range(max((*planned, *ended), default=-1) + 1):
        values = sorted(latencies[place])
        yield SecondOfLoad(
            place * width_s,
            planned[place],
            ended[place]["answered"],
            ended[place]["refused"],
            ended[place]["failed"],
            round(percentile(values, 0.5), 3) if values else None,
            round(percentile(values, 0.99), 3) if values else None,
        )
