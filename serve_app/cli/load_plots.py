"""The plots of a load test: percentiles, latency over time, outcomes by second, a distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from serve_app.cli.load_summary import MS_PER_S, count_by_second, first_tokens_s, percentile
from serve_app.cli.svg_plot import Axis, Plot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from serve_app.cli.load_summary import LoadResult, SecondOfLoad

MAX_INTERVALS = 120
"""More cannot be told apart; seconds are joined to intervals."""
INTERVALS_S = (1, 2, 5, 10, 15, 30)
MAX_DOTS = 3000
CURVE_POINTS = 300
BINS = 40
MAX_NINES = 4.0
"""The curve of percentiles ends at the 99.99th."""
CURVE_TICKS = ((0.0, "0 %"), (math.log10(2), "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %"))
"""-log10(1 - share) -> label. From 90 %, each tick has a tenth of the turns of the one before above it."""
MIN_MS = 0.1
"""The left end of a logarithmic axis."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot with its title, how to read it, and its legend (class -> name)."""

    title: str
    note: str
    svg: str
    legend: tuple[tuple[str, str], ...]


def draw_plots(result: LoadResult) -> Iterator[Figure]:
    """Yield the plots for which something was measured."""
    latencies = sorted(MS_PER_S * turn.latency_s for turn in result.answered)
    firsts = sorted(MS_PER_S * first_s for first_s in first_tokens_s(result.answered))
    intervals = _join_seconds(result)
    if latencies:
        yield draw_curve(latencies, firsts)
        yield _draw_latency(result, intervals)
    if intervals:
        yield _draw_outcomes(intervals, _width_of(intervals))
    if firsts:
        yield draw_distribution("Time to first token", firsts)
    elif latencies:
        yield draw_distribution("Latency", latencies)


def _join_seconds(result: LoadResult) -> list[SecondOfLoad]:
    width_s = next((each for each in INTERVALS_S if len(result.seconds) / each <= MAX_INTERVALS), INTERVALS_S[-1])
    return list(count_by_second(result.measurements.turns, width_s))


def _width_of(intervals: Sequence[SecondOfLoad]) -> int:
    return intervals[1].second - intervals[0].second if len(intervals) > 1 else 1


def draw_curve(latencies_ms: Sequence[float], firsts_ms: Sequence[float]) -> Figure:
    """Draw the percentiles of sorted times: how slow the slowest are."""
    end = min(MAX_NINES, math.log10(2 * len(latencies_ms)))
    plot = Plot(
        Axis("share of the answered turns that took at most so long", 0.0, end, _ticks_to(end)),
        Axis.from_zero("milliseconds", latencies_ms[-1]),
    )
    series = [(latencies_ms, "p50")] + ([(firsts_ms, "p99")] if firsts_ms else [])
    shapes = [plot.line(_curve(values, end), css) for values, css in series]
    names = (("p50", "latency"),) + ((("p99", "time to first token"),) if firsts_ms else ())
    note = "Each tenth of the turns that remain has the same width, so that the slow end is seen."
    return Figure("Latency by percentile", note, plot.draw("Latency by percentile", shapes), names)


def _ticks_to(end: float) -> tuple[tuple[float, str], ...]:
    return tuple(tick for tick in CURVE_TICKS if tick[0] <= end)


def _curve(values: Sequence[float], end: float) -> Iterator[tuple[float, float]]:
    for place in range(CURVE_POINTS + 1):
        nines = end * place / CURVE_POINTS
        yield nines, percentile(values, 1 - 10.0**-nines)


def _draw_latency(result: LoadResult, intervals: Sequence[SecondOfLoad]) -> Figure:
    turns, half = result.answered, _width_of(intervals) / 2
    end = intervals[-1].second + 2 * half
    plot = Plot(
        Axis.to_end("seconds since the start", end),
        Axis.from_zero("milliseconds", max(MS_PER_S * turn.latency_s for turn in turns)),
    )
    every = math.ceil(len(turns) / MAX_DOTS)
    shapes = [plot.dots([(turn.planned_s, MS_PER_S * turn.latency_s) for turn in turns[::every]], "turn")]
    for name, of in (("p99", attrgetter("latency_p99_ms")), ("p50", attrgetter("latency_p50_ms"))):
        points = [None if of(each) is None else (each.second + half, of(each)) for each in intervals]
        shapes.append(plot.line(points, name))
    dots = "a turn" if every == 1 else f"one of {every} turns"
    note = "By the planned start of each turn. A rise to the right: the service does not keep up with the rate."
    legend = (("turn", dots), ("p50", "p50"), ("p99", "p99"))
    return Figure("Latency over time", note, plot.draw("Latency over time", shapes), legend)


def _draw_outcomes(intervals: Sequence[SecondOfLoad], width_s: int) -> Figure:
    highest = max(max(each.planned, each.answered + each.refused + each.failed) for each in intervals)
    plot = Plot(
        Axis.to_end("seconds since the start", intervals[-1].second + width_s),
        Axis.from_zero("turns per second", highest / width_s),
    )
    shapes = [shape for each in intervals for shape in _stack(plot, each, width_s)]
    planned = [(each.second, each.planned / width_s) for each in intervals]
    shapes.append(plot.steps([*planned, (intervals[-1].second + width_s, 0.0)], "planned"))
    note = f"What ended in each {'second' if width_s == 1 else f'{width_s} s'}, and how many turns were planned in it."
    names = [
        (name, name) for name in ("answered", "refused", "failed") if any(getattr(each, name) for each in intervals)
    ]
    return Figure("Outcomes over time", note, plot.draw("Outcomes over time", shapes), (*names, ("planned", "planned")))


def _stack(plot: Plot, interval: SecondOfLoad, width_s: int) -> Iterator[str]:
    bottom, span = 0.0, (interval.second, interval.second + width_s)
    for name, count in (("answered", interval.answered), ("refused", interval.refused), ("failed", interval.failed)):
        if count:
            top = bottom + count / width_s
            yield plot.bar(span, (bottom, top), name, f"{interval.second} s: {count:,} {name}")
            bottom = top


def draw_distribution(what: str, values_ms: Sequence[float]) -> Figure:
    """Draw how often each time occurs, on a logarithmic axis; the times are sorted."""
    values = [max(value, MIN_MS) for value in values_ms]
    axis = Axis.of_powers("milliseconds (logarithmic)", values[0], values[-1])
    width = (axis.high - axis.low) / BINS
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, int((math.log10(value) - axis.low) / width))] += 1
    plot = Plot(axis, Axis.from_zero("turns", max(counts)))
    shapes = []
    for place, count in enumerate(counts):
        low = axis.low + place * width
        if count:
            title = f"{10**low:,.4g} to {10 ** (low + width):,.4g} ms: {count:,}"
            shapes.append(plot.bar((low, low + width), (0, count), "answered", title))
    note = "How many turns took how long. Two hills: turns of two kinds, such as with and without a tool."
    return Figure(what, note, plot.draw(what, shapes), (("answered", "answered turns"),))
