"""Plots as SVG text: axes, lines, dots and bars, coloured by a style sheet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 26, 12, 44
"""Margins around the plot area, for the labels of the axes."""
BASE = HEIGHT - BOTTOM
STEPS = (1, 2, 5, 10)
MAX_TICKS = 6
POWER_STEPS = ((8, (1, 1.5, 2, 3, 5, 7)), (1000, (1, 2, 5)), (math.inf, (1,)))
"""Up to so many times the lowest value -> the ticks of each decade of a logarithmic axis."""
MIN_BAR = 0.75
"""The least width of a bar that can be seen."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis from `low` to `high`; its ticks are values with their labels."""

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def share(self, value: float) -> float:
        """Return where the value is, from 0 to 1; an end for values outside."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    @classmethod
    def from_zero(cls, title: str, highest: float) -> Axis:
        """An axis from 0 to a round number above the highest value."""
        highest = highest if highest > 0 else 1.0
        step = _round_step(highest / MAX_TICKS)
        count = math.ceil(highest / step - 1e-9)
        return cls(title, 0.0, count * step, tuple((step * n, f"{step * n:,.6g}") for n in range(count + 1)))

    @classmethod
    def to_end(cls, title: str, end: float) -> Axis:
        """An axis from 0 to exactly `end`, such as the time of a whole run."""
        axis = cls.from_zero(title, end)
        return cls(title, 0.0, end, tuple(tick for tick in axis.ticks if tick[0] <= end))

    @classmethod
    def of_powers(cls, title: str, lowest: float, highest: float) -> Axis:
        """A logarithmic axis: its values are the logarithms (base 10) of positive numbers."""
        steps = next(steps for span, steps in POWER_STEPS if highest <= span * lowest)
        decades = range(math.floor(math.log10(lowest)) - 1, math.ceil(math.log10(highest)) + 2)
        numbers = [step * 10.0**decade for decade in decades for step in steps]
        low = max(number for number in numbers if number <= lowest)
        high = min(number for number in numbers if number >= highest and number > low)
        ticks = ((math.log10(number), f"{number:,.6g}") for number in numbers if low <= number <= high)
        return cls(title, math.log10(low), math.log10(high), tuple(ticks))


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20 … that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * step for step in STEPS if power * step >= least * (1 - 1e-9))


@dataclass(frozen=True, slots=True)
class Plot:
    """The place of a plot: its two axes."""

    x: Axis
    y: Axis

    def draw(self, label: str, shapes: Iterable[str]) -> str:
        """Return the SVG element; `label` says what is seen, for those who cannot see it."""
        parts = (*self._grid(), *shapes, *self._axes())
        view = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}"'
        return f"<svg {view}>{''.join(parts)}</svg>"

    def line(self, points: Iterable[Point | None], css: str) -> str:
        """Return a line through the points, with a gap at each None."""
        path, pen = "", "M"
        for point in points:
            if point is None:
                pen = "M"
                continue
            left, top = self._place(point)
            path += f"{pen}{left:.1f} {top:.1f}{'h0' if pen == 'M' else ''}"
            pen = "L"
        return f'<path class="line {css}" d="{path}"/>'

    def steps(self, points: Sequence[Point], css: str) -> str:
        """Return a line that stays at each value to the next point."""
        corners = [each for (at, high), (to, _) in pairwise(points) for each in ((at, high), (to, high))]
        return self.line(corners, css)

    def dots(self, points: Iterable[Point], css: str) -> str:
        """Return a dot for each point, in one path that stays small."""
        path = "".join(f"M{left:.1f} {top:.1f}h0" for left, top in map(self._place, points))
        return f'<path class="dots {css}" d="{path}"/>'

    def bar(self, span: Point, values: Point, css: str, title: str) -> str:
        """Return a bar over `span` of the x axis; `title` is shown at the mouse."""
        (left, bottom), (right, top) = self._place((span[0], values[0])), self._place((span[1], values[1]))
        width = max(MIN_BAR, right - left - min(1.0, (right - left) / 4))
        box = f'x="{left:.2f}" y="{top:.2f}" width="{width:.2f}" height="{max(0.0, bottom - top):.2f}"'
        return f'<rect class="{css}" {box}><title>{escape(title)}</title></rect>'

    def _place(self, point: Point) -> Point:
        across, up = self.x.share(point[0]), self.y.share(point[1])
        return LEFT + across * (WIDTH - LEFT - RIGHT), BASE - up * (BASE - TOP)

    def _grid(self) -> Iterator[str]:
        for value, label in self.y.ticks:
            _, top = self._place((self.x.low, value))
            yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{top:.1f}" y2="{top:.1f}"/>'
            yield f'<text class="tick end" x="{LEFT - 8}" y="{top + 4:.1f}">{escape(label)}</text>'

    def _axes(self) -> Iterator[str]:
        yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{BASE}" y2="{BASE}"/>'
        for value, label in self.x.ticks:
            left, _ = self._place((value, self.y.low))
            yield f'<line class="axis" x1="{left:.1f}" x2="{left:.1f}" y1="{BASE}" y2="{BASE + 4}"/>'
            yield f'<text class="tick middle" x="{left:.1f}" y="{BASE + 17}">{escape(label)}</text>'
        middle, height = (LEFT + WIDTH - RIGHT) / 2, (TOP + BASE) / 2
        yield f'<text class="name middle" x="{middle}" y="{HEIGHT - 6}">{escape(self.x.title)}</text>'
        turn = f'transform="translate(13 {height}) rotate(-90)"'
        yield f'<text class="name middle" {turn}>{escape(self.y.title)}</text>'
