"""How is a failure told in OpenAI's language?"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from pydantic import Field

from serve_app.errors import ModelNotFound
from serve_app.http.request_context import path_of
from serve_app.http.responses import body_refusals, json_response, refusals
from serve_app.http.validation import first_field
from serve_app.values import Value

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope

    from serve_app.values import Failure

PREFIX = "/v1/"
AGAIN = "X-Should-Retry"
"""By which OpenAI's clients are told whether a second try makes sense, whatever the status."""

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Refusal(Value):
    """The inside of OpenAI's error body."""

    message: str
    type: str
    param: str | None = Field(default=None, description="The field that is wrong, such as `messages.0.content`.")
    code: str = Field(description="The same codes as everywhere else in this service.")


class Refused(Value):
    """OpenAI's error body."""

    error: Refusal

    @classmethod
    def of(cls, failure: Failure, status: int, param: str | None = None) -> Refused:
        """The body that goes with this status."""
        theirs = status < HTTPStatus.INTERNAL_SERVER_ERROR
        kind = _TYPES.get(status, "invalid_request_error" if theirs else "server_error")
        return cls(error=Refusal(message=failure.message, type=kind, param=param, code=failure.code))


def speaks_openai(scope: Scope) -> bool:
    """Whether whoever sent this request expects OpenAI's errors, on whichever path below ours."""
    return path_of(scope).startswith(PREFIX)


def refused(failure: Failure, status: int, param: str | None = None, *, again: bool | None = None) -> Response:
    """The response; OpenAI knows no 422. `again` is whether a second try makes sense, where it is not as ever."""
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        status = HTTPStatus.BAD_REQUEST
    response = json_response(Refused.of(failure, status, param), status)
    response.headers[AGAIN] = "true" if (failure.retryable if again is None else again) else "false"
    return response


def wrong(problem: str, *path: str | int) -> RequestValidationError:
    """As if validation had found it: the field at `path` `problem`."""
    return RequestValidationError([{"type": "wrong", "loc": ("body", *path), "msg": problem}])


def param_of(error: Exception) -> str | None:
    """The field that `error` is about, as OpenAI names it."""
    match error:
        case RequestValidationError():
            return first_field(error)
        case ModelNotFound():
            return "model"
    return None


def described(*statuses: int, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of a route's refusals."""
    entries = body_refusals(*statuses) if body else refusals(*statuses)
    del entries[422]
    any_other = {"4XX": {"description": "Another refusal."}}  # or FastAPI describes a 422 that is never sent
    return {status: {**entry, "model": Refused} for status, entry in (entries | any_other).items()}
