"""A request that is sent again gives the same run and the same answer."""

from __future__ import annotations

import asyncio

import pytest
from http_fakes import answer

from serve_app.errors import ModelUnavailable, StoreUnavailable
from serve_app.values import Failed, Failure, RunStarted, Token

CHAT = {"user_input": "hello", "session_id": "s1"}


async def _say(service, key: str | bytes | None = "k-1", **changed: object):
    headers = {} if key is None else {b"Idempotency-Key": key.encode() if isinstance(key, str) else key}
    return await service.client.post("/agent/chat", json={**CHAT, **changed}, headers=headers)


@pytest.mark.parametrize("stream", [False, True])
async def test_twenty_equal_requests_with_one_key_are_one_run_with_twenty_equal_answers(service, stream):
    given = answer().model_copy(update={"run_id": ""})
    service.agent.script = [RunStarted(run_id=""), Token(text="a"), 0.2, Token(text="b"), 0.05, given]
    responses = await asyncio.gather(*(_say(service, stream=stream) for _ in range(20)))
    assert {response.status_code for response in responses} == {200}
    [content] = {response.content for response in responses}
    [(context, _)] = service.agent.received
    assert context.run_id.encode() in content
    assert list(service.agent.logs) == [context.run_id]
    assert service.agent.calls == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_comes_again_after_the_end_gets_what_the_first_one_got(service, stream):
    service.agent.script = [RunStarted(run_id=""), Token(text="a"), answer()]
    first, second = await _say(service, stream=stream), await _say(service, stream=stream)
    assert (second.status_code, second.content) == (200, first.content)
    assert second.headers["content-type"] == first.headers["content-type"]
    [(context, _)] = service.agent.received
    assert service.runs.contexts[-1].run_id == context.run_id


async def test_a_failed_run_fails_in_the_same_way_again(service):
    service.agent.script = [RunStarted(run_id=""), Failed(error=Failure.of(ModelUnavailable("down"), "q1"))]
    first, second = await _say(service), await _say(service)
    assert (first.status_code, second.status_code) == (503, 503)
    assert first.json() == second.json()
    assert second.headers["retry-after"] == "1"


async def test_a_key_that_comes_with_another_body_is_refused(service):
    assert (await _say(service)).status_code == 200
    for changed in ({"user_input": "other"}, {"session_id": "s2"}, {"user_id": "u"}, {"stream": True}):
        response = await _say(service, **changed)
        assert (response.status_code, response.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert len(service.agent.received) == 1


async def test_without_a_key_each_request_is_a_run_that_the_agent_registers(service):
    responses = [await _say(service, None) for _ in range(2)]
    assert [response.status_code for response in responses] == [200, 200]
    assert len(service.agent.logs) == 2
    assert service.runs.contexts == []


@pytest.mark.parametrize("stream", [False, True])
async def test_where_a_key_cannot_be_kept_the_turn_runs_and_its_tools_only_look(service, stream):
    service.runs.failing = StoreUnavailable("Redis did not answer")
    assert (await _say(service, stream=stream)).status_code == 200
    [(context, _)] = service.agent.received
    assert not context.effects


@pytest.mark.parametrize("key", ["!", "~" * 255, '"8e03978e-40d5"', "a,b;c=d"])
async def test_any_visible_ascii_is_a_key(service, key):
    assert [(await _say(service, key)).status_code for _ in range(2)] == [200, 200]
    assert service.agent.calls == 1


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", "should have at least 1 character"),
        ("x" * 256, "should have at most 255 characters"),
        ("a b", "should match pattern"),
        ("a\tb", "should match pattern"),
        ("会话", "should match pattern"),
        (b"\xff", "should match pattern"),
    ],
)
async def test_a_key_of_another_form_is_refused_by_the_name_of_its_header(service, key, says):
    response = await _say(service, key)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_request")
    assert response.json()["error"]["message"].startswith(f"Header 'Idempotency-Key' {says}")
    assert service.runs.contexts == []


async def test_two_keys_are_refused(service):
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    response = await service.client.post("/agent/chat", json=CHAT, headers=headers)
    assert response.status_code == 422
    assert "'Idempotency-Key' came more than once" in response.json()["error"]["message"]
    assert service.agent.received == []
