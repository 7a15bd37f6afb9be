"""JSON responses, and the OpenAPI descriptions of error responses."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from serve_app.values import Failed

if TYPE_CHECKING:
    from serve_app.values import Value

_DESCRIPTIONS = {
    400: "The body is not JSON in UTF-8.",
    401: "No key was shown, or none that is known.",
    403: "The key does not open this route.",
    404: "There is no such thing.",
    408: "The body did not arrive in time.",
    409: "Another turn of the session did not end in time, or the run was cancelled.",
    413: "The body is too large.",
    415: "The Content-Type is not application/json.",
    422: "A field, parameter or header is unknown, missing or wrong; the message names it.",
    429: "Too much was asked for, or too many wrong keys came from this address; Retry-After says when to come back.",
    431: "The headers are too many or too long.",
    500: "A fault of the service; its log has the request id.",
    503: "A dependency is down, or the service is full; Retry-After says when to come back.",
    504: "The request's time ran out.",
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}


def json_response(value: Value, status: int = HTTPStatus.OK) -> Response:
    """The value as pydantic writes it: several times faster than FastAPI's own encoder."""
    return Response(value.model_dump_json(), status, media_type="application/json")


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of these statuses and of those that every route has.

    Every route has 422, 431, 500, 503 and 504.
    """
    entries: dict[int | str, dict[str, Any]] = {
        status: {"model": Failed, "description": _DESCRIPTIONS[status]}
        for status in sorted({*statuses, 422, 431, 500, 503, 504})
    }
    for status in {429, 503} & entries.keys():
        entries[status]["headers"] = _RETRY_AFTER
    return entries


def body_error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`error_responses`, with those of a route that takes a body."""
    return error_responses(400, 408, 413, 415, *statuses)
