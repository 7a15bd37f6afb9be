"""The autoscaling policy of Ingress and Agent, which Serve's controller calls.

It imports nothing, because the controller must not load the service.
"""

from __future__ import annotations

from typing import Any

HIGH, LOW = 0.9, 0.5
"""The share of time in which the event loops work, above which a replica is added, and below which one may be removed.
Waiting for a core does not count, as it does for admission: where the cores are used up, one more replica only makes
turns dearer."""


def scale_by_load(context: Any) -> tuple[float, dict[str, Any]]:
    """Return how many replicas are wanted.

    Each has `target_ongoing_requests` turns. Where the event loops work all the time, one more is wanted,
    whatever the number of turns. Serve applies the bounds, delays and factors of `autoscaling_config`.
    """
    current = int(context.current_num_replicas)
    metrics = context.aggregated_metrics or {}
    runs, shares = (list(metrics.get(name, {}).values()) for name in ("runs", "worked"))
    # runs go on without calls when their clients leave; before the first report, only the calls are known
    turns = max(sum(runs), float(context.total_num_requests))
    wanted = turns / float(context.config.get_target_ongoing_requests())
    worked = sum(shares) / len(shares) if shares else 0.0
    if worked > HIGH:
        wanted = max(wanted, current + 1)
    elif worked > LOW:
        wanted = max(wanted, current)
    return wanted, {}
