"""The memory limit of a process that runs tools."""

from __future__ import annotations

import logging
import resource
from pathlib import Path

logger = logging.getLogger(__name__)

MB = 2**20
STATM = Path("/proc/self/statm")


def limit_memory(beyond_mb: int) -> None:
    """Let this process use `beyond_mb` more than now; beyond it, `MemoryError` is raised.

    The limit is on addresses (RLIMIT_AS). A Ray worker has mapped nearly 8 GB of them at its start, most of it shared
    memory that it does not use, so only the increase means anything: with 256 MB more, a program that allocates without
    end stopped at 282 MB, and the process survived. A thread takes 8 MB for its stack.
    """
    if not STATM.exists():
        logger.warning("memory_not_limited", extra={"reason": "this system does not show the memory of a process"})
        return
    used = int(STATM.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + beyond_mb * MB, most))
