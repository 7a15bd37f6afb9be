"""What in a text must not leave the service, and what stands in its place?

Secrets, e-mail addresses, phone numbers, Chinese identity numbers and bank cards, and whatever the operator's own
patterns find. The time is linear in the text's length: no pattern here comes back to a place without bound. Most lines
hold nothing of the kind, so that before each pattern there is a look for a string without which it cannot match.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from serve_app.observability.numbers import RUN, masked

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

SECRET, EMAIL, OWN, SENSITIVE = "[secret]", "[email]", "[redacted]", "[sensitive]"
SHORT = 64
SHORTEST_HIDDEN = 3
"""Characters: a shorter argument is a part of half of all words, and tells nobody much."""

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


@dataclass(frozen=True, slots=True)
class Redactor:
    """Masks what must not leave; a text that went through it once comes out of it unchanged."""

    patterns: tuple[re.Pattern[str], ...] = ()
    """The operator's own."""

    @classmethod
    def from_patterns(cls, patterns: Iterable[str]) -> Redactor:
        """With the operator's patterns, as the configuration has them."""
        return cls(tuple(map(re.compile, patterns)))

    def redact(self, text: str, hidden: Iterable[str] = ()) -> str:
        """The text with masks; `hidden` are strings that are masked wherever they stand."""
        for each in hidden:
            if len(each) >= SHORTEST_HIDDEN:
                text = text.replace(each, SENSITIVE)
        return _seen_before(self, text) if len(text) <= SHORT else self.unseen(text)

    def unseen(self, text: str) -> str:
        """The text with masks, in any case looked at anew."""
        for pattern in self.patterns:
            text = pattern.sub(OWN, text)
        return _numbers(_emails(_secrets(text)))

    def redact_value(self, value: Any, hidden: Iterable[str] = ()) -> Any:
        """The same of whatever JSON can hold; what a secret's name says is masked whole."""
        match value:
            case str():
                return self.redact(value, hidden)
            case dict():
                return {
                    self.redact(str(name), hidden): SECRET
                    if named_secret(name, each)
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
def _seen_before(redactor: Redactor, text: str) -> str:
    """Ids, names and states are the same in line after line: looking at them is most of a line's cost."""
    return redactor.unseen(text)


@lru_cache(4096)
def _names_secret(name: str) -> bool:
    return bool(_SECRET_NAME.fullmatch(name))


def named_secret(name: object, value: object) -> bool:
    """Whether a field of this name holds a secret; counts of tokens do not."""
    return isinstance(value, str) and bool(value) and _names_secret(str(name))


def mask_sensitive(arguments: Mapping[str, Any], sensitive: Container[str]) -> dict[str, Any]:
    """A tool's arguments without the values of those that its signature marks."""
    return {name: SENSITIVE if name in sensitive else value for name, value in arguments.items()}


def leaf_texts(values: Iterable[Any]) -> Iterator[str]:
    """What stands in the values, at any depth, as text."""
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


def _secrets(text: str) -> str:
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


def _emails(text: str) -> str:
    return _EMAIL.sub(EMAIL, text) if "@" in text else text


def _numbers(text: str) -> str:
    return RUN.sub(masked, text)
