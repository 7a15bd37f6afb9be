"""What does an identifier look like, and where does one stand in a text?

A schema says it by a pattern, by examples, or in words ("OD- followed by 8 digits", "格式 OD-加8位数字"). Each becomes
an expression that whole tokens are matched against: a token is short, so no pattern of a user can take long.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from serve_app.llm.offline.words import Span

MAX_PATTERN_CHARACTERS = 200
MAX_TOKEN_CHARACTERS = 64
MAX_TOKENS = 400
MAX_VARIABLE_REPEATS = 3
"""Of variable length in one pattern: the cost of a failed match grows with the token's length to this power."""
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

_TOKEN = re.compile(r"[A-Za-z0-9]+(?:(?:[-_/.:#@+]|://)[A-Za-z0-9]+)*")
_JOINTS = re.compile(r"[/.:#@+]+")
_RUNS = re.compile(r"[A-Za-z]+|\d+|[^A-Za-z0-9]")
_BEFORE_DIGIT = re.compile(r"(?<=[A-Za-z])[ _-]?(?=\d)")
_STANDARD = re.compile(r"(?:ISO|UTF|RFC|SHA|MD|IPV|BASE|ASCII|HTTP|UTC|GMT)[-_ ]?\d", re.IGNORECASE)
_CUE = re.compile(
    r"(?:\be\.?g\.?|\bsuch as|\blike|\bfor example|\bfor instance|\bexamples?|例如|比如|譬如|诸如|形如|示例|例子|如|例)"
    r"[\s,:,:是为]{0,3}[\"'`‘“「(]{0,2}(?P<example>[^\n,;,;。、))\"'`’”」]{1,60})",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"\b(?P<prefix>[A-Za-z]{1,8}[-_#/])(?P<rest>[A-Za-z#*<{]{0,12})")
_COUNT = r"(?P<count>\d{1,2}|two|three|four|five|six|seven|eight|nine|ten|twelve|[两二三四五六七八九十])"
_DIGITS = re.compile(_COUNT + r"[ -]?(?:位|个)?(?:digits?\b|位|数字)", re.IGNORECASE)
_PREFIXED = re.compile(
    r"\b(?P<prefix>[A-Z]{1,6})\s*(?:加|后跟|后接|接|followed by|plus|and|\+)\s*" + _COUNT, re.IGNORECASE
)
_NUMERALS = dict(zip("two three four five six seven eight nine ten twelve".split(), (*range(2, 11), 12), strict=True))
_HAN_NUMERALS = dict(zip("两二三四五六七八九十", (2, *range(2, 11)), strict=True))
_FIXED_REPEAT = re.compile(r"\{\d{1,3}\}")
_VARIABLE_REPEAT = re.compile(r"[*+?]|\{\d*,\d*\}")
_ORDINARY = ("order", "the", "hello", "where is it", "订单", "你好")


@dataclass(frozen=True, slots=True)
class Found:
    """An identifier in the form that its shape wants, and where it stands."""

    value: str
    span: Span


@dataclass(frozen=True, slots=True)
class Shape:
    """What an identifier looks like."""

    patterns: tuple[re.Pattern[str], ...]
    certain: bool
    """Whether a token of this shape is hardly anything else."""
    upper: bool = False
    """Whether the examples are in capitals: then so is what is found."""
    digits: bool = True
    """Whether it has a digit: then words are not looked at."""

    def find(self, text: str) -> list[Found]:
        """The identifiers in order, each once, none overlapping another."""
        found: dict[str, Found] = {}
        end = 0
        for start, token in _candidates(text):
            if start < end or (self.digits and not any(map(str.isdigit, token))):
                continue
            value = self.fit(token)
            if value is not None:
                end = start + len(token)
                found.setdefault(value, Found(value, (start, end)))
        return list(found.values())

    def fit(self, token: str) -> str | None:
        """The token in the form that the shape wants, or None."""
        if len(token) > MAX_TOKEN_CHARACTERS:
            return None
        for variant in _variants(token, upper=self.upper) if self.digits else (token,):
            if any(pattern.fullmatch(variant) for pattern in self.patterns):
                return variant
        return None


def of_pattern(pattern: str, examples: Iterable[str]) -> Shape | None:
    """The shape that a JSON schema's `pattern` gives; None where it is free text, invalid or too costly to try."""
    compiled = safe(pattern)
    if compiled is None or any(compiled.fullmatch(word) for word in _ORDINARY):
        return None
    capitals = [example for example in examples if compiled.fullmatch(example)] or ["" if compiled.fullmatch("x1") else "X"]
    digits = not any(compiled.fullmatch(word) for word in ("A", "AB", "ABC", "ABCD", "ABCDE"))
    certain = digits and not any(compiled.fullmatch("7" * count) for count in range(1, CERTAIN_DIGITS))
    return Shape((compiled,), certain, all(example.isupper() for example in capitals), digits)


def of_format(name: str) -> Shape | None:
    """The shape of a JSON schema's `format`."""
    pattern = FORMATS.get(name)
    return Shape((re.compile(pattern),), certain=False, digits=name not in {"email", "uri"}) if pattern else None


def of_examples(examples: list[str]) -> Shape | None:
    """The shape of identifiers like these."""
    like = [example for example in examples if _is_identifier(example)]
    if not like:
        return None
    certain = all(_has_letter(example) or len(example) >= CERTAIN_DIGITS for example in like)
    return Shape(tuple(re.compile(_generalised(example)) for example in like), certain, all(map(str.isupper, like)))


def resembling(examples: list[str]) -> Shape | None:
    """As `of_examples`, with any letters in place of theirs."""
    like = [example for example in examples if _is_identifier(example) and _has_letter(example)]
    patterns = tuple(re.compile(_generalised(example, letters=None)) for example in like)
    return Shape(patterns, certain=False, upper=all(map(str.isupper, like))) if like else None


def in_words(description: str) -> Shape | None:
    """The shape that a sentence describes."""
    patterns = []
    for match in _PLACEHOLDER.finditer(description):
        rest = match["rest"]
        if not rest or rest[0] in "#*<{" or len(rest) > 1 and rest.strip("XxNnYMD0#") == "":
            patterns.append(re.escape(match["prefix"]) + r"(?=[A-Za-z]*\d)[A-Za-z0-9]{1,20}")
    for match in _PREFIXED.finditer(description):
        patterns.append(re.escape(match["prefix"]) + rf"\d{{{_number(match['count'])}}}")
    if patterns:
        return Shape(tuple(map(re.compile, patterns)), certain=True, upper=True)
    digits = _DIGITS.search(description)
    if digits is None:
        return None
    count = _number(digits["count"])
    return Shape((re.compile(rf"\d{{{count}}}"),), certain=count >= CERTAIN_DIGITS)


ANY = Shape((re.compile(r"(?=[A-Za-z_-]{0,20}\d)[A-Za-z0-9]{1,40}(?:[-_][A-Za-z0-9]{1,40}){0,4}"),), certain=False)
"""For a parameter that is called a number, an id or a code and says no more."""


def examples_in(description: str) -> list[str]:
    """What a description gives as an example."""
    cued = [match["example"].strip(" .。") for match in _CUE.finditer(description)]
    named = [token for match in _TOKEN.finditer(description) if _is_named_example(token := match.group())]
    return list(dict.fromkeys([token for example in cued if (token := _identifier_in(example))] + named + cued))


@lru_cache(maxsize=256)
def safe(pattern: str) -> re.Pattern[str] | None:
    """The compiled pattern; None where it is invalid, or repeats in a way that can take long."""
    if len(pattern) > MAX_PATTERN_CHARACTERS or re.search(r"\{\d{4}", pattern):
        return None
    bare = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", pattern)
    bare = _FIXED_REPEAT.sub("", re.sub(r"\(\?[:=!<]?|\(\?P<\w+>", "(", bare))
    if len(_VARIABLE_REPEAT.findall(bare)) > MAX_VARIABLE_REPEATS or _repeats_a_choice(bare, pattern):
        return None
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return None


def _repeats_a_choice(bare: str, pattern: str) -> bool:
    """Whether a group that may match in several ways is repeated: the cost would double with each character."""
    if not re.search(r"\)(?:[*+]|\{)", re.sub(r"\\.", "x", pattern)):
        return False
    return bool(re.search(r"\([^()]*(?:[*+?|]|\{\d*,)[^()]*\)", bare)) or bare.count("(") > 1


def _candidates(text: str) -> Iterator[tuple[int, str]]:
    """Tokens, their parts, and a token with the next one where a space is between them."""
    before: re.Match[str] | None = None
    for count, match in enumerate(_TOKEN.finditer(text)):
        if count >= MAX_TOKENS:
            return
        if before and before.end() + 1 == match.start() and text[before.end()] == " " and before.group().isalpha():
            yield before.start(), f"{before.group()} {match.group()}"
        yield match.start(), match.group()
        start = match.start()
        for part in _JOINTS.split(match.group()) if _JOINTS.search(match.group()) else ():
            start = text.index(part, start)
            yield start, part
            start += len(part)
        before = match


def _variants(token: str, *, upper: bool) -> Iterable[str]:
    """The token as it may have been meant: another case, another hyphen, none."""
    forms = (token, _BEFORE_DIGIT.sub("-", token), re.sub("[ _-]", "", token))
    cased = [(form.upper(), form, form.lower()) if upper else (form, form.upper(), form.lower()) for form in forms]
    return dict.fromkeys(variant for three in cased for variant in three)


def _generalised(example: str, letters: str | None = "") -> str:
    """The expression for tokens like `example`; `letters=None` lets its letters be others."""
    runs = _RUNS.findall(example)
    if sum(run.isalnum() for run in runs) > 3 and all(run.isalnum() for run in runs):
        size = len(example)
        return rf"(?=[A-Za-z]{{0,{size}}}\d)[A-Za-z0-9]{{{max(1, size - 2)},{size + 2}}}"
    own_prefix = letters is not None and _has_letter(example)
    return "".join(_run(run, own_prefix=own_prefix) for run in runs)


def _run(run: str, *, own_prefix: bool) -> str:
    if run.isdigit():
        return r"\d{1,20}" if own_prefix else rf"\d{{{max(1, len(run) - 2)},{len(run) + 2}}}"
    if run.isalpha() and not own_prefix:
        return rf"[A-Za-z]{{{max(1, len(run) - 1)},{len(run) + 1}}}"
    return re.escape(run)


def _is_identifier(example: str) -> bool:
    return (
        len(example) <= MAX_TOKEN_CHARACTERS
        and bool(re.search(r"\d", example))
        and bool(_TOKEN.fullmatch(example))
        and not _STANDARD.match(example)
    )


def _is_named_example(token: str) -> bool:
    """Whether it is one without being called one: letters with a separator or with many digits."""
    digits = sum(map(str.isdigit, token))
    return _is_identifier(token) and _has_letter(token) and (digits >= 3 or bool(re.search(r"[A-Z]-\d", token)))


def _identifier_in(example: str) -> str | None:
    return next((token for token in _TOKEN.findall(example) if _is_identifier(token)), None)


def _has_letter(text: str) -> bool:
    return any(map(str.isalpha, text))


def _number(numeral: str) -> int:
    return int(numeral) if numeral.isdigit() else _NUMERALS.get(numeral.lower()) or _HAN_NUMERALS[numeral]
