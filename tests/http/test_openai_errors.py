"""Every refusal below /v1/ has OpenAI's shape: its clients raise what they should and try again."""

from __future__ import annotations

import json

import httpx
import openai
import pytest
from openai_clients import HELLO, client_of, completed

from serve_app.errors import (
    DeadlineExceeded,
    Internal,
    ModelUnavailable,
    Overloaded,
    RunCancelled,
    ServeAppError,
    SessionBusy,
    StoreUnavailable,
)
from serve_app.http.errors import is_openai_path, openai_failure_response
from serve_app.http.openai.body import MAX_HISTORY, MAX_INPUT
from serve_app.observability.metric_catalogue import RESPONSES
from serve_app.values import Failed, Failure, RunStarted

CHAT = "/v1/chat/completions"
GOOD = {"model": "serve_app", "messages": HELLO}
JSON = {"Content-Type": "application/json"}


def assert_refused(response, status: int, code: str, param: str | None = None) -> dict[str, str]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert response.headers["x-should-retry"] in {"true", "false"}
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "reason"}
    assert (error["code"], error["param"]) == (code, param), error
    return error


def _message(role: str = "user", content: object = "hello", **fields: object) -> dict[str, object]:
    return {"role": role, "content": content, **fields}


def _image() -> list[dict[str, object]]:
    return [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
WRONG = {
    "temperature": ({"temperature": 0.2}, "temperature"),
    "n": ({"n": 2}, "n"),
    "true as n": ({"n": True}, "n"),
    "tools": ({"tools": [TOOL]}, "tools"),
    "a choice of tools": ({"tool_choice": "none"}, "tool_choice"),
    "functions": ({"functions": [{"name": "f"}]}, "functions"),
    "max_tokens": ({"max_tokens": 100}, "max_tokens"),
    "max_completion_tokens": ({"max_completion_tokens": 100}, "max_completion_tokens"),
    "json mode": ({"response_format": {"type": "json_object"}}, "response_format"),
    "a schema": ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
    "stop": ({"stop": "\n"}, "stop"),
    "seed": ({"seed": 7}, "seed"),
    "logprobs": ({"logprobs": True}, "logprobs"),
    "store": ({"store": True}, "store"),
    "reasoning": ({"reasoning_effort": "high"}, "reasoning_effort"),
    "audio": ({"modalities": ["text", "audio"]}, "modalities"),
    "an unknown field": ({"sesion": "x"}, "sesion"),
    "no messages": ({"messages": []}, "messages"),
    "messages that are none": ({"messages": "hello"}, "messages"),
    "too many messages": ({"messages": [_message()] * 501}, "messages"),
    "an image": ({"messages": [_message(content=_image())]}, "messages.0.content.1"),
    "sound": ({"messages": [_message(), _message(content=[{"type": "input_audio"}])]}, "messages.1.content.0"),
    "no content": ({"messages": [_message(content=None)]}, "messages.0.content"),
    "empty content": ({"messages": [_message(content="")]}, "messages.0.content"),
    "no parts": ({"messages": [_message(content=[])]}, "messages.0.content"),
    "a tool's message": ({"messages": [_message("tool", tool_call_id="c1"), _message()]}, "messages.0.role"),
    "calls of tools": ({"messages": [_message("assistant", tool_calls=[CALL]), _message()]}, "messages.0.tool_calls"),
    "a name": ({"messages": [_message(name="ann")]}, "messages.0.name"),
    "a role of nobody": ({"messages": [_message("boss")]}, "messages.0.role"),
    "the assistant's word last": ({"messages": [_message(), _message("assistant")]}, "messages.1.role"),
    "a long message": ({"messages": [_message(content="语" * (MAX_INPUT + 1))]}, "messages.0.content"),
    "a long system message": ({"messages": [_message("system", "x" * (MAX_INPUT + 1)), _message()]}, "messages"),
    "a long history": ({"messages": [*[_message(content="x" * 30_000)] * 5, _message()]}, "messages"),
    "a session with a space": ({"metadata": {"session_id": "a b"}}, "metadata.session_id"),
    "many keys": ({"metadata": {str(key): "" for key in range(17)}}, "metadata"),
    "a number as metadata": ({"metadata": {"team": 7}}, "metadata.team"),
    "a user with a space": ({"user": "Ann B."}, "user"),
    "a word as stream": ({"stream": "yes"}, "stream"),
    "options without a stream": ({"stream_options": {"include_usage": True}}, "stream_options"),
}


async def test_what_cannot_be_honoured_is_refused_by_name(roomy):
    for what, (fields, param) in WRONG.items():
        response = await roomy.client.post(CHAT, json={**GOOD, **fields})
        error = assert_refused(response, 400, "invalid_request", param)
        assert error["type"] == "invalid_request_error", what
        assert error["message"].startswith(f"Field {param!r} "), what
        assert "Tuple" not in error["message"], what
    assert roomy.agent.received == []


async def test_a_history_as_long_as_it_may_be_is_read(roomy):
    messages = [_message(content="语" * (MAX_HISTORY // 4)) for _ in range(5)]
    body = json.dumps({**GOOD, "messages": messages}, ensure_ascii=False)
    assert (await roomy.client.post(CHAT, content=body, headers=JSON)).status_code == 200


async def test_another_model_is_not_found(service):
    async with client_of(service) as client:
        with pytest.raises(openai.NotFoundError) as raised:
            await client.chat.completions.create(model="gpt-5", messages=HELLO)
        assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("gpt-5")


async def test_what_never_reaches_a_route_is_told_in_the_same_shape(service):
    client = service.client
    assert_refused(await client.post("/v1/embeddings", json={}), 404, "not_found")
    gone = await client.get(CHAT)
    assert_refused(gone, 405, "method_not_allowed")
    assert gone.headers["allow"] == "POST"
    assert_refused(await client.post(CHAT, content=b"{", headers=JSON), 400, "malformed_body")
    assert_refused(await client.post(CHAT, content=b"{}"), 415, "unsupported_media_type")
    assert_refused(await client.post(CHAT, content=b"x" * 10_000, headers=JSON), 413, "body_too_large")
    assert_refused(await client.post(CHAT, content=b"{}", headers=JSON), 400, "invalid_request", "model")
    key = {"Idempotency-Key": "a b"}
    assert_refused(await client.post(CHAT, json=GOOD, headers=key), 400, "invalid_request")
    assert (await client.post("/agent/chat", json={})).status_code == 422


FAILURES: list[tuple[ServeAppError | Exception, int, str]] = [
    (Overloaded("full", 7), 503, "7"),
    (StoreUnavailable("away"), 503, "1"),
    (SessionBusy("busy"), 409, ""),
    (RunCancelled("gone"), 409, ""),
    (DeadlineExceeded("late"), 504, ""),
    (Internal("a secret"), 500, ""),
    (ValueError("a secret"), 500, ""),
]


@pytest.mark.parametrize(("error", "status", "retry_after"), FAILURES)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_is_raised_as_the_client_raises_its_status(service, error, status, retry_after, stream):
    service.agent.script = [error]
    async with client_of(service, max_retries=0) as client:
        with pytest.raises(openai.ConflictError if status == 409 else openai.InternalServerError) as raised:
            await client.chat.completions.create(model="serve_app", messages=HELLO, stream=stream)
    response = raised.value.response
    assert raised.value.status_code == status
    assert response.headers.get("retry-after", "") == retry_after
    assert response.headers["x-should-retry"] == str(getattr(error, "retryable", False)).lower()
    assert raised.value.request_id == response.headers["x-request-id"]
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("error", "after"), [(Overloaded("full", 1), 1.0), (StoreUnavailable("away", 2), 2.0), (SessionBusy("busy"), 0.0)]
)
async def test_the_client_tries_again_after_the_time_that_it_was_told(service, monkeypatch, error, after):
    slept = []

    async def sleep(self, *, retries_taken, max_retries, options, response):
        slept.append(self._calculate_retry_timeout(max_retries - retries_taken, options, response.headers))
        service.agent.script = None if retries_taken else [error]

    monkeypatch.setattr(openai.AsyncOpenAI, "_sleep_for_retry", sleep)
    service.agent.script = [error]
    assert (await completed(service)).choices[0].message.content == "hello"
    assert len(slept) == 2
    assert not after or slept == [after, after]
    assert len(service.agent.received) == 3


async def test_a_failed_run_is_not_asked_for_again_under_its_key(service):
    service.agent.script = [RunStarted(run_id=""), Failed(error=Failure.of(ModelUnavailable("The model is away"), "q"))]
    with pytest.raises(openai.InternalServerError):
        await completed(service, extra_headers={"Idempotency-Key": "k1"})
    assert sum(service.metrics.counted[RESPONSES].values()) == 1


async def test_refusals_are_counted_by_our_codes_and_the_status_that_was_sent(service):
    await service.client.post(CHAT, json={})
    await service.client.post(CHAT, json={**GOOD, "model": "gpt-5"})
    assert {tuple(value for _, value in labels) for labels in service.metrics.counted[RESPONSES]} == {
        (CHAT, "400", "invalid_request"),
        (CHAT, "404", "model_not_found"),
    }


@pytest.mark.parametrize(
    ("scope", "openai"),
    [
        ({"path": "/v1/chat/completions"}, True),
        ({"path": "/two/v1/models", "root_path": "/two"}, True),
        ({"path": "/v1/models", "root_path": ""}, True),
        ({"path": "/agent/chat", "root_path": ""}, False),
        ({"path": "/v10/models"}, False),
        ({"path": "/agent/v1/x"}, False),
    ],
)
def test_what_lies_below_v1_speaks_openai_wherever_the_service_is_mounted(scope, openai):
    assert is_openai_path(scope) is openai


@pytest.mark.parametrize(
    ("status", "code", "raises", "kind"),
    [
        (401, "unauthenticated", openai.AuthenticationError, "authentication_error"),
        (403, "forbidden", openai.PermissionDeniedError, "permission_error"),
        (429, "rate_limited", openai.RateLimitError, "rate_limit_error"),
    ],
)
def test_each_status_has_the_type_that_its_clients_know(status, code, raises, kind):
    failure = Failure(code=code, message="No", retryable=False, request_id="q")
    response = openai_failure_response(failure)
    error = json.loads(response.body)["error"]
    assert (response.status_code, error["type"], error["code"]) == (status, kind, code)
    given = httpx.Response(status, json={"error": error}, request=httpx.Request("POST", "http://there"))
    assert type(openai.OpenAI(api_key="k")._make_status_error_from_response(given)) is raises
