"""OpenAI's error body and error responses."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from pydantic import Field

from serve_app.errors import ModelNotFound
from serve_app.http.request_context import path_of
from serve_app.http.responses import body_error_responses, error_responses, json_response
from serve_app.http.validation import first_field
from serve_app.values import Value

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope

    from serve_app.values import Failure

PREFIX = "/v1/"
SHOULD_RETRY = "X-Should-Retry"
"""Tells OpenAI's clients whether to send the request again, whatever the status."""

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


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
    def of(cls, failure: Failure, status: int, param: str | None = None) -> OpenAIErrorBody:
        """The body that goes with this status."""
        client_error = status < HTTPStatus.INTERNAL_SERVER_ERROR
        kind = _TYPES.get(status, "invalid_request_error" if client_error else "server_error")
        return cls(
            error=OpenAIError(message=failure.message, type=kind, param=param, code=failure.code, reason=failure.reason)
        )


def is_openai_path(scope: Scope) -> bool:
    """Whether the request expects OpenAI's errors: its path is below `/v1/`."""
    return path_of(scope).startswith(PREFIX)


def openai_error_response(
    failure: Failure, status: int, param: str | None = None, *, retry: bool | None = None
) -> Response:
    """The error response, with 400 for 422, which OpenAI does not have.

    `retry` overrides whether the client should send the request again.
    """
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        status = HTTPStatus.BAD_REQUEST
    response = json_response(OpenAIErrorBody.of(failure, status, param), status)
    response.headers[SHOULD_RETRY] = "true" if (failure.retryable if retry is None else retry) else "false"
    return response


def field_error(problem: str, *path: str | int) -> RequestValidationError:
    """The error of a validation that finds `problem` in the field at `path`."""
    return RequestValidationError([{"type": "wrong", "loc": ("body", *path), "msg": problem}])


def error_param(error: Exception) -> str | None:
    """The field that `error` is about, as OpenAI names it."""
    match error:
        case RequestValidationError():
            return first_field(error)
        case ModelNotFound():
            return "model"
    return None


def openai_error_responses(*statuses: int, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of a route's error responses."""
    entries = body_error_responses(*statuses) if body else error_responses(*statuses)
    del entries[422]
    any_other = {"4XX": {"description": "Another refusal."}}  # or FastAPI describes a 422 that is never sent
    return {status: {**entry, "model": OpenAIErrorBody} for status, entry in (entries | any_other).items()}
