"""A completion is what OpenAI's clients expect, and the turn is the one that was meant."""

from __future__ import annotations

import pytest
from openai_clients import HELLO, client_of, completed

from serve_app.observability.metric_catalogue import RESPONSES
from serve_app.values import Answer, Message, RunStarted, TurnRequest, Usage

LONGER = [
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
    {"role": "user", "content": "I am Ann."},
    {"role": "assistant", "content": "Hello Ann."},
    {"role": "user", "content": [{"type": "text", "text": "Who"}, {"type": "text", "text": "am I?"}]},
]
ANSWER = Answer(
    result="Ann.",
    session_id="",
    run_id="",
    status="degraded",
    degraded=["tool:orders"],
    usage=Usage(input_tokens=7, output_tokens=2),
    model="glm-4",
)


async def test_a_completion_has_openais_fields_and_ours_under_one_key(service):
    service.agent.script = [RunStarted(run_id=""), ANSWER]
    async with client_of(service) as client:
        raw = await client.chat.completions.with_raw_response.create(model="serve_app", messages=HELLO)
    completion = raw.parse()
    [(context, _)] = service.agent.received
    assert completion.id == f"chatcmpl-{context.run_id}"
    assert (completion.object, completion.model) == ("chat.completion", "serve_app")
    [choice] = completion.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content, choice.message.refusal) == ("assistant", "Ann.", None)
    assert completion.usage.to_dict() == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    assert set(completion.model_extra) == {"serve_app"}
    ours = completion.model_extra["serve_app"]
    assert ours.keys() == {*Answer.model_fields} - {"result", "usage"} | {"history"}
    assert (ours["run_id"], ours["session_id"]) == (context.run_id, None)
    assert (ours["status"], ours["degraded"], ours["model"]) == ("degraded", ["tool:orders"], "glm-4")
    assert raw.headers["x-degraded"] == "tool:orders"
    assert raw.headers["x-request-id"] == completion._request_id


async def test_without_a_session_the_messages_are_the_history(service):
    completion = await completed(service, LONGER)
    [(context, request)] = service.agent.received
    assert context.session_id == ""
    assert request == TurnRequest(
        user_input="Who\nam I?",
        instructions="Be brief.\n\nBe kind.",
        history=(Message(role="user", content="I am Ann."), Message(role="assistant", content="Hello Ann.")),
    )
    assert completion.model_extra["serve_app"]["history"] == "messages"


@pytest.mark.parametrize(
    ("fields", "session", "user"),
    [
        ({"metadata": {"session_id": "s7", "team": "blue"}}, "s7", None),
        ({"user": "ann@example.org"}, "ann@example.org", "ann@example.org"),
        ({"metadata": {"session_id": "s7"}, "user": "ann"}, "s7", "ann"),
    ],
)
async def test_in_a_session_memory_is_the_history_and_instructions_are_read(service, fields, session, user):
    completion = await completed(service, LONGER, **fields)
    [(context, request)] = service.agent.received
    assert (context.session_id, request.session_id, request.user_id) == (session, session, user)
    assert (request.history, request.instructions) == ((), "Be brief.\n\nBe kind.")
    ours = completion.model_extra["serve_app"]
    assert (ours["history"], ours["session_id"]) == ("session", session)


async def test_what_the_client_was_answered_is_sent_back_as_it_came(service):
    first = await completed(service)
    messages = [*HELLO, first.choices[0].message, {"role": "user", "content": "And now?"}]
    await completed(service, messages)
    assert [message.content for message in service.agent.received[-1][1].history] == ["hello", "hello"]


async def test_fields_that_change_nothing_may_be_sent(service):
    neutral = {
        "n": 1,
        "temperature": 1.0,
        "top_p": 1,
        "presence_penalty": 0.0,
        "frequency_penalty": 0,
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "response_format": {"type": "text"},
        "stop": None,
        "seed": None,
        "store": False,
        "logprobs": False,
        "logit_bias": {},
        "service_tier": "auto",
        "modalities": ["text"],
        "max_tokens": None,
    }
    assert (await completed(service, **neutral)).choices[0].message.content == "hello"


async def test_the_agent_is_the_one_model(service):
    async with client_of(service) as client:
        models = await client.models.list()
        [model] = models.data
        assert (model.id, model.object, model.owned_by) == ("serve_app", "model", "serve_app")
        assert model.model_extra == {"serve_app": {"model": "stub:glm"}}
        assert await client.models.retrieve("serve_app") == model


async def test_under_one_idempotency_key_the_turn_is_run_once(service):
    headers = {"Idempotency-Key": "k1"}
    first, second = [await completed(service, extra_headers=headers) for _ in range(2)]
    assert first.id == second.id
    assert service.agent.calls == 1


async def test_completions_are_counted_by_their_route(service):
    await completed(service)
    [labels] = service.metrics.counted[RESPONSES]
    assert dict(labels) == {"route": "/v1/chat/completions", "status": "200", "code": "ok"}
