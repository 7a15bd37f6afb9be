"""What is a metric?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """A name under which something is measured, as Prometheus knows it; each is one object, and equal to itself only.

    The values of a label come from the configuration, from a route's template or from a list in the code: each one
    makes a series, which Prometheus keeps.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """The upper bounds of a histogram's buckets, without the infinite one."""
