"""Error responses: every exception becomes a status and one error body, ours or OpenAI's.

The class of an error gives the status, `Failure` the body. What Starlette and FastAPI raise is translated first.
"""

from __future__ import annotations

import logging
import math
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from serve_app.errors import (
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    MalformedBody,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    RunCancelled,
    ServeAppError,
    Unauthenticated,
)
from serve_app.http.json_body import json_response
from serve_app.http.request_context import path_of, request_id_of, set_failure
from serve_app.observability.redaction import Redactor
from serve_app.values import Failed, Failure, Value

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

T = TypeVar("T")
DEFAULT_REDACTOR = Redactor()
DAY_S = 86_400.0
RUN_EXISTS = (RunCancelled, DeadlineExceeded)
"""Errors of a request whose run has started: they are no refusals, and the run's log tells of them."""
OPENAI_PREFIX = "/v1/"
SHOULD_RETRY = "X-Should-Retry"
"""Tells OpenAI's clients whether to send the request again, whatever the status."""
MAX_PROBLEMS = 3
"""Validation problems in one message; the others show when these are corrected."""
MAX_NAME_CHARACTERS = 80
"""The client chooses the length of a field's name."""

_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_SUBJECT = re.compile(r"^(Input|String|List|Tuple)\b")
_KINDS = {"body": "Field", "header": "Header"}
_MESSAGES = {
    "extra_forbidden": "is not known here; remove it",
    "missing": "is missing; add it",
    "model_attributes_type": "should be a JSON object",
    "model_type": "should be a JSON object",
}


def _error_classes(root: type[ServeAppError]) -> list[type[ServeAppError]]:
    return [root, *(each for child in root.__subclasses__() for each in _error_classes(child))]


STATUS_BY_CODE = {error.code: error.status for error in _error_classes(ServeAppError)}
"""Error code -> HTTP status, for failures that arrive as values."""


def add_error_handlers(api: FastAPI, redactor: Redactor) -> None:
    """Replace the framework's error bodies by ours."""

    async def handle(request: Request, error: Exception) -> Response:
        response = error_response(error, request.scope, redactor)
        if response.status_code == MethodNotAllowed.status:
            response.headers["Allow"] = ", ".join(_methods_of_path(request))
        return response

    for error in (ServeAppError, HTTPException, RequestValidationError):
        api.add_exception_handler(error, handle)


def _methods_of_path(request: Request) -> list[str]:
    """The methods of all routes of the path.

    The framework's own header names those of the first route only.
    """
    at_path = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in at_path for method in route.methods})


class UnhandledErrorMiddleware:
    """Answers exceptions that no handler expects; Starlette's own would answer without the request id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception as error:
            if scope["type"] != "http" or started:
                raise  # the server breaks off the connection: a second response cannot be sent
            await error_response(error, scope)(scope, receive, send)


def error_response(error: Exception, scope: Scope, redactor: Redactor = DEFAULT_REDACTOR) -> Response:
    """The response to an exception, in the body format of the request's path."""
    translated = _translate(error)
    failure = _failure_of(translated, request_id_of(scope), redactor)
    if not isinstance(translated, RUN_EXISTS):
        set_failure(scope, failure)
    if is_openai_path(scope):
        return openai_failure_response(failure, _openai_param(error))
    return failure_response(failure)


async def result_or_failure(step: Awaitable[T], request_id: str) -> T | Failed:
    """The result of `step`, or its exception as a failure that a client may see."""
    try:
        return await step
    except Exception as error:  # noqa: BLE001 - this boundary turns every failure into a value
        return Failed(error=_failure_of(_translate(error), request_id))


def failure_response(failure: Failure) -> Response:
    """The response to a failure, with the status of its code and that status's headers."""
    return _add_status_headers(json_response(Failed(error=failure), _status_of(failure)), failure)


def openai_failure_response(failure: Failure, param: str | None = None, *, retry: bool | None = None) -> Response:
    """The response to a failure in OpenAI's format; 422 becomes 400.

    OpenAI's API has no 422. `retry` overrides whether the client should send the request again.
    """
    status = _status_of(failure)
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        status = HTTPStatus.BAD_REQUEST
    response = json_response(OpenAIErrorBody.of(failure, param), status)
    response.headers[SHOULD_RETRY] = "true" if (failure.retryable if retry is None else retry) else "false"
    return _add_status_headers(response, failure)


class OpenAIError(Value):
    """The inside of OpenAI's error body."""

    message: str
    type: str
    param: str | None = Field(default=None, description="The field that is wrong, such as `messages.0.content`.")
    code: str = Field(description="The same codes as everywhere else in this service.")
    reason: str = Field(default="", description="The same reasons as everywhere else in this service.")


class OpenAIErrorBody(Value):
    """OpenAI's error body."""

    error: OpenAIError

    @classmethod
    def of(cls, failure: Failure, param: str | None = None) -> OpenAIErrorBody:
        """The body of a failure; `param` is the field that it is about."""
        status = _status_of(failure)
        client_error = status < HTTPStatus.INTERNAL_SERVER_ERROR
        kind = _OPENAI_TYPES.get(status, "invalid_request_error" if client_error else "server_error")
        return cls(
            error=OpenAIError(message=failure.message, type=kind, param=param, code=failure.code, reason=failure.reason)
        )


def is_openai_path(scope: Scope) -> bool:
    """Whether the request expects OpenAI's errors: its path is below `/v1/`."""
    return path_of(scope).startswith(OPENAI_PREFIX)


def _openai_param(error: Exception) -> str | None:
    """The field of the body that is wrong, as OpenAI names it."""
    match error:
        case RequestValidationError():
            place, *path = _unknown_fields_first(error)[0]["loc"]
            return _join_path(path) or None if place == "body" else None
        case ModelNotFound():
            return "model"
    return None


def _status_of(failure: Failure) -> int:
    return STATUS_BY_CODE.get(failure.code, Internal.status)


def _add_status_headers(response: Response, failure: Failure) -> Response:
    if response.status_code in {429, 503}:
        response.headers["Retry-After"] = str(_retry_after_s(failure.retry_after_s))
    if response.status_code == Unauthenticated.status:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _retry_after_s(wait_s: float | None) -> int:
    """Whole seconds, from one to a day: a model provider may name any number."""
    return math.ceil(min(max(wait_s, 1.0), DAY_S)) if wait_s is not None and math.isfinite(wait_s) else 1


def _failure_of(error: ServeAppError, request_id: str, redactor: Redactor = DEFAULT_REDACTOR) -> Failure:
    """The failure that a client sees, its message masked like the logs.

    An internal error is logged here.
    """
    if error.status == Internal.status:
        logger.error("request_failed", extra={"request_id": request_id}, exc_info=error)
    failure = Failure.of(error, request_id)
    return failure.model_copy(update={"message": redactor.redact(failure.message)})


def _translate(error: Exception) -> ServeAppError:
    """Translate what Starlette and FastAPI raise into our errors; anything else is `Internal`."""
    match error:
        case ServeAppError():
            return error
        case RequestValidationError():
            return InvalidRequest(_describe_validation_error(error))
        case HTTPException(status_code=404):
            return NotFound("There is nothing at this path; /docs lists what there is")
        case HTTPException(status_code=405):
            return MethodNotAllowed("This path does not know the method; the Allow header names those it knows")
        case HTTPException(status_code=400):
            return MalformedBody("The request could not be read")
    unexpected = Internal(f"{type(error).__name__}: {error}")
    unexpected.__cause__ = error
    return unexpected


def _describe_validation_error(error: RequestValidationError) -> str:
    """The first problems with the names of their fields, never the values that were sent."""
    return "; ".join(_describe_problem(problem) for problem in _unknown_fields_first(error)[:MAX_PROBLEMS])


def _unknown_fields_first(error: RequestValidationError) -> list[dict[str, Any]]:
    return sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")


def _join_path(steps: Sequence[str | int]) -> str:
    return ".".join(str(step) for step in steps)[:MAX_NAME_CHARACTERS]


def _describe_problem(problem: dict[str, Any]) -> str:
    place, *path = problem["loc"]
    message = _MESSAGES.get(problem["type"]) or _SUBJECT.sub("it", problem["msg"])
    if not path:
        return f"The {place} {message}"
    return f"{_KINDS.get(place, 'Parameter')} {_join_path(path)!r} {message.removeprefix('it ')}"
