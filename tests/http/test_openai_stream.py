"""A streamed completion is what OpenAI's clients expect, chunk by chunk, to its end."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from http_fakes import answer
from http_service import Service, empty, running
from openai_clients import HELLO, client_of

from serve_app.errors import AgentUnavailable, ModelUnavailable
from serve_app.http import run_responses
from serve_app.http.openai import completion
from serve_app.values import Cancelled, Failed, Failure, RunStarted, Token, ToolCall, ToolRequest


def _answer(result):
    return answer(result, "").model_copy(update={"run_id": ""})


STARTED = RunStarted(run_id="")
SUNNY = [Token(text="It is "), Token(text="sunny."), _answer("It is sunny.")]
FAILED = Failed(error=Failure.of(ModelUnavailable("The model is away"), "q"))


async def _chunks(service, **fields):
    chunks = []
    await _read(service, chunks, **fields)
    return chunks


async def _read(service, chunks, **fields):
    """Gather the chunks as they come, for a stream that may fail."""
    async with client_of(service) as client:
        stream = await client.chat.completions.create(model="serve_app", messages=HELLO, stream=True, **fields)
        async for chunk in stream:
            chunks.append(chunk)


def _text(chunks):
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


async def _frames(service):
    body = {"model": "serve_app", "messages": HELLO, "stream": True}
    response = await service.client.post("/v1/chat/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    return response.text.removesuffix("\n\n").split("\n\n")


async def test_a_stream_tells_role_text_end_and_ours_in_the_last_chunk(service):
    call = ToolRequest(id="c", name="order_query", arguments={})
    result = ToolCall(name="order_query", arguments={}, status="ok", attempts=1, elapsed_ms=1)
    service.agent.script = [STARTED, call, result, *SUNNY]
    chunks = await _chunks(service)
    [(context, request)] = service.agent.received
    assert request.stream
    assert {(chunk.id, chunk.object, chunk.model) for chunk in chunks} == {
        (f"chatcmpl-{context.run_id}", "chat.completion.chunk", "serve_app")
    }
    assert len({chunk.created for chunk in chunks}) == 1
    deltas = [chunk.choices[0].delta.to_dict() for chunk in chunks]
    assert deltas == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "It is "},
        {"content": "sunny."},
        {},
    ]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert [bool(chunk.model_extra) for chunk in chunks] == [False, False, False, True]
    assert chunks[-1].model_extra["serve_app"]["status"] == "success"
    assert all(chunk.usage is None for chunk in chunks)


async def test_usage_comes_in_a_chunk_of_its_own_when_it_is_asked_for(service):
    service.agent.script = [STARTED, *SUNNY]
    *chunks, last = await _chunks(service, stream_options={"include_usage": True})
    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in chunks)
    assert (last.choices, last.usage.total_tokens) == ([], 0)


async def test_the_frames_are_data_alone_and_the_last_one_is_done(service):
    service.agent.script = [STARTED, *SUNNY]
    frames = await _frames(service)
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    assert frames[-1] == "data: [DONE]"


async def test_words_that_were_taken_back_stand_before_the_answer_which_is_told_whole(service):
    service.agent.script = [STARTED, Token(text="Wait."), Token(text="Sunny.", restart=True), _answer("Sunny.")]
    chunks = await _chunks(service)
    assert _text(chunks) == "Wait.\n\nSunny."
    assert chunks[-1].model_extra["serve_app"]["result"] == "Sunny."


async def test_a_run_that_fails_before_it_says_anything_is_a_status(service):
    service.agent.script = [STARTED, FAILED]
    with pytest.raises(openai.InternalServerError, match="The model is away") as raised:
        async with client_of(service, max_retries=0) as client:
            await client.chat.completions.create(model="serve_app", messages=HELLO, stream=True)
    assert raised.value.status_code == 503


async def test_a_cancelled_run_is_a_status_or_the_end_of_the_stream(service):
    service.agent.script = [STARTED, Cancelled(run_id="")]
    with pytest.raises(openai.ConflictError):
        await _chunks(service)
    service.agent.script = [STARTED, *SUNNY[:1], Cancelled(run_id="")]
    with pytest.raises(openai.APIError, match="cancelled"):
        await _chunks(service)


@pytest.mark.parametrize("failing", [FAILED, AgentUnavailable("The model is away")])
async def test_a_failure_in_the_midst_is_raised_by_the_client(service, failing):
    service.agent.script = [STARTED, *SUNNY[:1], failing]
    chunks = []
    with pytest.raises(openai.APIError, match="The model is away") as raised:
        await _read(service, chunks)
    assert _text(chunks) == "It is "
    assert raised.value.body["type"] == "server_error"
    assert raised.value.body["code"] in {"model_unavailable", "agent_unavailable"}
    assert (await _frames(service))[-1].startswith('data: {"error":')


async def test_silence_is_filled_with_comments_that_clients_pass_over(service, monkeypatch):
    monkeypatch.setattr(completion, "FIRST_EVENT_S", 0.05)
    monkeypatch.setattr(run_responses, "KEEP_ALIVE_S", 0.05)
    service.agent.script = [STARTED, 0.15, *SUNNY[:1], 0.15, *SUNNY[1:]]
    frames = await _frames(service)
    assert frames[0] == ": keep-alive"
    assert frames.count(": keep-alive") >= 4
    assert _text(await _chunks(service)) == "It is sunny."


async def test_a_stream_whose_time_runs_out_ends_with_an_error(monkeypatch, api_redis_url):
    monkeypatch.setattr("serve_app.http.request_context.GRACE_S", 0.1)
    async with running(Service(empty(api_redis_url), turn_timeout_s=0.1)) as service:
        service.agent.script = [STARTED, *SUNNY[:1], 5.0]
        assert json.loads((await _frames(service))[-1][6:])["error"]["code"] == "deadline_exceeded"
        service.agent.script = [STARTED, 5.0]
        with pytest.raises(openai.InternalServerError) as raised:
            async with client_of(service, max_retries=0) as client:
                await client.chat.completions.create(model="serve_app", messages=HELLO, stream=True)
        assert raised.value.status_code == 504


async def test_a_run_that_was_begun_before_under_the_key_is_told_under_its_own_id(service):
    service.agent.script = [STARTED, 0.1, *SUNNY]
    key = {"Idempotency-Key": "k1"}
    first, second = await asyncio.gather(*(_chunks(service, extra_headers=key) for _ in range(2)))
    [run_id] = service.agent.logs
    assert {chunk.id for chunk in [*first, *second]} == {f"chatcmpl-{run_id}"}
    assert _text(first) == _text(second) == "It is sunny."


async def test_a_client_that_leaves_stops_nothing(service):
    service.agent.script = [STARTED, *SUNNY[:1], 0.2, *SUNNY[1:]]
    async with client_of(service) as client:
        stream = await client.chat.completions.create(model="serve_app", messages=HELLO, stream=True)
        run_id = (await anext(aiter(stream))).id.removeprefix("chatcmpl-")
        await stream.close()
    await asyncio.sleep(0.3)
    assert service.agent.open == 0
    assert (await service.client.get(f"/agent/runs/{run_id}")).json()["status"] == "success"
