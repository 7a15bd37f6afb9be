"""Are two questions the same?

Only what a keyboard does is evened out: the width of characters, how they are composed, and spaces. A wrong hit is
worse than a miss, so that case stays ("US" is not "us"), and so do digits in another place (NFKC would read 10² as 102)
and the spaces of a text of several lines or with quotation marks, which may be code or what is asked about.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any

from serve_app.cache.kept import FORM

if TYPE_CHECKING:
    from pydantic import BaseModel

_WIDTHS = {
    code: unicodedata.normalize("NFKC", chr(code))
    for code in (0x3000, *range(0xFF01, 0xFFEF))
    if unicodedata.decomposition(chr(code)).startswith(("<wide>", "<narrow>"))
}
_LITERAL = re.compile(r"[\n\"'`‘’“”«»「」『』]")
_SPACES = re.compile(r"\s+")


def normalised(question: str) -> str:
    """The one wording that stands for all that are the same."""
    text = unicodedata.normalize("NFC", question.translate(_WIDTHS)).replace("\r\n", "\n").strip()
    return text if _LITERAL.search(text) else _SPACES.sub(" ", text)


def fingerprint(*parts: BaseModel | str) -> str:
    """Of the settings and the like that an answer depends on."""
    return _digest([FORM, *(part if isinstance(part, str) else part.model_dump_json() for part in parts)])


def digest(question: str, context: Any, *parts: BaseModel | str) -> str:
    """Of a question, of what is said before it, as JSON, and of all else that the answer depends on."""
    return _digest([normalised(question), context, fingerprint(*parts)])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
