"""The cache key of an answer: equal for questions that are the same.

Only what a keyboard does is normalised: the width of characters, how they are composed, and spaces. A wrong hit is
worse than a miss, so that case stays ("US" is not "us"), and so do digits in another place (NFKC would read 10² as 102)
and the spaces of a text of several lines or with quotation marks, which may be code or what is asked about.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

FORMAT = "1"
"""Of the stored values. It is part of their keys, so that a process never reads those of another version."""
_WIDTHS = {
    code: unicodedata.normalize("NFKC", chr(code))
    for code in (0x3000, *range(0xFF01, 0xFFEF))
    if unicodedata.decomposition(chr(code)).startswith(("<wide>", "<narrow>"))
}
_LITERAL = re.compile(r"[\n\"'`‘’“”«»「」『』]")
_SPACES = re.compile(r"\s+")


def normalize_question(question: str) -> str:
    """Return the one wording that stands for all that are the same."""
    text = unicodedata.normalize("NFC", question.translate(_WIDTHS)).replace("\r\n", "\n").strip()
    return text if _LITERAL.search(text) else _SPACES.sub(" ", text)


def hash_settings(*parts: BaseModel | str) -> str:
    """Hash the settings and the like that an answer depends on."""
    return _hash([FORMAT, *(part if isinstance(part, str) else part.model_dump_json() for part in parts)])


def hash_question(question: str, context: Any, *parts: BaseModel | str) -> str:
    """Hash a question, the conversation before it, and what else the answer depends on."""
    return _hash([normalize_question(question), context, hash_settings(*parts)])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
