"""Which answers are kept, and for how long?"""

from __future__ import annotations

from pydantic import Field

from serve_app.config.forms import ToolName
from serve_app.config.section import Section


class CacheSettings(Section):
    """Answers that are given again to the same question."""

    ttl_s: float | None = Field(default=None, gt=0, le=30 * 24 * 3600)
    """For how long an answer is given again. None keeps none: how long an answer stays true, only those know who know
    the tools. A change of a document ends it at once."""
    live_tools: tuple[ToolName, ...] = ()
    """Tools whose results hold for the moment only, such as an order's state: an answer that needed one is not kept."""
    max_bytes: int = Field(default=128 * 1024, ge=1024)
    """Of one answer, with its passages and what the session remembers of it: twice a long one."""
