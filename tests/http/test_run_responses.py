"""A run's events reach a client that streams, whatever happens on the way."""

from __future__ import annotations

import asyncio
import json
import time

import httpx
import pytest
from http_fakes import ScriptedAgent, answer
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import AgentUnavailable
from serve_app.http import run_responses
from serve_app.http.run_responses import RunFollower
from serve_app.values import ChatRequest, Context, Failed, Failure, RunEvent, RunStarted, Token, ToolCall, ToolRequest

CHAT = {"user_input": "hello", "session_id": "s1", "stream": True}


def _read(stream: str) -> list[dict[str, str]]:
    """The frames, by the rules of the HTML standard: lines end in CR, LF or CRLF; a comment begins with a colon."""
    frames, frame = [], {}
    for line in stream.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line and frame:
            frames.append(frame)
            frame = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(":")
            frame[name] = value.removeprefix(" ")
    return frames


async def _frames(service, **changed: object) -> list[tuple[str, str, dict]]:
    response = await service.client.post("/agent/chat", json={**CHAT, **changed}, headers={"X-Request-Id": "q1"})
    assert response.status_code == 200
    return [(frame.get("id", ""), frame["event"], json.loads(frame["data"])) for frame in _read(response.text)]


async def test_each_event_is_a_frame_and_the_last_one_is_the_answer(service):
    steps = [
        RunStarted(run_id="r1"),
        ToolRequest(id="c1", name="order_query", arguments={"order_id": "OD-1"}),
        ToolCall(name="order_query", arguments={"order_id": "OD-1"}, status="ok", attempts=1, elapsed_ms=1.5),
        Token(text="已发货"),
        Token(text="again", restart=True),
        answer("已发货"),
    ]
    service.agent.script = list(steps)
    names = ["run", "tool_call", "tool_result", "token", "token", "answer"]
    expected = [
        (str(number), name, step.model_dump()) for number, (name, step) in enumerate(zip(names, steps, strict=True), 1)
    ]
    assert await _frames(service) == expected


async def test_the_headers_keep_proxies_from_holding_frames_back(service):
    response = await service.client.post("/agent/chat", json=CHAT)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-length" not in response.headers
    assert len(response.headers.get_list("x-request-id")) == 1


async def test_a_frame_is_sent_when_its_event_happens(service):
    service.agent.script = [RunStarted(run_id="r1"), Token(text="first"), 3.0, answer()]
    async with service.client.stream("POST", "/agent/chat", json=CHAT) as response:
        async for line in response.aiter_lines():
            if "first" in line:
                [run] = service.agent.logs.values()
                assert not run.over
                return
    raise AssertionError("the token did not come")


async def test_text_travels_unescaped(service):
    service.agent.script = [answer("订单 🙂")]
    response = await service.client.post("/agent/chat", json=CHAT)
    assert "订单 🙂" in response.content.decode("utf-8")


@given(st.text())
def test_any_text_survives_framing(text):
    sent = run_responses.encode_frame(RunEvent(id=7, data=Token(text=text)))
    assert len(sent.splitlines()) == 4  # three fields and the empty line: bytes are split at CR and LF only
    [frame] = _read(sent.decode("utf-8"))
    assert (frame["id"], frame["event"], json.loads(frame["data"])["text"]) == ("7", "token", text)


@pytest.mark.parametrize("error", [AgentUnavailable("The replica is gone"), RuntimeError("the password is hunter2")])
async def test_a_late_failure_is_the_last_frame_and_takes_no_new_id(service, caplog, error):
    service.agent.script = [RunStarted(run_id="r1"), Token(text="a"), error]
    *_, (number, name, data) = await _frames(service)
    assert (number, name) == ("2", "error")
    assert data == {"error": Failure.of(error, "q1").model_dump()}
    assert "hunter2" not in json.dumps(data)
    assert ("hunter2" in caplog.text) == isinstance(error, RuntimeError)
    assert await _settled(service.agent)


async def test_a_late_failure_that_is_an_event_is_the_last_frame(service):
    failed = Failed(error=Failure.of(AgentUnavailable("gone"), "q1"))
    service.agent.script = [RunStarted(run_id="r1"), failed, Token(text="never")]
    assert [frame[1:] for frame in await _frames(service)][1:] == [("error", failed.model_dump())]


async def test_a_run_that_ends_without_its_last_event_ends_in_an_error(service):
    service.agent.script = [RunStarted(run_id="r1")]
    *_, (number, name, data) = await _frames(service)
    assert (number, name, data["error"]["code"]) == ("1", "error", "internal")


async def test_a_run_over_its_deadline_ends_in_an_error(hurried, monkeypatch):
    monkeypatch.setattr("serve_app.http.request_context.GRACE_S", 0.1)
    hurried.agent.script = [RunStarted(run_id="r1"), 30.0, answer()]
    *_, (_, name, data) = await _frames(hurried)
    assert (name, data["error"]["code"]) == ("error", "deadline_exceeded")
    assert await _settled(hurried.agent)


async def test_silence_is_filled_with_comments(service, monkeypatch):
    monkeypatch.setattr(run_responses, "KEEP_ALIVE_S", 0.05)
    service.agent.script = [RunStarted(run_id="r1"), 0.28, answer()]
    response = await service.client.post("/agent/chat", json=CHAT)
    assert 3 <= response.text.count(": keep-alive\n\n") <= 5
    assert [frame["event"] for frame in _read(response.text)] == ["run", "answer"]


async def _settled(agent: ScriptedAgent) -> bool:
    """Whether all of the agent's generators are closed, now or within two seconds."""
    for _ in range(200):
        if agent.open == 0:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_a_client_that_leaves_closes_its_run_and_disturbs_nobody(service, caplog):
    service.agent.script = [RunStarted(run_id="r1"), Token(text="a"), 0.5, Token(text="b"), answer()]
    staying = asyncio.create_task(_frames(service))
    async with httpx.AsyncClient(base_url=service.client.base_url) as dropped:
        for _ in range(5):
            async with dropped.stream("POST", "/agent/chat", json=CHAT) as response:
                await anext(response.aiter_bytes())
    assert [name for _, name, _ in await staying] == ["run", "token", "token", "answer"]
    assert await _settled(service.agent)
    assert caplog.records == []


async def test_a_client_that_leaves_before_the_first_event_closes_its_run(service, caplog):
    service.agent.script = [0.3, RunStarted(run_id="r1"), 30.0, answer()]
    with pytest.raises(httpx.ReadTimeout):
        await service.client.post("/agent/chat", json=CHAT, timeout=0.1)
    assert service.agent.open == 1
    assert await _settled(service.agent)
    assert caplog.records == []


async def test_streams_run_side_by_side(service):
    service.agent.script = [RunStarted(run_id="r1"), 2.0, answer()]
    streaming = asyncio.gather(*(_frames(service) for _ in range(30)))
    async with asyncio.timeout(10):
        while service.agent.open < 30:  # noqa: ASYNC110 - nobody tells that all are open
            await asyncio.sleep(0.01)
    assert all(frames[-1][1] == "answer" for frames in await streaming)


async def test_a_run_is_read_and_closed_in_one_task():
    tasks = set()

    async def events():
        try:
            for number in range(3):
                tasks.add(asyncio.current_task())
                yield RunEvent(id=number, data=Token(text="a"))
        finally:
            tasks.add(asyncio.current_task())

    follower = RunFollower(events())
    assert (await follower.next(1)).id == 0
    await follower.close()
    assert len(tasks) == 1


async def test_silence_while_following_loses_no_event():
    context = Context(request_id="q", run_id="r", session_id="s", deadline=time.time() + 5)
    agent = ScriptedAgent()
    agent.script = [0.05, Token(text="a"), 0.05, answer()]
    follower = RunFollower(agent.turn(context, ChatRequest(**CHAT)))
    events = []
    while not (events and events[-1].last):
        event = await follower.next(0.01)
        events.extend([event] if event else [])
    assert [event.name for event in events] == ["token", "answer"]
    await follower.close()
