"""`Prefer` is read as RFC 7240 has it, and a run begins that nobody waits for."""

from __future__ import annotations

import asyncio

import pytest
from http_fakes import answer
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import AgentUnavailable, Internal, StoreUnavailable
from serve_app.http import run_start
from serve_app.http.routes.chat import prefers_async
from serve_app.values import RunRecord, RunStarted, Token

CHAT = {"user_input": "hello", "session_id": "s1"}
ASYNC = {"Prefer": "respond-async"}

NAMES = st.sampled_from(["respond-async", "Respond-Async"])
TOKENS = st.text("abcXYZ019-_.!#$%&'*+^`|~", min_size=1, max_size=8)
SPACES = st.sampled_from(["", " ", "\t "])


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def _preference(draw) -> tuple[str, str, str]:
    """A name, a value, and how the two may be written, with parameters behind them."""
    name, value = draw(NAMES | TOKENS), draw(st.just("") | TOKENS | st.text('abc,;="\\ ', max_size=8))
    plain = draw(st.booleans()) and value.replace(" ", "").isalnum() and " " not in value
    equals = f"{draw(SPACES)}={draw(SPACES)}"
    written = name + (equals + (value if plain else _quoted(value)) if value or draw(st.booleans()) else "")
    for parameter in draw(st.lists(st.tuples(TOKENS, st.text('ab,;="\\', max_size=5)), max_size=2)):
        written += f"{draw(SPACES)};{draw(SPACES)}{parameter[0]}={_quoted(parameter[1])}"
    return name, value, draw(SPACES) + written + draw(SPACES)


@given(sent=st.lists(_preference(), max_size=6), one_header=st.booleans())
def test_respond_async_is_found_among_any_preferences(sent, one_header):
    values = [value for name, value, _ in sent if name.lower() == "respond-async"]
    written = [each for _, _, each in sent]
    assert prefers_async([",".join(written)] if one_header else written) == (values[:1] == [""])


@given(st.lists(st.text() | st.text('aB,;="\\ \t', max_size=12), max_size=3))
def test_no_header_is_too_broken_to_read(values):
    assert not prefers_async(values)


APPLIED = [
    ["respond-async"],
    ["Respond-ASYNC"],
    ["respond-async, wait=10"],
    ["handling=lenient,respond-async"],
    ["handling=lenient", "respond-async"],
    ["respond-async; foo=bar"],
    ["", "respond-async"],
    ['respond-async = ""'],
    [",,respond-async,"],
    ['a="b, c", respond-async'],
]
NOT_APPLIED = [
    [""],
    ["wait=10"],
    ["respond-asynchronously"],
    ["respond async"],
    ["respond-async=no"],
    ['a="b, respond-async"'],
    ['a="respond-async'],
    ["a; respond-async"],
    ["; respond-async"],
    [";"],
    ["respond-async=no, respond-async"],
]


@pytest.mark.parametrize("values", APPLIED, ids=", ".join)
async def test_a_run_begins_in_the_background_when_the_client_prefers_it(service, values):
    response = await service.client.post("/agent/chat", json=CHAT, headers=[("Prefer", value) for value in values])
    assert response.status_code == 202
    assert response.headers["preference-applied"] == "respond-async"


@pytest.mark.parametrize("values", NOT_APPLIED, ids=", ".join)
async def test_without_that_preference_the_answer_is_waited_for(service, values):
    response = await service.client.post("/agent/chat", json=CHAT, headers=[("Prefer", value) for value in values])
    assert (response.status_code, response.json()["result"]) == (200, "hello")
    assert "preference-applied" not in response.headers


@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_in_the_background_is_polled_to_its_answer(service, stream):
    service.agent.script = [RunStarted(run_id=""), 1.5, Token(text="a"), answer("done")]
    response = await service.client.post("/agent/chat", json={**CHAT, "stream": stream}, headers=ASYNC)
    assert response.status_code == 202
    run = RunRecord.model_validate(response.json())
    assert run.status in {"queued", "running"}
    assert response.headers["location"] == f"/agent/runs/{run.run_id}"
    await asyncio.sleep(0.3)
    assert (await service.client.get(response.headers["location"])).json()["status"] == "running"
    await asyncio.sleep(1.7)
    polled = (await service.client.get(response.headers["location"])).json()
    assert (polled["status"], polled["answer"]["result"]) == ("success", "done")
    [(context, request)] = service.agent.received
    assert (context.run_id, request.stream) == (run.run_id, stream)


async def test_the_same_key_in_the_background_is_the_same_run(service):
    headers = {**ASYNC, "Idempotency-Key": "k-1"}
    first = await service.client.post("/agent/chat", json=CHAT, headers=headers)
    again = await service.client.post("/agent/chat", json=CHAT, headers=headers)
    waited = await service.client.post("/agent/chat", json=CHAT, headers={"Idempotency-Key": "k-1"})
    assert (first.status_code, again.status_code, waited.status_code) == (202, 202, 200)
    assert first.headers["location"] == again.headers["location"]
    assert service.agent.calls == 1


@pytest.mark.parametrize("failure", [AgentUnavailable("No replica is ready"), 30.0])
async def test_a_registered_run_that_nobody_starts_is_accepted_all_the_same(service, monkeypatch, caplog, failure):
    monkeypatch.setattr(run_start, "START_TIMEOUT_S", 0.1)
    service.agent.starting = failure
    response = await service.client.post("/agent/chat", json=CHAT, headers=ASYNC)
    assert (response.status_code, response.json()["status"]) == (202, "queued")
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert (record.getMessage(), record.run_id) == ("run_start_delayed", response.json()["run_id"])


async def test_a_run_that_cannot_be_registered_is_not_accepted(service):
    service.runs.failing = StoreUnavailable("Redis did not answer")
    response = await service.client.post("/agent/chat", json=CHAT, headers=ASYNC)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "store_unavailable")
    assert service.agent.received == []


async def test_a_fault_while_a_run_is_started_is_told(service, caplog):
    service.agent.starting = Internal("the password is hunter2")
    response = await service.client.post("/agent/chat", json=CHAT, headers=ASYNC)
    assert response.status_code == 500
    assert "hunter2" not in response.text
