"""Fault injection: the faults of a request's context, applied to the calls of its turn.

The faults travel in the context, so that every process applies them and none has to read them from Redis.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serve_app.values import Fault

logger = logging.getLogger(__name__)

GARBAGE = "\ufffd\x15\ufffd{]\ufffd\x7f"
"""The answer of a call that is to answer with garbage: no JSON, and no word of any language."""


def draw_fault(faults: Iterable[Fault], target: str, chance: float, now: float) -> Fault | None:
    """Return the fault that hits a call of `target`, if any.

    `chance` is uniform in [0, 1), `now` is Unix time.
    """
    for fault in faults:
        if now < fault.until and chance < fault.rate and _covers(fault.target, target):
            return fault
    return None


async def inject_fault(faults: tuple[Fault, ...], target: str, error: Exception) -> bool:
    """Apply a fault to a call of `target`; True if the answer must be garbage.

    A call that is to time out waits here until its caller's time-out ends it.

    Raises:
        Exception: `error`, where the call is to fail.
    """
    if not faults:
        return False
    fault = draw_fault(faults, target, random.random(), time.time())  # noqa: S311 - an injected fault is no secret
    if fault is None:
        return False
    logger.warning("fault_injected", extra={"target": target, "mode": fault.mode, "fault": fault.target})
    match fault.mode:
        case "slow":
            await asyncio.sleep(fault.delay_s)
        case "timeout":
            await asyncio.Event().wait()
        case "error":
            raise error
    return fault.mode == "garbage"


def _covers(pattern: str, target: str) -> bool:
    """Return whether a fault of `pattern` hits `target`: a fault of `model` hits every model."""
    return target == pattern or target.startswith(f"{pattern}:")
