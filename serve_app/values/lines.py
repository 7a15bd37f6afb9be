"""What did the processes tell of a run?"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from serve_app.values.value import Value


class RunLine(Value):
    """One log line about a run, masked as in the logs."""

    ts: str = Field(description="When, in UTC.")
    level: str
    process: str = Field(description="The deployment and its replica.")
    event: str
    fields: dict[str, Any] = Field(description="What belongs to the event.")
    exception: str | None = Field(default=None, description="The end of the traceback.")


class RunLines(Value):
    """The latest lines about a run, of all processes, in order."""

    run_id: str
    lines: tuple[RunLine, ...]
