"""The running service refuses bad input with one error body, through Serve's proxy too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from running_service import Service

JSON = {"Content-Type": "application/json"}
GOOD = {"user_input": "hello", "session_id": "s"}


def _with(**fields: object) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


BODIES = {
    "nothing": b"",
    "an empty object": b"{}",
    "a list": b"[]",
    "a word": b'"hello"',
    "null": b"null",
    "broken JSON": b'{"user_input": ',
    "invalid UTF-8": b'{"user_input": "\xff\xfe", "session_id": "s"}',
    "half a surrogate pair": b'{"user_input": "\\ud800", "session_id": "s"}',
    "NaN": b'{"user_input": NaN, "session_id": "s"}',
    "deep nesting": b'{"user_input": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "a number of 10,000 digits": b'{"user_input": ' + b"9" * 10_000 + b', "session_id": "s"}',
    "one megabyte": _with(user_input="x" * 1_000_000),
    "too long an input": _with(user_input="x" * 32_001),
    "an empty input": _with(user_input=""),
    "a number as input": _with(user_input=7),
    "a null input": _with(user_input=None),
    "a list as input": _with(user_input=["hello"]),
    "an unknown field": _with(temperature=1),
    "a word as stream": _with(stream="yes"),
    "no session": json.dumps({"user_input": "hello"}).encode(),
    "an empty session": _with(session_id=""),
    "a session of 129 characters": _with(session_id="s" * 129),
    "a path as session": _with(session_id="../../etc/passwd"),
    "a line break in the session": _with(session_id="s\r\nX-Evil: 1"),
    "a Redis pattern as session": _with(session_id="*"),
    "a session in Chinese": _with(session_id="会话"),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_bad_body_is_refused_with_the_error_body(service: Service, body: bytes) -> None:
    with service.client() as client:
        response = client.post("/agent/chat", content=body, headers=JSON)
    assert 400 <= response.status_code < 500
    error = response.json()["error"]
    assert set(error) == {"code", "message", "retryable", "request_id", "reason"}
    assert response.headers.get_list("X-Request-Id") == [error["request_id"]]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/agent/chat", 405),
        ("PUT", "/knowledge/documents", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/agent/sessions/nobody", 404),
        ("GET", "/agent/sessions/..%2f..%2fetc", 404),
        ("DELETE", "/knowledge/documents/nothing", 404),
        ("GET", "/knowledge/documents?limit=many", 422),
    ],
)
def test_a_wrong_path_or_method_is_refused_with_the_error_body(
    service: Service, method: str, path: str, status: int
) -> None:
    with service.client() as client:
        response = client.request(method, path)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"code", "message", "retryable", "request_id", "reason"}


def test_an_unknown_field_is_named(service: Service) -> None:
    with service.client() as client:
        response = client.post("/agent/chat", content=_with(temperature=1), headers=JSON)
    assert "temperature" in response.json()["error"]["message"]


def test_the_clients_own_request_id_comes_back_once(service: Service) -> None:
    with service.client() as client:
        response = client.post("/agent/chat", json=GOOD, headers={"X-Request-Id": "mine-1"})
    assert response.headers.get_list("X-Request-Id") == ["mine-1"]
