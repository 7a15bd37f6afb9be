"""What do all values that cross a boundary between processes have in common?"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """Frozen and closed: an unknown field is an error that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
