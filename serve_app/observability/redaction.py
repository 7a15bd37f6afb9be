"""Redaction of secrets and personal data in logs, traces and answers.

Masked are secrets, e-mail addresses, phone numbers, Chinese identity numbers and bank cards, and what the operator's
own patterns match. The time is linear in the text's length: no pattern backtracks without bound. Most texts hold
nothing to mask, so each pattern runs only where the text has a string that it needs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

SECRET, EMAIL, OWN, SENSITIVE = "[secret]", "[email]", "[redacted]", "[sensitive]"
PHONE, ID, CARD = "[phone]", "[id]", "[card]"
CACHED_CHARACTERS = 64
"""Texts up to this length are cached: ids, names and states are the same in line after line."""
SHORTEST_HIDDEN = 3
"""Characters. A shorter value is not hidden, because it is part of many words."""

_NAME = (
    r"(?:api[ _-]?key|(?:access|secret|private)[ _-]?key|secret|token|authorization|passw(?:or)?d|passphrase|pwd|cookie"
    r"|密码|口令|密钥|令牌)(?:[_-]?\d{1,2})?"
)
_IS = r"(?:\\?[\"'])?\s{0,3}(?:=>?|[:：是为])\s{0,3}"
_SCHEME = r"(?:bearer|basic|digest|token)\s{1,3}"
_NAMES = (
    "key",
    "secret",
    "token",
    "authorization",
    "passw",
    "passphrase",
    "pwd",
    "cookie",
    "密码",
    "口令",
    "密钥",
    "令牌",
)
_HINT = re.compile(
    r"(?:key|secret|token|authorization|passw(?:or)?d|passphrase|pwd|cookie|密码|口令|密钥|令牌)(?:[_-]?\d{1,2})?" + _IS
)
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_QUOTED = re.compile(rf"({_NAME}{_IS}(?P<open>\\?[\"']))(?:(?!(?P=open))(?:\\.|[^\\]))++", re.IGNORECASE | re.DOTALL)
_BARE = re.compile(
    rf"({_NAME}{_IS}(?:{_SCHEME})?)(?!\[secret\]|{_SCHEME})[^\s\"'\\,;&(){{}}<>\u0080-\U0010ffff]{{3,}}+",
    re.IGNORECASE,
)
_BEARER = re.compile(
    r"(?<![A-Za-z0-9])((?:bearer|basic)\s{1,3})(?=[^\s\d]{0,200}\d)[A-Za-z0-9._~+/=-]{12,}+", re.IGNORECASE
)
_IN_URL = re.compile(r"(://[^\s/:@\"']{0,256}:)[^\s/\"']{1,256}@")
_MARKS = (
    *("sk-", "pk-", "rk-", "sk_", "pk_", "rk_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox"),
    *("hf_", "lsv2_", "AKIA", "ASIA", "AIza", "AKID", "LTAI", "eyJ", "sa_"),
)
_MARKED = re.compile(
    r"(?<![A-Za-z0-9])(?:[spr]k[-_][A-Za-z0-9_-]{16,}+"  # OpenAI and those compatible with it, Stripe
    r"|sa_[0-9a-f]{16}_[A-Za-z0-9_-]{16,}+"  # our own
    r"|gh[pousr]_[A-Za-z0-9]{20,}+|github_pat_[A-Za-z0-9_]{20,}+|glpat-[A-Za-z0-9_-]{16,}+|xox[a-z]-[A-Za-z0-9-]{10,}+"
    r"|hf_[A-Za-z0-9]{20,}+|lsv2_[a-z]{2}_[A-Za-z0-9_]{20,}+"
    r"|A(?:KIA|SIA)[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{30,}+|AKID[A-Za-z0-9]{13,}+|LTAI[A-Za-z0-9]{12,}+"
    r"|eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]++)?)"  # a JSON web token
)
_ZHIPU = re.compile(r"\.(?<=[0-9a-f]{32}\.)[A-Za-z0-9]{16}(?![A-Za-z0-9])")
_PEM = re.compile(r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----(?:[^-]++|-(?!----END))*+(?:-----END [A-Z ]{0,32}-----)?")
_EMAIL = re.compile(r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]++@(?:[A-Za-z0-9-]++\.)++(?<=\.)[A-Za-z]{2,}+")
DIGIT_RUN = re.compile(r"\d[\d .()\-]{6,}+[Xx]?")
"""Digits that may hold a number, with the separators between them."""
_GROUP = re.compile(r"\d++(?:(?<=\d{17})[Xx])?")
_GAPS = {"", " ", "-"}
_PHONE_GAP = re.compile(r"[ .()\-]{0,3}")
_MOST_GROUPS = 6
SHORTEST_INTERNATIONAL, SHORTEST, LONGEST = 8, 10, 19
"""Digits of a number."""
SHORTEST_FIRST, SHORTEST_OF_CARD = 2, 3
"""Digits of a group: of the first one, and of any on a card."""

_MOBILE = re.compile(r"(?:86|0086)?1[3-9]\d{9}")
_MOBILE_SHAPES = {(11,), (3, 4, 4), (3, 8), (7, 4), (3, 3, 5), (4, 4, 3), (4, 3, 4), (5, 6), (6, 5)}
_LANDLINE_SHAPES = {(3, 8), (4, 7), (4, 8)}
_INTERNATIONAL = re.compile(r"1\d{10}|86\d{9,11}|(?!86)[2-9]\d{7,14}")
"""E.164. Countries whose numbers have one length are held to it, so that no neighbouring digits are masked."""
_BIRTH = r"(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
_REGION = r"(?:1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]|91)\d{4}"
_ID_18 = re.compile(rf"{_REGION}(?:19|20)\d\d{_BIRTH}\d{{3}}[\dX]")
_ID_15 = re.compile(rf"{_REGION}\d\d{_BIRTH}\d{{3}}")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]|2[2-7])\d{14}"  # Mastercard, Mir
    r"|3[47]\d{13}|3(?:0[0-59]|[689]\d)\d{11,16}"  # American Express, Diners Club
    r"|35\d{14,17}"  # JCB
    r"|6\d{12,18}|81\d{14,17}|5[06-9]\d{11,17}"  # UnionPay, Discover, Maestro
    r"|9558\d{12,15}"  # ICBC, before UnionPay
)
_IDENTIFIER = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{16,}", re.IGNORECASE)
_AROUND = 64


@dataclass(frozen=True, slots=True, eq=False)
class Redactor:
    """Masks secrets and personal data; a redacted text stays as it is.

    Two redactors are never equal, so that looking one up in a cache takes no time.
    """

    patterns: tuple[re.Pattern[str], ...] = ()
    """The operator's own patterns."""

    @classmethod
    def from_patterns(cls, patterns: Iterable[str]) -> Redactor:
        """A redactor with the operator's patterns (`observability.redact`)."""
        return cls(tuple(map(re.compile, patterns)))

    def redact(self, text: str, hidden: Iterable[str] = ()) -> str:
        """The text with masks; the strings in `hidden` are masked wherever they occur."""
        for each in hidden:
            if len(each) >= SHORTEST_HIDDEN:
                text = text.replace(each, SENSITIVE)
        return _redact_cached(self, text) if len(text) <= CACHED_CHARACTERS else self.redact_uncached(text)

    def redact_uncached(self, text: str) -> str:
        """The text with masks, without a look into the cache."""
        for pattern in self.patterns:
            text = pattern.sub(OWN, text)
        return _redact_numbers(_redact_emails(_redact_secrets(text)))

    def redact_value(self, value: Any, hidden: Iterable[str] = ()) -> Any:
        """A JSON value with masks; a field with a secret's name is masked whole."""
        match value:
            case str():
                return self.redact(value, hidden)
            case dict():
                return {
                    self.redact(str(name), hidden): SECRET
                    if is_secret_field(name, each)
                    else self.redact_value(each, hidden)
                    for name, each in value.items()
                }
            case list() | tuple():
                return [self.redact_value(each, hidden) for each in value]
            case bool() | float() | None:
                return value
        written = str(value)
        clean = self.redact(written, hidden)
        return value if isinstance(value, int) and clean == written else clean


@lru_cache(4096)
def _redact_cached(redactor: Redactor, text: str) -> str:
    return redactor.redact_uncached(text)


@lru_cache(4096)
def _is_secret_name(name: str) -> bool:
    return bool(_SECRET_NAME.fullmatch(name))


def is_secret_field(name: object, value: object) -> bool:
    """Whether the field holds a secret, by its name; a count of tokens does not."""
    return isinstance(value, str) and bool(value) and _is_secret_name(str(name))


def mask_sensitive(arguments: Mapping[str, Any], sensitive: Container[str]) -> dict[str, Any]:
    """A tool's arguments, with those masked that its signature marks as sensitive."""
    return {name: SENSITIVE if name in sensitive else value for name, value in arguments.items()}


def leaf_texts(values: Iterable[Any]) -> Iterator[str]:
    """The scalar values at any depth, as text."""
    for value in values:
        match value:
            case dict():
                yield from leaf_texts(value.values())
            case list() | tuple():
                yield from leaf_texts(value)
            case bool() | None:
                continue
            case _:
                yield str(value)


def _redact_secrets(text: str) -> str:
    if "-----BEGIN" in text:
        text = _PEM.sub(SECRET, text)
    if "://" in text:
        text = _IN_URL.sub(rf"\1{SECRET}@", text)
    lowered = text.lower()
    if any(name in lowered for name in _NAMES) and _HINT.search(lowered):
        text = _BARE.sub(rf"\1{SECRET}", _QUOTED.sub(rf"\1{SECRET}", text))
    if "bearer" in lowered or "basic" in lowered:
        text = _BEARER.sub(rf"\1{SECRET}", text)
    if any(mark in text for mark in _MARKS):
        text = _MARKED.sub(SECRET, text)
    return _ZHIPU.sub(SECRET, text)


def _redact_emails(text: str) -> str:
    return _EMAIL.sub(EMAIL, text) if "@" in text else text


def _redact_numbers(text: str) -> str:
    return DIGIT_RUN.sub(_mask_numbers, text)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A few neighbouring groups of digits."""

    digits: str
    shape: tuple[int, ...]
    gaps: frozenset[str]
    international: bool
    """Whether a plus sign stands before them."""


def _mask_numbers(run: re.Match[str]) -> str:
    """The run of digits with each number masked.

    A run is cut into groups of digits. A number is a few neighbouring groups whose lengths, first digits and check
    digit fit a kind, so dates, times, order numbers, versions and run ids stay.
    """
    text = run.string
    groups = [match.span() for match in _GROUP.finditer(text, *run.span())]
    pieces, written, place = [], run.start(), 0
    while place < len(groups):
        number = _longest_number(text, groups, place)
        if number is None:
            place += 1
            continue
        last, mask = number
        pieces += [text[written : groups[place][0]], mask]
        written, place = groups[last][1], last + 1
    return "".join([*pieces, text[written : run.end()]])


def _longest_number(text: str, groups: list[tuple[int, int]], place: int) -> tuple[int, str] | None:
    """The longest number from the group at `place`: its last group, and its mask."""
    for last, candidate in reversed(list(_candidates(text, groups, place))):
        mask = _mask_of(candidate)
        if mask and not _is_part_of_id(text, groups[place][0], groups[last][1]):
            return last, mask
    return None


def _candidates(text: str, groups: list[tuple[int, int]], place: int) -> Iterator[tuple[int, _Candidate]]:
    begin, end = groups[place]
    international = _follows_plus(text, begin)
    if not international and end - begin < SHORTEST_FIRST:
        return
    shortest = SHORTEST_INTERNATIONAL if international else SHORTEST
    length, gaps = 0, set()
    for last in range(place, min(place + _MOST_GROUPS, len(groups))):
        start, end = groups[last]
        if last > place:
            gap = text[groups[last - 1][1] : start]
            if gap not in _GAPS and not (international and _PHONE_GAP.fullmatch(gap)):
                return
            gaps.add(gap)
        length += end - start
        if length > LONGEST:
            return
        if length >= shortest:
            parts = [text[slice(*group)] for group in groups[place : last + 1]]
            yield (
                last,
                _Candidate(_ascii_digits("".join(parts)), tuple(map(len, parts)), frozenset(gaps), international),
            )


def _ascii_digits(digits: str) -> str:
    """The digits in ASCII; full-width and other Unicode digits are converted."""
    return digits.upper() if digits.isascii() else "".join(each if each in "Xx" else str(int(each)) for each in digits)


def _mask_of(number: _Candidate) -> str | None:
    digits, shape = number.digits, number.shape
    if number.international and _INTERNATIONAL.fullmatch(digits):
        return PHONE
    if _is_mobile(digits, shape) or _is_landline(number):
        return PHONE
    if shape in {(18,), (6, 8, 4)} and _ID_18.fullmatch(digits) and _id_check_digit(digits) == digits[17]:
        return ID
    if shape == (15,) and _ID_15.fullmatch(digits):
        return ID
    if min(shape) >= SHORTEST_OF_CARD and _CARD.fullmatch(digits) and _luhn_valid(digits):
        return CARD
    return None


def _is_mobile(digits: str, shape: tuple[int, ...]) -> bool:
    if not _MOBILE.fullmatch(digits):
        return False
    prefix = len(digits) - 11
    if prefix == 0:
        return shape in _MOBILE_SHAPES
    glued = (shape[0] - prefix, *shape[1:])
    return (shape[0] == prefix and shape[1:] in _MOBILE_SHAPES) or glued in _MOBILE_SHAPES


def _is_landline(number: _Candidate) -> bool:
    return number.gaps == {"-"} and number.shape in _LANDLINE_SHAPES and number.digits.startswith("0")


def _id_check_digit(digits: str) -> str:
    """ISO 7064, MOD 11-2."""
    total = sum(int(digit) * weight for digit, weight in zip(digits, _WEIGHTS, strict=False))
    return "10X98765432"[total % 11]


def _luhn_valid(digits: str) -> bool:
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def _follows_plus(text: str, begin: int) -> bool:
    """Whether a plus sign stands before `begin`, and no letter or digit before the sign."""
    if begin == 0 or text[begin - 1] != "+":
        return False
    before = text[begin - 2 : begin - 1] if begin > 1 else ""
    return not (before.isascii() and before.isalnum())


def _is_part_of_id(text: str, begin: int, end: int) -> bool:
    """Whether the digits are part of a longer hexadecimal id."""
    start = max(0, begin - _AROUND)
    around = text[start : end + _AROUND]
    return any(
        start + each.start() <= begin and end <= start + each.end() and (each.end() - each.start() > end - begin)
        for each in _IDENTIFIER.finditer(around)
    )
