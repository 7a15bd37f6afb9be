"""What do all values that cross a boundary between processes have in common?"""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json

from serve_app.values.sanitize import sanitize_json

MOST_OPENINGS = 150
"""Lists and objects in JSON that pydantic's parser reads however they are nested: it gives up at 200 levels."""
MOST_DIGITS = 4_000
"""Of a number that it reads: it gives up at 4,300."""
_LONG_NUMBER = re.compile(rf"\d{{{MOST_DIGITS}}}")


def _surely_read(written: str) -> bool:
    """Whether JSON can be read again, seen without reading it."""
    if written.count("[") + written.count("{") > MOST_OPENINGS:
        return False
    return len(written) < MOST_DIGITS or not _LONG_NUMBER.search(written)


class Value(BaseModel):
    """Frozen and closed: an unknown field is an error that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_dump_json(self, **options: Any) -> str:
        """The value as JSON, whatever it holds: what JSON cannot say is said as well as it can be."""
        try:
            return super().model_dump_json(**options)
        except (ValueError, RecursionError):
            return to_json(sanitize_json(self.model_dump(**options) if options else self)).decode()

    def sanitize(self) -> Self:
        """The same value; one that JSON cannot say, or that nobody could read from it, as its JSON says it."""
        try:
            written = super().model_dump_json()
            if not _surely_read(written):
                self.model_validate_json(written)
        except (ValueError, RecursionError):
            return type(self).model_validate(sanitize_json(self))
        return self

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Take what a process of another version pickled: pickling validates nothing, and calls for no defaults.

        During a rolling update a field that it does not know has its default here, and one that is not known here is
        left out.
        """
        said, fields = state["__dict__"], type(self).model_fields
        if said.keys() != fields.keys():
            defaults = {
                name: each.get_default(call_default_factory=True)
                for name, each in fields.items()
                if not each.is_required()
            }
            known = {name: value for name, value in said.items() if name in fields}
            state = {**state, "__dict__": defaults | known}
        super().__setstate__(state)
