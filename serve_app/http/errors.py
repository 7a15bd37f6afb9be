"""Error responses: every exception becomes a status and one error body.

The class of an error gives the status, `Failure` the body. What Starlette and FastAPI raise is translated first.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from serve_app.errors import (
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    RunCancelled,
    ServeAppError,
    Unauthenticated,
)
from serve_app.http.openai.errors import error_param, is_openai_path, openai_error_response
from serve_app.http.request_context import request_id_of, set_failure
from serve_app.http.responses import json_response
from serve_app.http.validation import describe_validation_error
from serve_app.observability.redaction import Redactor
from serve_app.values import Failed, Failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    BodyFormat = Callable[[Failure, int], Response]

log = logging.getLogger(__name__)

T = TypeVar("T")
DEFAULT_REDACTOR = Redactor()
DAY_S = 86_400.0
RUN_EXISTS = (RunCancelled, DeadlineExceeded)
"""Errors of a request whose run has started: they are no refusals, and the run's log tells of them."""


def _error_classes(root: type[ServeAppError]) -> list[type[ServeAppError]]:
    return [root, *(each for child in root.__subclasses__() for each in _error_classes(child))]


STATUS_BY_CODE = {error.code: error.status for error in _error_classes(ServeAppError)}
"""Error code -> HTTP status, for failures that arrive as values."""


def _own_format(failure: Failure, status: int) -> Response:
    return json_response(Failed(error=failure), status)


def failure_response(failure: Failure, body_format: BodyFormat = _own_format) -> Response:
    """The response to a failure, with the status of its code and that status's headers."""
    status = STATUS_BY_CODE.get(failure.code, Internal.status)
    response = body_format(failure, status)
    if status in {429, 503}:
        response.headers["Retry-After"] = str(_retry_after_s(failure.retry_after_s))
    if status == Unauthenticated.status:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def error_response(error: Exception, scope: Scope, redactor: Redactor = DEFAULT_REDACTOR) -> Response:
    """The response to an exception, in the body format of the request's path."""
    translated = _translate(error)
    failure = _failure_of(translated, request_id_of(scope), redactor)
    if not isinstance(translated, RUN_EXISTS):
        set_failure(scope, failure)
    if is_openai_path(scope):
        return failure_response(failure, partial(openai_error_response, param=error_param(error)))
    return failure_response(failure)


async def result_or_failure(step: Awaitable[T], request_id: str) -> T | Failed:
    """The result of `step`, or its exception as a failure that a client may see."""
    try:
        return await step
    except Exception as error:  # noqa: BLE001 - this boundary turns every failure into a value
        return Failed(error=_failure_of(_translate(error), request_id))


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


def _translate(error: Exception) -> ServeAppError:
    """Translate what Starlette and FastAPI raise into our errors; anything else is `Internal`."""
    match error:
        case ServeAppError():
            return error
        case RequestValidationError():
            return InvalidRequest(describe_validation_error(error))
        case HTTPException(status_code=404):
            return NotFound("There is nothing at this path; /docs lists what there is")
        case HTTPException(status_code=405):
            return MethodNotAllowed("This path does not know the method; the Allow header names those it knows")
        case HTTPException(status_code=400):
            return MalformedBody("The request could not be read")
    unexpected = Internal(f"{type(error).__name__}: {error}")
    unexpected.__cause__ = error
    return unexpected


def _failure_of(error: ServeAppError, request_id: str, redactor: Redactor = DEFAULT_REDACTOR) -> Failure:
    """The failure that a client sees, its message masked like the logs.

    An internal error is logged here.
    """
    if error.status == Internal.status:
        log.error("request_failed", extra={"request_id": request_id}, exc_info=error)
    failure = Failure.of(error, request_id)
    return failure.model_copy(update={"message": redactor.redact(failure.message)})


def _retry_after_s(wait_s: float | None) -> int:
    """Whole seconds, from one to a day: a model provider may name any number."""
    return math.ceil(min(max(wait_s, 1.0), DAY_S)) if wait_s is not None and math.isfinite(wait_s) else 1
