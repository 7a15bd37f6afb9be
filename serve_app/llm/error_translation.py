"""Translates the errors of model providers into the service's error tree.

No answer repeats a provider's text: it may hold the prompt or a part of the key. The log has the text, masked and
shortened, with status, code and the line that raised it.

The codes and words of each kind of failure come from replies of OpenAI, Azure, Anthropic, Gemini, Zhipu, DashScope,
Moonshot, DeepSeek, vLLM, llama.cpp, Ollama, Groq and Bedrock.
"""

from __future__ import annotations

import logging
import re
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve_app.errors import InvalidRequest, ModelUnavailable, ServeAppError
from serve_app.llm.openai_compatible.provider_error import (
    ConnectionFailed,
    ProviderError,
    ReplyIncomplete,
    ReplyUnreadable,
    TimedOut,
    read_retry_after_s,
)
from serve_app.observability.redaction import Redactor
from serve_app.values.sanitize import sanitize_text

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

logger = logging.getLogger(__name__)

LOGGED_CHARACTERS = 500
"""Of a provider's text: the first sentences name the error; the rest may be the whole prompt."""

TOO_LONG = "The conversation is longer than the model can read"
TOO_MANY = "The model's provider limits the rate of requests"
TOO_SLOW = "The model did not answer in time"
UNREACHABLE = "The model's provider cannot be reached"
FAILED = "The model's provider failed"
REFUSED = "The model's provider refused the request"
UNREADABLE = "The model's answer cannot be read"
INCOMPLETE = "The model's answer broke off"
WRONG_KEY = "The model's provider does not accept the service's key"
NO_MONEY = "The service's account at the model's provider has no quota left"
FILTERED = "The model's provider refused what the conversation says"
NO_TOOLS = "The model takes no tools"
CUT_OFF = "The model's answer was cut off at its limit"

OVERFLOW_STATUSES = frozenset({None, 400, 413, 422, 500})
REQUEST_STATUSES = frozenset({400, 413, 422})

_MASK = Redactor.from_patterns(())


class ModelRefused(ModelUnavailable):
    """The provider refused permanently: an unknown model, an invalid request."""

    retryable = False


class KeyRefused(ModelRefused):
    """The provider does not accept the key: only the operator can change that."""


class QuotaSpent(ModelRefused):
    """The account has no money or quota left: only the operator can change that."""


class RequestRefused(ModelRefused):
    """The provider refuses this one request; another request may succeed."""


class ToolsRefused(RequestRefused):
    """The model takes no tools, but the request has some."""


class ContentFiltered(RequestRefused):
    """The provider refuses the content of the conversation; the model itself is healthy."""


class ReplyCutOff(RequestRefused):
    """The reply was cut off at a limit, and another model is to be called."""


class ContextOverflow(InvalidRequest):
    """The conversation is longer than the model reads."""


class ModelTooSlow(ModelUnavailable):
    """The provider did not answer in time; a retry is likely to wait as long."""


class ModelBusy(ModelUnavailable):
    """The provider limits the rate of requests."""


class ModelUnreadable(ModelUnavailable):
    """The provider's answer cannot be read."""


class ModelIncomplete(ModelUnreadable):
    """The provider's answer broke off before its end."""


@dataclass(frozen=True, slots=True)
class _ProviderFailure:
    """A failure in the words of the provider."""

    status: int | None
    code: str
    text: str

    @classmethod
    def of(cls, error: Exception) -> _ProviderFailure:
        """Read status, code and text of an exception of any provider's package."""
        status = getattr(error, "status_code", None) or getattr(error, "status", None)
        status = status or getattr(getattr(error, "response", None), "status_code", None)
        code = str(getattr(error, "code", None) or getattr(error, "type", None) or "")
        text = read_error_text(error)
        if not isinstance(status, int) and code.isdigit() and 400 <= int(code) < 600:  # noqa: PLR2004 - HTTP's errors
            status = int(code)  # an error under 200 names its status itself
        return cls(status if isinstance(status, int) else None, code, text)

    def is_a(self, kind: ErrorSigns) -> bool:
        return self.code.lower() in kind.codes or bool(kind.words.search(self.text.lower()))


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise the errors of a provider as the service's own.

    Raises:
        ContextOverflow: the conversation does not fit the model.
        ModelRefused: a retry would be refused too; RequestRefused if only this request is refused.
        ModelUnavailable: there is no answer, or no readable one; `retry_after_s` is the provider's.
    """
    try:
        yield
    except ServeAppError:
        raise
    except Exception as error:  # noqa: BLE001 - a provider's package raises whatever it likes
        refusal = _ProviderFailure.of(error)
        translated = _to_service_error(error, refusal)
        logger.warning("model_call_failed", extra={"error": _describe(error, refusal), "provider_text": _mask(refusal)})
        raise translated from None


def _to_service_error(error: Exception, refusal: _ProviderFailure) -> ServeAppError:
    if overflow := _overflow(error, refusal):
        return overflow
    if _is_provider_word(error, refusal):
        for kind, ours, message in (
            (NO_MONEY_SIGNS, QuotaSpent, NO_MONEY),
            (WRONG_KEY_SIGNS, KeyRefused, WRONG_KEY),
            (FILTERED_SIGNS, ContentFiltered, FILTERED),
            (NO_TOOLS_SIGNS, ToolsRefused, NO_TOOLS),
        ):
            if refusal.is_a(kind):
                return ours(message)
    if refusal.status in {401, 402}:
        return KeyRefused(WRONG_KEY) if refusal.status == 401 else QuotaSpent(NO_MONEY)  # noqa: PLR2004 - by HTTP
    if transient := _transient_message(error, refusal):
        kinds = {TOO_SLOW: ModelTooSlow, TOO_MANY: ModelBusy}
        return kinds.get(transient, ModelUnavailable)(transient, _retry_after_s(error))
    return _permanent_error(error, refusal)


def _overflow(error: Exception, refusal: _ProviderFailure) -> ContextOverflow | None:
    from langchain_core.exceptions import ContextOverflowError

    known = isinstance(error, ContextOverflowError)
    named = refusal.status in OVERFLOW_STATUSES and _is_provider_word(error, refusal)
    return ContextOverflow(TOO_LONG) if known or (named and refusal.is_a(OVERFLOW_SIGNS)) else None


def _permanent_error(error: Exception, refusal: _ProviderFailure) -> ServeAppError:
    """Return the error for a failure that a retry would meet again."""
    from langchain_core import exceptions as known

    rows: tuple[tuple[bool, type[ModelUnavailable], str], ...] = (
        (isinstance(error, ReplyIncomplete), ModelIncomplete, INCOMPLETE),
        (isinstance(error, ReplyUnreadable), ModelUnreadable, UNREADABLE),
        (isinstance(error, known.ModelInvalidRequestError), RequestRefused, REFUSED),
        (refusal.status in REQUEST_STATUSES, RequestRefused, REFUSED),
        (isinstance(error, known.ModelError) or refusal.status is not None, ModelRefused, REFUSED),
        (isinstance(error, ProviderError), ModelUnavailable, FAILED),  # an error under 200 that names no status
        (isinstance(error, ValueError | TypeError | LookupError), ModelUnreadable, UNREADABLE),
    )
    kind, message = next(((kind, message) for holds, kind, message in rows if holds), (ModelUnavailable, FAILED))
    return kind(message)


def _transient_message(error: Exception, refusal: _ProviderFailure) -> str | None:
    """Return the message for a transient failure, by type or HTTP status; else None."""
    from langchain_core import exceptions as known

    rows: tuple[tuple[tuple[type[Exception], ...], Container[int | None], str], ...] = (
        ((known.ModelRateLimitError,), {429}, TOO_MANY),
        ((known.ModelTimeoutError, TimedOut, TimeoutError), {408, 504}, TOO_SLOW),
        ((known.ModelConnectionError, ConnectionFailed, OSError), {502}, UNREACHABLE),
        ((known.ModelAPIError,), range(500, 600), FAILED),
    )
    found = next(
        (words for kinds, statuses, words in rows if isinstance(error, kinds) or refusal.status in statuses), None
    )
    return TOO_MANY if found is None and _is_provider_word(error, refusal) and refusal.is_a(TOO_MANY_SIGNS) else found


def _is_provider_word(error: Exception, refusal: _ProviderFailure) -> bool:
    """Return whether the text is the provider's, not of an error in this process."""
    from langchain_core.exceptions import ModelError

    return refusal.status is not None or isinstance(error, ModelError | ProviderError) or bool(refusal.code)


def _describe(error: Exception, refusal: _ProviderFailure) -> str:
    """Return type, status, code and the line that raised the error."""
    raised = traceback.extract_tb(error.__traceback__)[-1]
    reply = f"status {refusal.status}, code {refusal.code or None}"
    return f"{type(error).__name__}, {reply}, at {raised.filename}:{raised.lineno}"


def _mask(refusal: _ProviderFailure) -> str:
    return _MASK.redact(sanitize_text(refusal.text[: 2 * LOGGED_CHARACTERS]))[:LOGGED_CHARACTERS]


def read_error_text(error: Exception) -> str:
    """Return the text of an exception of any provider's package."""
    try:
        return str(getattr(error, "text", None) or error)
    except Exception:  # noqa: BLE001 - an exception of a provider's package may not even be printable
        return type(error).__name__


def _retry_after_s(error: Exception) -> float | None:
    seconds: object = getattr(error, "retry_after_s", None)
    if isinstance(seconds, int | float):
        return float(seconds)
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return read_retry_after_s({str(name).lower(): str(value) for name, value in dict(headers).items()})


@dataclass(frozen=True, slots=True)
class ErrorSigns:
    """The codes and words of one kind of failure.

    They are in lower case; codes are compared whole.
    """

    codes: frozenset[str]
    words: re.Pattern[str]


def _signs(codes: str, *words: str) -> ErrorSigns:
    return ErrorSigns(frozenset(codes.split()), re.compile("|".join(words)))


OVERFLOW_SIGNS = _signs(
    "context_length_exceeded exceed_context_size_error 1261 model_context_window_exceeded string_above_max_length "
    "context_window_exceeded request_too_large",
    r"context[ _](?:length|window|size)",
    r"maximum context",
    r"(?:prompt|input|message|request|conversation)s? (?:is|are|was) too (?:long|large)",
    r"prompt 超长",
    r"range of input length should be",
    r"exceeded model token limit",
    r"input (?:token count|tokens?)[^.]{0,60}exceeds?",
    r"exceeds? the (?:maximum|available|model'?s?)[^.]{0,40}(?:tokens?|context|input|length)",
    r"too many (?:input |total |prompt )?tokens",
    r"reduce the length of the (?:messages|prompt|input)",
    r"longer than the (?:model'?s context|maximum model length)",
    r"request too large for model|reduce your message size",
    r"total (?:number of )?tokens[^.]{0,40}exceed",
    r"input length and `?max_tokens`? exceed",
    r"max_total_tokens|max_input_tokens",
)
"""The conversation is longer than the model reads."""

NO_MONEY_SIGNS = _signs(
    "insufficient_quota 1113 arrearage insufficient_balance billing_hard_limit_reached exceeded_current_quota_error "
    "billing_not_active 30001 allocationquota.freetieronly",
    r"insufficient[ _](?:balance|quota|credits?|funds)",
    r"exceeded your current quota(?![^\0]*(?:gemini|generativelanguage|ai\.google))",  # which Gemini says of rates, too
    r"credit balance is too low",
    r"余额不足|已欠费|欠费",
    r"account is in arrears|overdue[- ]payment",
    r"requires more credits",
)
"""The account has no balance or quota left."""

WRONG_KEY_SIGNS = _signs(
    "invalid_api_key invalidapikey authentication_error invalid_authentication_error incorrect_api_key_error "
    "unrecognizedclientexception 1004",
    r"(?:incorrect|invalid|wrong) api[ _-]?key",
    r"api[ _-]?key (?:is )?(?:not valid|invalid|expired)",
    r"invalid x-api-key",
    r"authentication fails",
    r"invalid authentication",
)
"""The provider does not accept the key."""

FILTERED_SIGNS = _signs(
    "content_filter content_policy_violation 1301 data_inspection_failed datainspectionfailed "
    "responsibleaipolicyviolation content_filtered moderation_blocked prohibited_content",
    r"content management policy|content[ _]filter",
    r"inappropriate content",
    r"considered high risk",
    r"不安全或敏感内容|敏感内容",
    r"blocked by (?:the )?(?:safety|content)",
    r"data may contain inappropriate",
)
"""The provider refuses the content of the conversation."""

NO_TOOLS_SIGNS = _signs(
    "",
    r"does ?n[o']t support (?:tools|tool use|function|tool)",
    r"tool (?:use|calling) is not supported",
    r"function calling is not (?:supported|enabled)",
    r'"auto" tool choice requires',
    r"support(?:s)? for tools is not",
)
"""The model takes no tools."""

TOO_MANY_SIGNS = _signs(
    "429 rate_limit_exceeded rate_limit_error rate_limit_reached_error 1302 1303 1305 throttling throttlingexception "
    "throttling.ratequota resource_exhausted engine_overloaded_error",
    r"rate limit",
    r"too many requests",
)
"""The provider limits the rate of requests."""
