"""What does a provider's exception mean in our terms?

The table of this boundary. A provider's text never passes it: it may repeat the prompt or a part of the key, so that
neither a client nor a log sees more than the exception's type, its status, its code and where it was raised.
"""

from __future__ import annotations

import logging
import re
import traceback
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING

from serve_app.errors import InvalidRequest, ModelUnavailable, Problem, ServeAppError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

logger = logging.getLogger(__name__)

MAX_RETRY_AFTER_S = 3600.0

TOO_LONG = "The conversation is longer than the model can read"
TOO_MANY = "The model's provider limits the rate of requests"
TOO_SLOW = "The model did not answer in time"
UNREACHABLE = "The model's provider cannot be reached"
FAILED = "The model's provider failed"
REFUSED = "The model's provider refused the request"
UNREADABLE = "The model's answer cannot be read"

_OF_THE_REQUEST = {400, 413, 422}
_OVERFLOW = re.compile(r"context[_ ](?:length|window)|maximum context|prompt is too long", re.IGNORECASE)
_KEY_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9_]*_(?:API_KEY|ACCESS_KEY|TOKEN)\b")
_PACKAGE = re.compile(r"pip install [`'\"]?([A-Za-z0-9_.\[\]-]+)")
_PROVIDERS = re.compile(r"[Ss]upported (?:model )?providers(?: are)?: ([a-z0-9_, ]+)")


class ModelRefused(ModelUnavailable):
    """The provider refused for a reason that stays: a wrong key, an unknown model, a request it does not take."""

    retryable = False


class RequestRefused(ModelRefused):
    """The provider does not take this one request, as for what it says; others may fare better."""


class ModelTooSlow(ModelUnavailable):
    """The provider did not answer in time: whoever tries again is likely to wait as long."""


class ModelBusy(ModelUnavailable):
    """The provider limits how often it is asked."""


class ModelUnreadable(ModelUnavailable):
    """The provider's answer is none that its package can read."""


@contextmanager
def translated() -> Iterator[None]:
    """A provider's failures, raised as ours.

    Raises:
        InvalidRequest: the conversation does not fit the model.
        ModelRefused: trying again brings the same refusal; RequestRefused where it is for this request only.
        ModelUnavailable: the provider did not answer, or not with an answer; `retry_after_s` where it names a time.
    """
    try:
        yield
    except ServeAppError:
        raise
    except Exception as error:  # noqa: BLE001 - a provider's package raises whatever it likes
        logger.warning("model call failed: %s", _described(error))
        raise _ours(error) from None


def problem_of(construct: Callable[[], object], name: str, where: str) -> Problem | None:
    """Why the model `name` of the section `where` cannot be constructed; None where it can."""
    try:
        construct()
    except Exception as error:  # noqa: BLE001 - likewise, at construction
        return _problem(error, name, where)
    return None


def _ours(error: Exception) -> ServeAppError:
    from langchain_core.exceptions import ContextOverflowError, ModelError, ModelInvalidRequestError

    if isinstance(error, ContextOverflowError) or _is_overflow(error):
        return InvalidRequest(TOO_LONG)
    if message := _passing(error):
        kind = {TOO_SLOW: ModelTooSlow, TOO_MANY: ModelBusy}.get(message, ModelUnavailable)
        return kind(message, _retry_after_s(error))
    if isinstance(error, ModelInvalidRequestError) or _status(error) in _OF_THE_REQUEST:
        return RequestRefused(REFUSED)
    if isinstance(error, ModelError) or _status(error) is not None:
        return ModelRefused(REFUSED)
    if isinstance(error, ValueError | TypeError | LookupError):
        return ModelUnreadable(UNREADABLE)
    return ModelUnavailable(FAILED)


def _passing(error: Exception) -> str | None:
    """What to say of a failure that another try may not meet: LangChain's kinds, else the HTTP status."""
    from langchain_core import exceptions as known

    rows: tuple[tuple[tuple[type[Exception], ...], Container[int | None], str], ...] = (
        ((known.ModelRateLimitError,), {429}, TOO_MANY),
        ((known.ModelTimeoutError, TimeoutError), {408, 504}, TOO_SLOW),
        ((known.ModelConnectionError, OSError), {502}, UNREACHABLE),
        ((known.ModelAPIError,), range(500, 600), FAILED),
    )
    status = _status(error)
    return next((message for kinds, statuses, message in rows if isinstance(error, kinds) or status in statuses), None)


def _described(error: Exception) -> str:
    """Type, status, code and the line that raised it: enough to find a fault of ours, and no word of the provider's."""
    raised = traceback.extract_tb(error.__traceback__)[-1]
    code = getattr(error, "code", None)
    return f"{type(error).__name__}, status {_status(error)}, code {code}, at {raised.filename}:{raised.lineno}"


def _is_overflow(error: Exception) -> bool:
    """Compatible servers say it by a code or in words of their own."""
    if _status(error) not in _OF_THE_REQUEST:
        return False
    return bool(_OVERFLOW.search(str(getattr(error, "code", "") or "")) or _OVERFLOW.search(str(error)))


def _status(error: Exception) -> int | None:
    status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _retry_after_s(error: Exception) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return min(max(0.0, float(headers.get("retry-after", ""))), MAX_RETRY_AFTER_S)
    except ValueError:  # none, or a date
        return None


def _problem(error: Exception, name: str, where: str) -> Problem:
    text, at = str(error), f"{where}.name"
    provider = name.partition(":")[0]
    if variable := _KEY_VARIABLE.search(text):
        mend = f"Set it, put it into .env, or name another variable in {where}.api_key_env"
        return Problem(at, f"{name} has no key: the environment variable {variable.group()} is not set", mend)
    if isinstance(error, ImportError | AttributeError):
        package = _PACKAGE.search(text)
        install = package.group(1) if package else f"langchain-{provider.replace('_', '-')}"
        return Problem(at, f"the package of {name} is not installed", f"pip install {install}")
    if supported := _PROVIDERS.search(text):
        near = get_close_matches(provider, re.findall(r"\w+", supported.group(1)), n=1)
        mend = f"Did you mean {near[0]!r}?" if near else "Name it provider:model, such as openai:glm-4"
        return Problem(at, f"{name} names no provider that is known", mend)
    return Problem(at, f"{name} cannot be constructed ({type(error).__name__})", f"Check the section {where}")
