"""Failures of a call to an OpenAI-compatible endpoint, as the client raises them.

A connection that cannot be made or breaks is a `ConnectionError`, a call that takes too long a `TimeoutError`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_RETRY_AFTER_S = 3600.0
MAX_CHARACTERS = 2_000
"""Of a provider's text: the rest would be its web page or the whole prompt."""
_CODES = ("code", "type", "status", "status_code")


class ProviderError(Exception):
    """The endpoint answered with an error; `text` is what it said, in its own words."""

    def __init__(
        self, text: str = "", status: int | None = None, code: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(text, status, code, retry_after_s)
        self.text = text[:MAX_CHARACTERS]
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.text


class ReplyUnreadable(ProviderError):
    """The reply is no chat completion, or its parts cannot be put together."""


class ReplyIncomplete(ProviderError):
    """The reply ended without its end: no `finish_reason` came."""


def error_of(document: Any, status: int | None = None, retry_after_s: float | None = None) -> ProviderError | None:
    """The error that a JSON body or event holds, in any of the known shapes; None where it holds none."""
    if isinstance(document, list) and document:  # Gemini's compatible endpoint
        document = document[0]
    if not isinstance(document, dict):
        return None
    found = document.get("error") or document.get("base_resp")
    if isinstance(found, dict) and found.get("status_code") == 0:  # MiniMax says so of what went well
        return None
    if not found and "choices" not in document and ("message" in document or "msg" in document or "detail" in document):
        found = document
    if not found:
        return None
    if not isinstance(found, dict):
        return ProviderError(str(found), status, "", retry_after_s)
    said = next((found[name] for name in ("message", "msg", "status_msg", "detail") if found.get(name)), found)
    code = next((str(found[name]) for name in _CODES if found.get(name)), "")
    return ProviderError(str(said), status, code, retry_after_s)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """When to come back, in seconds, by `retry-after-ms` or `retry-after`; the names of the headers in lower case."""
    for name, per_second in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        seconds: float | None
        try:
            seconds = float(headers[name]) / per_second
        except KeyError:
            continue
        except ValueError:
            seconds = _until(headers[name])
        if seconds is not None and seconds == seconds:  # noqa: PLR0124 - not NaN
            return min(max(0.0, seconds), MAX_RETRY_AFTER_S)
    return None


def _until(date: str) -> float | None:
    try:
        then = parsedate_to_datetime(date)
    except ValueError:
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return (then - datetime.now(UTC)).total_seconds()
