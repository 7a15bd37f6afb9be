"""`Value`: the base class of all values that cross a boundary between processes."""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json

from serve_app.values.sanitize import sanitize_json

MAX_OPENINGS = 150
"""Opening brackets that pydantic's JSON parser always reads, however nested: it gives up at 200 levels."""
MAX_DIGITS = 4_000
"""Digits of a number that the parser always reads: it gives up at 4,300."""
_LONG_NUMBER = re.compile(rf"\d{{{MAX_DIGITS}}}")


class Value(BaseModel):
    """A frozen model that rejects unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_dump_json(self, **options: Any) -> str:
        """Return the value as JSON; what JSON cannot express is replaced by its nearest form."""
        try:
            return super().model_dump_json(**options)
        except (ValueError, RecursionError):
            return to_json(sanitize_json(self.model_dump(**options) if options else self)).decode()

    def sanitize(self) -> Self:
        """Return the value, changed only if its JSON cannot be written or read back."""
        return self.sanitize_and_encode()[0]

    def sanitize_and_encode(self) -> tuple[Self, str]:
        """Return the value as `sanitize` does, and its JSON."""
        try:
            text = super().model_dump_json()
            if not _is_surely_readable(text):
                self.model_validate_json(text)
        except (ValueError, RecursionError):
            sound = type(self).model_validate(sanitize_json(self))
            return sound, sound.model_dump_json()
        return self, text

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Unpickle a value that a process of another version pickled.

        Unpickling neither validates nor fills in defaults. During a rolling update, a field that the sender does not
        know gets its default, and a field that this version does not know is dropped.
        """
        received, fields = state["__dict__"], type(self).model_fields
        if received.keys() != fields.keys():
            defaults = {
                name: each.get_default(call_default_factory=True)
                for name, each in fields.items()
                if not each.is_required()
            }
            known = {name: value for name, value in received.items() if name in fields}
            state = {**state, "__dict__": defaults | known}
        super().__setstate__(state)


def _is_surely_readable(text: str) -> bool:
    """Whether the JSON `text` can be parsed again, decided without parsing it."""
    if text.count("[") + text.count("{") > MAX_OPENINGS:
        return False
    return len(text) < MAX_DIGITS or not _LONG_NUMBER.search(text)
