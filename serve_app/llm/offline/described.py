"""How does a schema say what an identifier looks like?

By a pattern, by a format, by examples, or in words: "OD- followed by 8 digits", "格式 OD-加8位数字".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from serve_app.llm.offline.patterns import safe
from serve_app.llm.offline.shapes import FEW_DIGITS, MAX_TOKEN_CHARACTERS, TOKEN, Shape, has_letter

if TYPE_CHECKING:
    from collections.abc import Iterable

MIXED_RUNS = 4
"""So many changes between letters and digits without a separator are a code: any of them may change."""
CERTAIN_DIGITS = 5
"""So many digits are not a count of something."""

FORMATS = {
    "email": r"[\w.+-]{1,40}@[\w-]{1,30}(?:\.[\w-]{1,20}){1,3}",
    "date": r"\d{4}-\d{1,2}-\d{1,2}",
    "date-time": r"\d{4}-\d{1,2}-\d{1,2}T\d{1,2}:\d{2}(?::\d{2})?Z?",
    "time": r"\d{1,2}:\d{2}(?::\d{2})?",
    "uuid": r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "ipv4": r"\d{1,3}(?:\.\d{1,3}){3}",
    "uri": r"https?://\S{1,200}",
}

_RUNS = re.compile(r"[A-Za-z]+|\d+|[^A-Za-z0-9]")
_STANDARD = re.compile(r"(?:ISO|UTF|RFC|SHA|MD|IPV|BASE|ASCII|HTTP|UTC|GMT)[-_ ]?\d", re.IGNORECASE)
_CUE = re.compile(
    r"(?:\be\.?g\.?|\bsuch as|\blike|\bfor example|\bfor instance|\bexamples?|例如|比如|譬如|诸如|形如|示例|例子|如|例)"
    r"[\s,:,:是为]{0,3}[\"'`‘“「(]{0,2}(?P<example>[^\n,;,;。、))\"'`’”」]{1,60})",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"\b(?P<prefix>[A-Z]{1,8}[-_#/])(?!\d)(?P<rest>[A-Za-z#*<{]{0,12})")
_COUNT = r"(?P<count>\d{1,2}|two|three|four|five|six|seven|eight|nine|ten|twelve|[两二三四五六七八九十])"
_DIGITS = re.compile(_COUNT + r"[ -]?(?:位|个)?(?:digits?\b|位|数字)", re.IGNORECASE)
_PREFIXED = re.compile(
    r"\b(?P<prefix>[A-Z]{1,6})\s*(?:加|后跟|后接|接|followed by|plus|and|\+)\s*" + _COUNT, re.IGNORECASE
)
_NUMERALS = dict(
    zip(
        ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve"],
        (*range(2, 11), 12),
        strict=True,
    )
)
_HAN_NUMERALS = dict(zip("两二三四五六七八九十", (2, *range(2, 11)), strict=True))
_ORDINARY = ("order", "the", "hello", "where is it", "订单", "你好")


def of_pattern(pattern: str, examples: Iterable[str]) -> Shape | None:
    """The shape that a JSON schema's `pattern` gives; None where it is free text, invalid or too costly to try."""
    compiled = safe(pattern)
    if compiled is None or any(compiled.fullmatch(word) for word in _ORDINARY):
        return None
    fitting = [example for example in examples if compiled.fullmatch(example)]
    digits = not any(compiled.fullmatch(word) for word in ("A", "AB", "ABC", "ABCD", "ABCDE"))
    certain = digits and not any(compiled.fullmatch("7" * count) for count in range(1, CERTAIN_DIGITS))
    return Shape((compiled,), certain, bool(fitting) and all(map(str.isupper, fitting)), digits)


def of_format(name: str) -> Shape | None:
    """The shape of a JSON schema's `format`."""
    pattern = FORMATS.get(name)
    return Shape((re.compile(pattern),), certain=False, digits=name not in {"email", "uri"}) if pattern else None


def of_examples(examples: list[str]) -> Shape | None:
    """The shape of identifiers like these."""
    like = [example for example in examples if _is_identifier(example)]
    if not like:
        return None
    certain = all(has_letter(example) or len(example) >= CERTAIN_DIGITS for example in like)
    return Shape(tuple(re.compile(_generalised(example)) for example in like), certain, all(map(str.isupper, like)))


def resembling(examples: list[str]) -> Shape | None:
    """As `of_examples`, with any letters in place of theirs."""
    like = [example for example in examples if _is_identifier(example) and has_letter(example)]
    patterns = tuple(re.compile(_generalised(example, letters=None)) for example in like)
    return Shape(patterns, certain=False, as_written=True) if like else None


def in_words(description: str) -> Shape | None:
    """The shape that a sentence describes."""
    patterns = [
        re.escape(match["prefix"]) + r"(?=[A-Za-z]*\d)[A-Za-z0-9]{1,20}"
        for match in _PLACEHOLDER.finditer(description)
        if _is_open(match["rest"])
    ]
    patterns += [
        re.escape(match["prefix"]) + rf"\d{{{_number(match['count'])}}}" for match in _PREFIXED.finditer(description)
    ]
    if patterns:
        return Shape(tuple(map(re.compile, patterns)), certain=True, upper=True)
    digits = _DIGITS.search(description)
    if digits is None:
        return None
    count = _number(digits["count"])
    return Shape((re.compile(rf"\d{{{count}}}"),), certain=count >= CERTAIN_DIGITS)


ANY = Shape(
    (re.compile(r"(?=[A-Za-z_-]{0,20}\d)[A-Za-z0-9]{1,40}(?:[-_][A-Za-z0-9]{1,40}){0,4}"),),
    certain=False,
    as_written=True,
)
"""For a parameter that is called a number, an id or a code and says no more."""


def examples_in(description: str) -> list[str]:
    """What a description gives as an example."""
    cued = [match["example"].strip(" .。") for match in _CUE.finditer(description)]
    named = [token for match in TOKEN.finditer(description) if _is_named_example(token := match.group())]
    begun = [begin for example in cued if (begin := _identifier_in(example))]
    return list(dict.fromkeys([*begun, *named, *cued]))


def _generalised(example: str, letters: str | None = "") -> str:
    """The expression for tokens like `example`; `letters=None` lets its letters be others."""
    runs = _RUNS.findall(example)
    if sum(run.isalnum() for run in runs) >= MIXED_RUNS and all(run.isalnum() for run in runs):
        size = len(example)
        return rf"(?=[A-Za-z]{{0,{size}}}\d)[A-Za-z0-9]{{{max(1, size - 2)},{size + 2}}}"
    own_prefix = letters is not None and has_letter(example)
    return "".join(_run(run, own_prefix=own_prefix) for run in runs)


def _run(run: str, *, own_prefix: bool) -> str:
    if run.isdigit():
        return r"\d{1,20}" if own_prefix else rf"\d{{{max(1, len(run) - 2)},{len(run) + 2}}}"
    if run.isalpha() and not own_prefix:
        return rf"[A-Za-z]{{{max(1, len(run) - 1)},{len(run) + 1}}}"
    return re.escape(run)


def _is_open(rest: str) -> bool:
    """Whether what follows a prefix stands for anything: nothing, a mark, or letters such as XXXX and YYYYMMDD."""
    return not rest or rest[0] in "#*<{" or (len(rest) > 1 and not rest.strip("XxNnYyMmDd0#"))


def _is_identifier(example: str) -> bool:
    return (
        len(example) <= MAX_TOKEN_CHARACTERS
        and bool(re.search(r"\d", example))
        and bool(TOKEN.fullmatch(example))
        and not _STANDARD.match(example)
    )


def _is_named_example(token: str) -> bool:
    """Whether it is one without being called one: letters with a separator or with many digits."""
    digits = sum(map(str.isdigit, token))
    return _is_identifier(token) and has_letter(token) and (digits >= FEW_DIGITS or bool(re.search(r"[A-Z]-\d", token)))


def _identifier_in(example: str) -> str | None:
    """The identifier that an example begins with; one of its words, or a number in a sum, is none."""
    first = TOKEN.match(example)
    if first is None or len(first.group()) < 3 or not _is_identifier(first.group()):  # noqa: PLR2004 - "12" is a count
        return None
    return first.group() if re.match(r"\s*(?:$|[^\s\w+*/=-])|\s+[a-z\u4e00-\u9fff]", example[first.end() :]) else None


def _number(numeral: str) -> int:
    return int(numeral) if numeral.isdigit() else _NUMERALS.get(numeral.lower()) or _HAN_NUMERALS[numeral]
