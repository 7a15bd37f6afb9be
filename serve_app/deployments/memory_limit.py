"""How much memory may this process take up?"""

from __future__ import annotations

import logging
import resource
from pathlib import Path

logger = logging.getLogger(__name__)

MB = 2**20
STATM = Path("/proc/self/statm")


def limit_memory(beyond_mb: int) -> None:
    """Give this process `beyond_mb` more than it takes up now; what asks for more gets a `MemoryError`.

    The limit is on addresses (RLIMIT_AS). A Ray worker has mapped nearly 8 GB of them at its start, most of it shared
    memory that it does not use, so that only what comes on top tells anything: 256 MB more held a program that
    allocates without end at 282 MB, and left the process alive. A thread takes 8 MB for its stack.
    """
    if not STATM.exists():
        logger.warning("memory_not_limited", extra={"reason": "this system does not tell what a process takes up"})
        return
    used = int(STATM.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + beyond_mb * MB, most))
