"""Whoever knows the id of a run can read, follow and cancel it."""

from __future__ import annotations

import asyncio
import time

import pytest
from http_fakes import answer

from serve_app.errors import AgentUnavailable, ModelUnavailable, StoreUnavailable
from serve_app.http import run_responses
from serve_app.values import Failed, Failure, RunRecord, RunStarted, Token, ToolCall, ToolRequest

CHAT = {"user_input": "hello", "session_id": "s1", "stream": True}
STEPS = [
    RunStarted(run_id=""),
    ToolRequest(id="c1", name="order_query", arguments={"order_id": "OD-1"}),
    ToolCall(name="order_query", arguments={"order_id": "OD-1"}, status="ok", attempts=1, elapsed_ms=1.5),
    Token(text="已发\u2028货 "),
    Token(text="\r\n", restart=True),
]
ENDS = {
    "answered": answer("已发货"),
    "failed": Failed(error=Failure.of(ModelUnavailable("down"), "q1")),
}


async def _streamed(service) -> list[bytes]:
    """The frames of one turn, each as it was sent."""
    response = await service.client.post("/agent/chat", json=CHAT)
    assert response.status_code == 200
    return [frame + b"\n\n" for frame in response.content.removesuffix(b"\n\n").split(b"\n\n")]


def _run_id(service) -> str:
    [run_id] = service.agent.logs
    return run_id


async def _logged(service, events: int) -> None:
    """Until the run is there, with so many events."""
    for _ in range(500):
        if service.agent.logs and len(service.agent.logs[_run_id(service)].events) >= events:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the run did not get so far")


async def _events(service, after: int | str | None = None, run_id: str | None = None):
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    return await service.client.get(f"/agent/runs/{run_id or _run_id(service)}/events", headers=headers)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
async def test_a_stream_that_is_cut_after_any_frame_goes_on_with_the_same_bytes(service, end):
    service.agent.script = [*STEPS, end]
    sent = await _streamed(service)
    assert len(sent) == len(STEPS) + 1
    for seen in range(len(sent)):
        rest = await _events(service, seen)
        assert rest.status_code == 200
        assert rest.content == b"".join(sent[seen:])
    assert len(service.agent.received) == 1


async def test_a_run_that_goes_on_is_followed_by_any_number_of_readers(service):
    service.agent.script = [RunStarted(run_id=""), Token(text="a"), 0.3, Token(text="b"), answer()]
    streaming = asyncio.create_task(_streamed(service))
    await _logged(service, 0)
    readers = await asyncio.gather(*(_events(service, after) for after in (None, 0, 1, 2)))
    sent = await streaming
    assert [reader.content for reader in readers] == [b"".join(sent[after:]) for after in (0, 0, 1, 2)]
    for name, value in run_responses.STREAM_HEADERS.items():
        assert readers[0].headers[name] == value


async def test_nothing_is_left_of_a_run_that_is_over_and_was_seen_to_its_end(service):
    sent = await _streamed(service)
    for after in (len(sent), len(sent) + 1, "0" * 18 + "9", "9" * 19):
        response = await _events(service, after)
        assert (response.status_code, response.content) == (204, b"")


async def test_a_reader_who_claims_to_have_seen_what_is_to_come_gets_the_end_of_the_stream_and_no_fault(
    service, monkeypatch, caplog
):
    monkeypatch.setattr(run_responses, "LOOK_UP_S", 0.05)
    service.agent.script = [RunStarted(run_id=""), 1.5, answer()]
    streaming = asyncio.create_task(_streamed(service))
    await _logged(service, 0)
    response = await _events(service, 99)
    assert (response.status_code, response.content) == (200, run_responses.KEEP_ALIVE)
    await streaming
    assert caplog.records == []


async def test_silence_of_a_run_that_is_resumed_is_filled_with_comments(service, monkeypatch):
    monkeypatch.setattr(run_responses, "LOOK_UP_S", 0.05)
    monkeypatch.setattr(run_responses, "KEEP_ALIVE_S", 0.05)
    service.agent.script = [RunStarted(run_id=""), 1.5, answer()]
    streaming = asyncio.create_task(_streamed(service))
    await _logged(service, 0)
    resumed = await _events(service, 1)
    assert 3 <= resumed.content.count(run_responses.KEEP_ALIVE) <= 31
    assert resumed.content.replace(run_responses.KEEP_ALIVE, b"") == (await streaming)[-1]


async def test_a_client_that_leaves_stops_nothing(service):
    service.agent.script = [RunStarted(run_id=""), 0.1, Token(text="a"), answer()]
    async with service.client.stream("POST", "/agent/chat", json=CHAT) as response:
        seen = await anext(response.aiter_bytes())
    rest = (await _events(service, 1)).content
    assert (seen + rest).count(b"event: ") == 3
    assert b"event: answer" in rest


async def test_a_stream_that_fails_while_its_run_goes_on_is_resumed_without_a_gap(service):
    service.agent.script = [
        RunStarted(run_id=""),
        Token(text="a"),
        AgentUnavailable("The replica is gone"),
        Token(text="b"),
        answer("ab"),
    ]
    *seen, failure = await _streamed(service)
    assert failure.startswith(b'id: 2\nevent: error\ndata: {"error":{"code":"agent_unavailable"')
    assert b"\nid:" not in failure
    rest = await _events(service, len(seen))
    assert rest.content.startswith(b'id: 3\nevent: token\ndata: {"text":"b"')
    assert b"id: 4\nevent: answer" in rest.content


async def test_a_run_is_read_while_it_goes_on_and_afterwards(service):
    service.agent.script = [RunStarted(run_id=""), Token(text="a"), 1.5, answer("done")]
    streaming = asyncio.create_task(_streamed(service))
    await _logged(service, 1)
    path = f"/agent/runs/{_run_id(service)}"
    running = RunRecord.model_validate((await service.client.get(path)).json())
    assert (running.status, running.session_id, running.answer) == ("running", "s1", None)
    await streaming
    ended = RunRecord.model_validate((await service.client.get(path)).json())
    assert (ended.status, ended.last_event_id, ended.answer) == ("success", 3, answer("done"))


async def test_the_error_of_a_failed_run_is_read_with_it(service):
    service.agent.script = [ENDS["failed"]]
    assert (await service.client.post("/agent/chat", json=CHAT)).status_code == 503
    run = (await service.client.get(f"/agent/runs/{_run_id(service)}")).json()
    assert (run["status"], run["error"]["code"], run["answer"]) == ("failed", "model_unavailable", None)


async def test_a_cancelled_run_ends_its_stream_without_an_answer(service):
    service.agent.script = [RunStarted(run_id=""), Token(text="a"), 30.0, answer()]
    streaming = asyncio.create_task(_streamed(service))
    await _logged(service, 2)
    run_id = _run_id(service)
    cancelled = await service.client.post(f"/agent/runs/{run_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    last = f'id: 3\nevent: cancelled\ndata: {{"run_id":"{run_id}"}}\n\n'.encode()
    assert (await streaming)[-1] == last
    assert (await _events(service, 2)).content == last
    assert (await _events(service, 3)).status_code == 204


async def test_a_cancelled_run_has_no_answer_to_give(service):
    service.agent.script = [RunStarted(run_id=""), 30.0, answer()]
    waiting = asyncio.create_task(service.client.post("/agent/chat", json={**CHAT, "stream": False}))
    await _logged(service, 0)
    started = time.monotonic()
    await service.client.post(f"/agent/runs/{_run_id(service)}/cancel")
    response = await waiting
    assert time.monotonic() - started < 10
    assert (response.status_code, response.json()["error"]["code"]) == (409, "run_cancelled")


async def test_a_run_that_is_cancelled_before_its_first_event_is_a_stream_of_one_frame(service):
    service.agent.script = [30.0, answer()]
    streaming = asyncio.create_task(_streamed(service))
    await _logged(service, 0)
    await service.client.post(f"/agent/runs/{_run_id(service)}/cancel")
    [frame] = await streaming
    assert b"event: cancelled\n" in frame


async def test_cancelling_again_or_too_late_changes_nothing(service):
    await _streamed(service)
    path = f"/agent/runs/{_run_id(service)}"
    before = (await service.client.get(path)).json()
    for _ in range(2):
        response = await service.client.post(f"{path}/cancel")
        assert (response.status_code, response.json()) == (200, before)


ROUTES = [("GET", ""), ("GET", "/events"), ("POST", "/cancel")]


@pytest.mark.parametrize(("method", "below"), ROUTES)
async def test_a_run_that_is_not_there_is_not_found(service, method, below):
    response = await service.client.request(method, f"/agent/runs/nowhere{below}")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(("method", "below"), ROUTES)
async def test_a_store_that_is_down_is_a_status(service, method, below):
    service.runs.failing = StoreUnavailable("Redis did not answer", retry_after_s=4)
    response = await service.client.request(method, f"/agent/runs/r1{below}")
    assert (response.status_code, response.headers["retry-after"]) == (503, "4")


@pytest.mark.parametrize(("method", "below"), ROUTES)
async def test_a_run_id_of_another_form_is_refused(service, method, below):
    for run_id in ("x" * 65, "a.b", "a%20b", "%E4%BC%9A", "a%0a", "*"):
        response = await service.client.request(method, f"/agent/runs/{run_id}{below}")
        assert response.status_code == 422, run_id
        assert response.json()["error"]["message"].startswith("Parameter 'run_id' should match pattern"), run_id
    assert service.runs.contexts == []


@pytest.mark.parametrize("given", ["", "-1", "+1", "1.0", "1_0", "0x1", "one", "9" * 20, "١", "1,2"])
async def test_a_last_event_id_that_is_no_number_is_refused(service, given):
    headers = {b"Last-Event-ID": given.encode()}
    response = await service.client.get("/agent/runs/r1/events", headers=headers)
    assert response.status_code == 422
    assert response.json()["error"]["message"].startswith("Header 'Last-Event-ID' should match pattern")
    assert service.runs.contexts == []


async def test_two_last_event_ids_are_refused(service):
    headers = [("Last-Event-ID", "1"), ("Last-Event-ID", "1")]
    response = await service.client.get("/agent/runs/r1/events", headers=headers)
    assert response.status_code == 422
    assert "'Last-Event-ID' came more than once" in response.json()["error"]["message"]


async def test_a_run_is_asked_for_under_its_own_id_and_with_a_deadline(service):
    before = time.time()
    await service.client.get("/agent/runs/r1", headers={"X-Request-Id": "q1"})
    [context] = service.runs.contexts
    assert (context.request_id, context.run_id, context.session_id, context.tenant) == ("q1", "r1", "", "default")
    assert before + 20 <= context.deadline <= time.time() + 20
