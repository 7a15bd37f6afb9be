"""What does an HTTP client see of a failure?

One table: an error's class gives the status, `Failure` the body. What Starlette and FastAPI raise becomes ours first.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from serve_app.errors import Internal, InvalidRequest, NotFound, ServeAppError, Unauthenticated
from serve_app.http.faults import MalformedBody, MethodNotAllowed
from serve_app.http.openai.errors import param_of, refused, speaks_openai
from serve_app.http.request_ids import request_id_of
from serve_app.http.responses import json_response
from serve_app.http.validation import sentence
from serve_app.observability.redaction import Redactor
from serve_app.values import Failed, Failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    Shape = Callable[[Failure, int], Response]

log = logging.getLogger(__name__)

T = TypeVar("T")
REDACTOR = Redactor()
DAY_S = 86_400.0


def _family(error: type[ServeAppError]) -> list[type[ServeAppError]]:
    return [error, *(kin for child in error.__subclasses__() for kin in _family(child))]


STATUS = {error.code: error.status for error in _family(ServeAppError)}
"""Code -> HTTP status, for the failures that arrive as values."""


def _ours_alone(failure: Failure, status: int) -> Response:
    return json_response(Failed(error=failure), status)


def refusal(failure: Failure, shape: Shape = _ours_alone) -> Response:
    """The error body, with the status of its code."""
    status = STATUS.get(failure.code, Internal.status)
    response = shape(failure, status)
    if status in {429, 503}:
        response.headers["Retry-After"] = str(_whole_seconds(failure.retry_after_s))
    if status == Unauthenticated.status:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _whole_seconds(wait_s: float | None) -> int:
    """At least one, at most a day: a provider's own wish may be any number."""
    return math.ceil(min(max(wait_s, 1.0), DAY_S)) if wait_s is not None and math.isfinite(wait_s) else 1


def answer_to(error: Exception, scope: Scope, redactor: Redactor = REDACTOR) -> Response:
    """The response to an exception, in the language of the path that was asked for."""
    failure = _told(_ours(error), request_id_of(scope), redactor)
    return refusal(failure, partial(refused, param=param_of(error)) if speaks_openai(scope) else _ours_alone)


async def or_failed(step: Awaitable[T], request_id: str) -> T | Failed:
    """What `step` gives, or how it failed, in the words for a client."""
    try:
        return await step
    except Exception as error:  # noqa: BLE001 - this boundary turns whatever fails into a value
        return Failed(error=_told(_ours(error), request_id))


class LastResort:
    """Answers what no handler expected; pure ASGI, because Starlette's own would answer outside of the request id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http" or started:
                raise  # the server breaks the connection off, which is all that is left to tell
            await answer_to(error, scope)(scope, receive, send)


def handle_errors(api: FastAPI, redactor: Redactor) -> None:
    """Replace the framework's error bodies by ours."""

    async def handle(request: Request, error: Exception) -> Response:
        response = answer_to(error, request.scope, redactor)
        if response.status_code == MethodNotAllowed.status:
            response.headers["Allow"] = ", ".join(_allowed(request))
        return response

    for error in (ServeAppError, HTTPException, RequestValidationError):
        api.add_exception_handler(error, handle)


def _allowed(request: Request) -> list[str]:
    """The methods of all routes of the path: the framework's own header names those of the first only."""
    at_path = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in at_path for method in route.methods})


def _ours(error: Exception) -> ServeAppError:
    match error:
        case ServeAppError():
            return error
        case RequestValidationError():
            return InvalidRequest(sentence(error))
        case HTTPException(status_code=404):
            return NotFound("There is nothing at this path; /docs lists what there is")
        case HTTPException(status_code=405):
            return MethodNotAllowed("This path does not know the method; the Allow header names those it knows")
        case HTTPException(status_code=400):
            return MalformedBody("The request could not be read")
    unexpected = Internal(f"{type(error).__name__}: {error}")
    unexpected.__cause__ = error
    return unexpected


def _told(error: ServeAppError, request_id: str, redactor: Redactor = REDACTOR) -> Failure:
    """The body; what its message repeats of the request is masked like the logs."""
    if error.status == Internal.status:
        log.error("request_failed", extra={"request_id": request_id}, exc_info=error)
    failure = Failure.of(error, request_id)
    return failure.model_copy(update={"message": redactor.redact(failure.message)})
