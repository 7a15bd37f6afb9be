"""Which call is hit by a fault that an operator set, and what happens to it?

The faults are those of the request's context, so that every process obeys them and none has to ask for them.
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
"""What a call that answers with garbage says: no JSON, and no word of any language."""


def drawn(faults: Iterable[Fault], target: str, chance: float, now: float) -> Fault | None:
    """The fault that hits a call of `target`; `chance` is uniform in [0, 1), `now` is Unix time."""
    for fault in faults:
        if now < fault.until and chance < fault.rate and _covers(fault.target, target):
            return fault
    return None


async def strike(faults: tuple[Fault, ...], target: str, error: Exception) -> bool:
    """Have a call of `target` suffer what is drawn for it; True where its answer is to be garbage.

    A call that is to run into its time-out stays here until its caller's time-out ends it.

    Raises:
        Exception: `error`, where the call is to fail.
    """
    if not faults:
        return False
    fault = drawn(faults, target, random.random(), time.time())  # noqa: S311 - a rehearsal is no secret
    if fault is None:
        return False
    logger.warning("fault_hits", extra={"target": target, "mode": fault.mode, "fault": fault.target})
    match fault.mode:
        case "slow":
            await asyncio.sleep(fault.delay_s)
        case "timeout":
            await asyncio.Event().wait()
        case "error":
            raise error
    return fault.mode == "garbage"


def _covers(named: str, target: str) -> bool:
    """A fault of `model` is one of every model."""
    return target == named or target.startswith(f"{named}:")
