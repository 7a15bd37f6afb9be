"""Errors of a call to a provider.

ProviderError            the provider says no, or its answer carries an error
├── ReplyUnreadable      its bytes make no reply
├── ReplyIncomplete      its bytes end before the reply does
├── ConnectionFailed     no connection, or it broke
└── TimedOut             the call's own time ran out
"""

from __future__ import annotations

import json
import math
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TEXT_CHARACTERS = 500
"""Of a provider's text in an error: enough to recognise it, too little to flood a log."""

_MAX_WAIT_S = 86_400.0


class ProviderError(Exception):
    """A call without a reply. `text` is for logs only: it is the provider's text."""

    def __init__(
        self, text: str = "", status: int | None = None, code: str = "", retry_after_s: float | None = None
    ) -> None:
        self.text = text[:MAX_TEXT_CHARACTERS]
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s
        super().__init__(self.text)

    def __reduce__(self) -> tuple[type[ProviderError], tuple[object, ...]]:
        return type(self), (self.text, self.status, self.code, self.retry_after_s)

    def __str__(self) -> str:
        status = " ".join(str(each) for each in (self.status, self.code) if each)
        return f"{status}: {self.text}" if status else self.text


class ReplyUnreadable(ProviderError):
    """The bytes of a reply do not make a reply."""


class ReplyIncomplete(ProviderError):
    """The bytes of a reply ended before the provider said that it was complete."""


class ConnectionFailed(ProviderError):
    """No connection could be made, or it broke during the call."""


class TimedOut(ProviderError):
    """The call took longer than its time."""


def make_status_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """Return the error for a response with an error status."""
    content = body[: 64 * 1024].decode("utf-8", "replace")
    payload = load_object(content)
    code, text = ("", content.strip()) if payload is None else read_code_and_text(payload)
    return ProviderError(text or f"status {status}", status, code, read_retry_after_s(headers))


def load_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object in a text, or None."""
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(payload, list) and payload:  # Gemini puts an error in a list
        payload = payload[0]
    return payload if isinstance(payload, dict) else None


def find_error(payload: Mapping[str, Any]) -> ProviderError | None:
    """Return the error in a body with status 200, or None."""
    base = payload.get("base_resp")
    failed = isinstance(base, dict) and base.get("status_code") not in (None, 0, "0")
    bare = not payload.get("choices") and payload.get("code") not in (None, 0, 200, "0", "200", "")
    if not (payload.get("error") or failed or payload.get("object") == "error" or (bare and _words(payload))):
        return None
    code, text = read_code_and_text(payload)
    return ProviderError(text or "the provider answered with an error", _status(code), code)


def read_code_and_text(payload: Mapping[str, Any]) -> tuple[str, str]:
    """Return code (or type) and text of an error body, in any provider's form."""
    inner = payload.get("error")
    if isinstance(inner, str):
        return _code(payload), inner
    if isinstance(inner, dict):
        return _code(inner), _words(inner) or _words(payload)
    base = payload.get("base_resp")
    if isinstance(base, dict):
        return str(base.get("status_code", "")), str(base.get("status_msg", ""))
    return _code(payload), _words(payload)


def read_retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait by the response headers; their case does not matter."""
    low = {name.lower(): value.strip() for name, value in headers.items()}
    if (milliseconds := _number(low.get("retry-after-ms"))) is not None:
        return _bounded(milliseconds / 1000)
    for name in ("retry-after", "x-ratelimit-reset-after", "x-ratelimit-reset"):
        value = low.get(name)
        if value is None:
            continue
        if (seconds := _number(value.removesuffix("s"))) is not None:
            return _bounded(seconds - time.time() if seconds > 1e9 else seconds)  # noqa: PLR2004  (an epoch)
        if (date := _date(value)) is not None:
            return _bounded(date - time.time())
    return None


def _code(payload: Mapping[str, Any]) -> str:
    for name in ("code", "type", "status"):
        value = payload.get(name)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
            return str(value)[:100]
    return ""


def _words(payload: Mapping[str, Any]) -> str:
    for name in ("message", "msg", "detail", "error_msg"):
        if value := payload.get(name):
            return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)[:MAX_TEXT_CHARACTERS]
    return ""


def _status(code: str) -> int | None:
    return int(code) if len(code) == 3 and code.isdecimal() and code[0] in "45" else None  # noqa: PLR2004


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) else None


def _date(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), _MAX_WAIT_S)
