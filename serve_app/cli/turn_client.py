"""Sends one turn to the service, and says how it ended, whatever comes back."""

from __future__ import annotations

import asyncio
import errno
import json
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import aiohttp

from serve_app.llm.openai_compatible.provider_error import ReplyUnreadable
from serve_app.llm.openai_compatible.transport import EventParser, drain, read_start
from serve_app.values import Answer, Cancelled, Failed, Token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ErrorKind = Literal["http", "stream_event", "transport", "malformed", "client_limit"]

PATH = "/agent/chat"
MAX_BODY_BYTES = 8 * 1024 * 1024
"""Many times the largest answer. A larger one must not fill the client's memory."""
MAX_NAME_CHARACTERS = 80
"""Of a code or a reason: they come from the network."""
MAX_PARTS = 20
ANSWERED = ("success", "degraded", "waiting")
REFUSALS = {"overloaded", "rate_limited", "too_many_failures", "session_busy"}
"""Error codes of a service that protects itself or others."""
OK = 200
REDIRECTS = 3
TOO_MANY_REQUESTS = 429
EVENT_STREAM = "text/event-stream"

_READ_ERRORS = (ValueError, RecursionError)
"""What the JSON of a stranger raises: it may also be nested too deeply."""


@dataclass(frozen=True, slots=True)
class TurnError:
    """Why a turn has no answer. Equal errors are counted together."""

    kind: ErrorKind
    reason: str
    status: int | None = None
    code: str = ""

    @property
    def is_refusal(self) -> bool:
        """Whether the service refused the turn on purpose, instead of failing."""
        return self.status == TOO_MANY_REQUESTS or self.code in REFUSALS

    def __str__(self) -> str:
        what = f"HTTP {self.status}" if self.kind == "http" else f"{self.kind.replace('_', ' ')}:"
        reason = f"({self.reason})" if self.code else self.reason
        return " ".join(part for part in (what, self.code, "" if self.reason == self.code else reason) if part)


@dataclass(frozen=True, slots=True)
class TurnOutcome:
    """How a turn ended: with an answer, which may lack something, or with an error."""

    status: str = ""
    """`success`, `degraded` or `waiting`; empty if there is an error."""
    degraded: tuple[str, ...] = ()
    cached: bool = False
    error: TurnError | None = None


class TurnFailed(Exception):
    """What came back is no answer."""

    def __init__(self, error: TurnError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(slots=True)
class TokenTimes:
    """When the tokens of one stream arrived, in seconds of the monotonic clock."""

    first_at: float | None = None
    gaps_s: list[float] = field(default_factory=list)
    _last_at: float = 0.0

    def add(self, data: str, at: float) -> None:
        """Count a token with text.

        Raises:
            TurnFailed: the data is no token.
        """
        token = _read_json(data)
        text = token.get("text") if isinstance(token, dict) else None
        if not isinstance(text, str):
            raise TurnFailed(TurnError("malformed", "a token that cannot be read"))
        if not text:
            return
        if self.first_at is None:
            self.first_at = at
        else:
            self.gaps_s.append(at - self._last_at)
        self._last_at = at


@dataclass(frozen=True, slots=True)
class TurnResult:
    """The outcome of a turn, when it was known, and when its tokens came."""

    outcome: TurnOutcome
    ended_at: float
    tokens: TokenTimes


class TurnClient:
    """Sends turns over one pool of connections; it neither retries nor follows redirects."""

    def __init__(self, session: aiohttp.ClientSession, url: str, timeout_s: float, *, stream: bool) -> None:
        self._session = session
        self._url = url + PATH
        self._timeout_s = timeout_s
        self._stream = stream

    async def send(self, text: str, session_id: str) -> TurnResult:
        """Send a turn and read its answer. Nothing but a cancellation is raised."""
        body = {"user_input": text, "session_id": session_id, "stream": self._stream}
        tokens = TokenTimes()
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._session.post(self._url, json=body, allow_redirects=False)
                outcome = await self._read(response, session_id, tokens)
            result = TurnResult(outcome, time.monotonic(), tokens)
            with suppress(Exception):  # the turn has its answer, whatever the connection does now
                await drain(response)
        except Exception as error:  # noqa: BLE001 - whatever one turn does, the load goes on
            failed = TurnOutcome(error=self._classify(error, has_begun=response is not None))
            result = TurnResult(failed, time.monotonic(), tokens)
        finally:
            if response is not None:
                response.release()  # closes a connection that was not read to its end
        return result

    def _classify(self, error: Exception, *, has_begun: bool) -> TurnError:
        if isinstance(error, TurnFailed):
            return error.error
        if not has_begun or isinstance(error, TimeoutError):
            return classify_failure(error)
        if isinstance(error, aiohttp.ClientError | OSError):
            return TurnError("transport", "stream broke" if self._stream else "answer broke off")
        return classify_failure(error)

    async def _read(self, response: aiohttp.ClientResponse, session_id: str, tokens: TokenTimes) -> TurnOutcome:
        if response.status != OK:
            raise TurnFailed(read_error_body(response.status, await read_start(response)))
        if not self._stream:
            return read_answer(b"".join([data async for data in _read_bounded(response)]), session_id)
        if response.content_type != EVENT_STREAM:
            raise TurnFailed(TurnError("malformed", f"no event stream but {clean_name(response.content_type)}"))
        parser = EventParser()
        async for data in _read_bounded(response):
            now = time.monotonic()
            for event in parser.feed(data):
                text = "\n".join(event.data)
                if event.name == Token.event:
                    tokens.add(text, now)
                elif event.name in _FINAL_EVENTS:
                    return _read_final_event(event.name, text, session_id)
        raise TurnFailed(TurnError("transport", "stream broke"))


async def _read_bounded(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    size = 0
    async for data in response.content.iter_any():
        size += len(data)
        if size > MAX_BODY_BYTES:
            raise TurnFailed(TurnError("malformed", f"a body over {MAX_BODY_BYTES >> 20} MB"))
        yield data


_FINAL_EVENTS = {Answer.event, Failed.event, Cancelled.event}


def _read_final_event(name: str, data: str, session_id: str) -> TurnOutcome:
    if name == Answer.event:
        return read_answer(data, session_id)
    if name == Cancelled.event:
        raise TurnFailed(TurnError("stream_event", name, code=name))
    code, reason = _read_error(data) or ("", "an error without a code")
    raise TurnFailed(TurnError("stream_event", reason, code=code))


def read_answer(body: bytes | str, session_id: str) -> TurnOutcome:
    """Return the outcome of a turn from the JSON of its answer.

    Raises:
        TurnFailed: the body is no answer, or that of another conversation.
    """
    answer = _read_json(body)
    if not isinstance(answer, dict):
        raise TurnFailed(TurnError("malformed", "no JSON object in the answer"))
    status, parts = answer.get("status"), answer.get("degraded")
    if status not in ANSWERED or not isinstance(answer.get("result"), str):
        raise TurnFailed(TurnError("malformed", "an answer without a result or status"))
    if answer.get("session_id") != session_id:
        raise TurnFailed(TurnError("malformed", "the answer of another conversation"))
    names = [clean_name(part) for part in parts[:MAX_PARTS]] if isinstance(parts, list) else []
    return TurnOutcome(str(status), tuple(dict.fromkeys(names)), answer.get("cached") is True)


def read_error_body(status: int, body: bytes) -> TurnError:
    """Return the error of a failed response, also if a proxy wrote it."""
    error = _read_error(body)
    if error is None:
        is_redirect = status // 100 == REDIRECTS
        return TurnError("http", "a redirect" if is_redirect else "no error body of the service", status)
    code, reason = error
    return TurnError("http", reason, status, code)


def _read_error(body: bytes | str) -> tuple[str, str] | None:
    """Return the code and the reason of our error body."""
    try:
        error = json.loads(body)["error"]
        return clean_name(error["code"]), clean_name(error.get("reason") or error["code"])
    except (*_READ_ERRORS, LookupError, TypeError, AttributeError):
        return None


def _read_json(body: bytes | str) -> Any:
    try:
        return json.loads(body)
    except _READ_ERRORS:
        raise TurnFailed(TurnError("malformed", "JSON that cannot be read")) from None


def clean_name(value: object) -> str:
    """Return a short text from the network that can be printed anywhere."""
    text = str(value)[: MAX_NAME_CHARACTERS + 1]
    text = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
    return text if len(text) <= MAX_NAME_CHARACTERS else text[: MAX_NAME_CHARACTERS - 1] + "…"


_FAILURES: tuple[tuple[type[Exception], ErrorKind, str], ...] = (
    (TimeoutError, "transport", "time-out"),
    (aiohttp.ClientConnectorDNSError, "transport", "host not found"),
    (aiohttp.ClientSSLError, "transport", "TLS failed"),
    (aiohttp.ClientProxyConnectionError, "transport", "proxy does not answer"),
    (aiohttp.ClientConnectorError, "transport", "no connection"),
    (aiohttp.ClientHttpProxyError, "transport", "proxy refuses"),
    (aiohttp.ClientResponseError, "malformed", "no HTTP"),
    (aiohttp.InvalidURL, "malformed", "no valid address"),
    (aiohttp.ClientError, "transport", "connection closed"),
    (OSError, "transport", "connection closed"),
    (ReplyUnreadable, "malformed", "a line that is too long"),
)
"""Exception -> kind and reason; the first that fits counts."""


def classify_failure(error: Exception) -> TurnError:
    """Return the kind and the reason of a request without an answer."""
    match getattr(error, "errno", None):
        case errno.ECONNREFUSED:
            return TurnError("transport", "connection refused")
        case errno.EMFILE | errno.ENFILE | errno.EADDRNOTAVAIL:
            return TurnError("client_limit", "this machine has no more connections")
    for kind_of_exception, kind, reason in _FAILURES:
        if isinstance(error, kind_of_exception):
            return TurnError(kind, reason)
    return TurnError("malformed", type(error).__name__)
