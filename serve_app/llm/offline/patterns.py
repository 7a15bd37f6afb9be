"""Can a pattern of a user's schema be tried without taking long?"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_PATTERN_CHARACTERS = 200
MAX_VARIABLE_REPEATS = 3
"""Of variable length in one pattern: the cost of a failed match grows with the token's length to this power."""

_FIXED_REPEAT = re.compile(r"\{\d{1,3}\}")
_HUGE_REPEAT = re.compile(r"\{\d{4}")
_VARIABLE_REPEAT = re.compile(r"[*+?]|\{\d*,\d*\}")
_ESCAPE_OR_CLASS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]")
_GROUP_KIND = re.compile(r"\(\?[:=!<]?")
_REPEATED_GROUP = re.compile(r"\)(?:[*+]|\{)")
_GROUP_WITH_CHOICE = re.compile(r"\([^()]*(?:[*+?|]|\{\d*,)[^()]*\)")


@lru_cache(maxsize=256)
def safe(pattern: str) -> re.Pattern[str] | None:
    """The compiled pattern; None where it is invalid, or repeats in a way that can take long."""
    if len(pattern) > MAX_PATTERN_CHARACTERS or _HUGE_REPEAT.search(pattern):
        return None
    bare = _GROUP_KIND.sub("(", _ESCAPE_OR_CLASS.sub("x", pattern))
    if len(_VARIABLE_REPEAT.findall(bare)) > MAX_VARIABLE_REPEATS or _repeats_a_choice(bare):
        return None
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return None


def _repeats_a_choice(bare: str) -> bool:
    """Whether a group that may match in several ways is repeated: the cost would double with each character.

    Of groups within groups it is not asked which is repeated.
    """
    if not _REPEATED_GROUP.search(bare):
        return False
    return bare.count("(") > 1 or bool(_GROUP_WITH_CHOICE.search(_FIXED_REPEAT.sub("", bare)))
