"""Each malformed request gets a 4xx with the error body and a helpful sentence."""

from __future__ import annotations

import json
import re

import pytest

GOOD = {"user_input": "hello", "session_id": "s1"}
DOCUMENT = {"source": "a.md", "text": "# A"}


def _with(**changed: object) -> bytes:
    return json.dumps({**GOOD, **changed}).encode()


def _assert_error(response, status: int, code: str, says: str) -> None:
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"code", "message", "retryable", "request_id", "reason"}
    assert (error["code"], error["request_id"]) == (code, response.headers["x-request-id"])
    assert says in error["message"]
    assert len(error["message"]) < 500
    assert "pydantic" not in response.text


MALFORMED = {
    "empty": (b"", "empty"),
    "broken": (b"{", "character at 1"),
    "broken after a key": (b'{"user_input": "a", }', "character at 20"),
    "two documents": (b"{}{}", "not JSON"),
    "not json": (b"user_input=hello", "not JSON"),
    "single quotes": (b"{'user_input': 'a'}", "not JSON"),
    "invalid utf-8": (b'{"user_input": "\xff", "session_id": "s1"}', "Unicode"),
    "utf-16": (json.dumps(GOOD).encode("utf-16"), "Unicode"),
    "byte order mark": (b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), "not JSON"),
    "cesu-8": (b'{"user_input": "\xed\xa0\x80", "session_id": "s1"}', "Unicode"),
    "half a surrogate pair": (b'{"user_input": "\\ud800", "session_id": "s1"}', "Unicode"),
    "the other half": (b'{"user_input": "a\\uDFFF", "session_id": "s1"}', "Unicode"),
    "half a pair in a name": (b'{"user_input": "a", "session_id": "s1", "\\ud800": 1}', "Unicode"),
    "NaN": (b'{"user_input": NaN, "session_id": "s1"}', "NaN"),
    "infinity": (b'{"user_input": "a", "session_id": -Infinity}', "-Infinity"),
    "equal keys": (b'{"user_input": "a", "user_input": "b", "session_id": "s1"}', "two equal keys"),
    "equal keys below": (b'{"user_input": "a", "x": {"y": 1, "y": 1}}', "two equal keys"),
    "a deep array": (b"[" * 3000, "nested too deeply"),
    "a deep object": (b'{"a":' * 1200 + b"1" + b"}" * 1200, "nested too deeply"),
    "a huge number": (b'{"user_input": ' + b"9" * 4001 + b"0" * 600 + b"}", "too long"),
    "a control character": (b'{"user_input": "a\x00b", "session_id": "s1"}', "not JSON"),
}


@pytest.mark.parametrize(("body", "says"), MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_body_that_is_not_json_is_refused(service, body, says):
    response = await service.client.post("/agent/chat", content=body, headers={"Content-Type": "application/json"})
    _assert_error(response, 400, "malformed_body", says)


WRONG = {
    "an unknown field": (_with(sesion="x"), "Field 'sesion' is not known here; remove it"),
    "an unknown field of hostile length": (_with(**{"x" * 900: 1}), "Field 'xxxx"),
    "an unknown field with line breaks": (_with(**{"a\r\nb": 1}), "is not known here"),
    "no input": (b'{"session_id": "s1"}', "Field 'user_input' is missing; add it"),
    "no session": (b'{"user_input": "a"}', "Field 'session_id' is missing; add it"),
    "nothing": (b"{}", "'user_input' is missing; add it; Field 'session_id' is missing"),
    "an array": (b"[]", "The body should be a JSON object"),
    "a string": (b'"hello"', "The body should be a JSON object"),
    "null": (b"null", "The body should be a JSON object"),
    "a number as input": (_with(user_input=1), "Field 'user_input' should be a valid string"),
    "null as input": (_with(user_input=None), "'user_input' should be a valid string"),
    "an array as input": (_with(user_input=["a"]), "'user_input' should be a valid string"),
    "an empty input": (_with(user_input=""), "'user_input' should have at least 1 character"),
    "a number as session": (_with(session_id=1), "'session_id' should be a valid string"),
    "an empty session": (_with(session_id=""), "'session_id' should match"),
    "a session with a space": (_with(session_id="a b"), "'session_id' should match"),
    "a session with a line break": (_with(session_id="s1\n"), "'session_id' should match"),
    "a session with a header in it": (_with(session_id="s\r\nX-A: b"), "'session_id' should match"),
    "a session with a path": (_with(session_id="../../etc/passwd"), "'session_id' should match"),
    "a session with NUL": (_with(session_id="s\x00"), "'session_id' should match"),
    "a session in Chinese": (_with(session_id="会话"), "'session_id' should match"),
    "a session of 129 characters": (_with(session_id="x" * 129), "'session_id' should match"),
    "a word as stream": (_with(stream="perhaps"), "'stream' should be a valid boolean"),
    "a yes as stream": (_with(stream="yes"), "'stream' should be a valid boolean"),
    "a number as stream": (_with(stream=2), "'stream' should be a valid boolean"),
    "an object as stream": (_with(stream={}), "'stream' should be a valid boolean"),
    "a number as user": (_with(user_id=7), "'user_id' should be a valid string"),
    "a long user": (_with(user_id="x" * 129), "'user_id' should have at most 128 characters"),
}


@pytest.mark.parametrize(("body", "says"), WRONG.values(), ids=WRONG.keys())
async def test_a_wrong_field_is_named(service, body, says):
    response = await service.client.post("/agent/chat", content=body, headers={"Content-Type": "application/json"})
    _assert_error(response, 422, "invalid_request", says)
    assert service.agent.received == []


async def test_an_input_over_the_limit_is_refused_without_being_echoed(roomy):
    response = await roomy.client.post("/agent/chat", json={**GOOD, "user_input": "语" * 32_001})
    _assert_error(response, 422, "invalid_request", "'user_input' should have at most 32000 characters")
    assert "语" not in response.text


async def test_an_input_at_the_limit_fits_the_default_body_limit_even_when_escaped(roomy):
    body = json.dumps({**GOOD, "user_input": "语" * 32_000}, ensure_ascii=True)
    response = await roomy.client.post("/agent/chat", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 200


@pytest.mark.parametrize("text", ["\x00", " ", "\u2028\u0085", "🙂", "\U0010ffff", "\\ud800", "a\tb\nc"])
async def test_any_valid_text_is_taken_and_given_back(service, text):
    response = await service.client.post("/agent/chat", json={**GOOD, "user_input": text})
    assert response.json()["result"] == text


DOCUMENTS = {
    "no documents": ({"documents": []}, "Field 'documents' "),
    "too many": ({"documents": [DOCUMENT] * 257}, "Field 'documents' "),
    "not a list": ({"documents": DOCUMENT}, "Field 'documents' should be a valid list"),
    "not an object": ({"documents": ["text"]}, "Field 'documents.0' should be a JSON object"),
    "no text": ({"documents": [DOCUMENT, {"source": "b"}]}, "Field 'documents.1.text' is missing"),
    "an empty text": ({"documents": [{**DOCUMENT, "text": ""}]}, "'documents.0.text' should have at least 1"),
    "an unknown format": ({"documents": [{**DOCUMENT, "format": "pdf"}]}, "should be 'markdown' or 'text'"),
    "an unknown field": ({"documents": [{**DOCUMENT, "tags": []}]}, "Field 'documents.0.tags' is not known here"),
    "many wrong": ({"documents": [{}] * 200}, "Field 'documents.0.source' is missing"),
}


@pytest.mark.parametrize(("body", "says"), DOCUMENTS.values(), ids=DOCUMENTS.keys())
async def test_a_wrong_document_is_named(roomy, body, says):
    _assert_error(await roomy.client.post("/knowledge/documents", json=body), 422, "invalid_request", says)


@pytest.mark.parametrize(
    "media_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data", "json"],
)
async def test_a_body_that_does_not_say_it_is_json_is_refused(service, media_type):
    headers = {} if media_type is None else {"Content-Type": media_type}
    response = await service.client.post("/agent/chat", content=_with(), headers=headers)
    _assert_error(response, 415, "unsupported_media_type", "application/json")


@pytest.mark.parametrize("media_type", ["application/json;charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json"])
async def test_json_by_any_of_its_names_is_taken(service, media_type):
    response = await service.client.post("/agent/chat", content=_with(), headers={"Content-Type": media_type})
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/agent/chat", "POST"),
        ("PUT", "/agent/chat", "POST"),
        ("DELETE", "/agent/chat", "POST"),
        ("OPTIONS", "/agent/chat", "POST"),
        ("POST", "/agent/sessions/s1", "DELETE, GET"),
        ("PATCH", "/knowledge/documents", "GET, POST"),
        ("GET", "/agent/runs/r1/cancel", "POST"),
        ("POST", "/agent/runs/r1/events", "GET"),
        ("GET", "/knowledge/documents/d1", "DELETE"),
        ("POST", "/healthz", "GET"),
        ("TRACE", "/readyz", "GET"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(service, method, path, allow):
    response = await service.client.request(method, path)
    _assert_error(response, 405, "method_not_allowed", "Allow")
    assert response.headers["allow"] == allow


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/agent",
        "/agent/chat/",
        "/agent/sessions/",
        "/agent/sessions/a/b",
        "/agent/sessions/..%2f..%2fetc",
        "/redoc",
        "//",
    ],
)
async def test_an_unknown_path_is_not_found(service, path):
    answer = await service.raw(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 404")
    assert b"x-request-id: " in head.lower()
    assert json.loads(body)["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    "session_id",
    [
        "..%5c",
        "%00",
        "s%0d%0aSet-Cookie:%20a=b",
        "x" * 10_000,
        "%E4%BC%9A",
        "%ff%fe",
        "%20",
        "a%3Cscript%3E",
        "'%20OR%201=1",
        "*",
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_hostile_session_id_is_refused(service, method, session_id):
    answer = await service.raw(
        f"{method} /agent/sessions/{session_id} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
    )
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 422")
    assert b"set-cookie" not in head.lower()
    error = json.loads(body)["error"]
    assert error["message"].startswith("Parameter 'session_id' should match pattern")
    assert len(body) < 400


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/agent/sessions/s1?limit=0", "Parameter 'limit' should be greater than or equal to 1"),
        ("/agent/sessions/s1?limit=1001", "Parameter 'limit' should be less than or equal to 100"),
        ("/agent/sessions/s1?limit=many", "Parameter 'limit' should be a valid integer"),
        ("/agent/sessions/s1?limt=5", "Parameter 'limt' is not known here; remove it"),
        ("/admin/sessions?limit=101", "Parameter 'limit' should be less than or equal to 100"),
        ("/admin/sessions?limit=0", "Parameter 'limit' should be greater than or equal to 1"),
        ("/knowledge/documents?offset=-1", "Parameter 'offset' should be greater than or equal to 0"),
        ("/knowledge/documents?offset=" + "9" * 5000, "Parameter 'offset' "),
        ("/knowledge/documents?limit=1e3", "Parameter 'limit' should be a valid integer"),
        ("/knowledge/documents?limit=", "Parameter 'limit' should be a valid integer"),
    ],
)
async def test_a_wrong_parameter_is_named(service, path, says):
    _assert_error(await service.client.get(path), 422, "invalid_request", says)


async def test_a_message_holds_nothing_of_the_values_that_were_sent(service):
    response = await service.client.post("/agent/chat", json={"user_input": ["hunter2"], "session_id": "hunter2 !"})
    assert response.status_code == 422
    assert not re.search("hunter2", response.text)
