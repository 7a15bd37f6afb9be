"""Every route keeps its contract."""

from __future__ import annotations

import json
import re
import time

import httpx
import pytest
from http_fakes import answer
from http_service import Service

from serve_app.errors import (
    AgentUnavailable,
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    ModelUnavailable,
    NotFound,
    Overloaded,
    RetrieverUnavailable,
    SessionBusy,
    StoreUnavailable,
)
from serve_app.http.middleware.headers import RequestIdEchoMiddleware
from serve_app.http.routes import health
from serve_app.values import Citation, DependencyCheck, Failed, Failure, RunStarted, ToolCall

CHAT = {"user_input": "hello", "session_id": "s1"}


async def test_a_turn_is_answered_with_the_answer_as_the_agent_gave_it(service):
    given = answer("查到了 🙂").model_copy(
        update={
            "status": "degraded",
            "degraded": ["memory"],
            "citations": [Citation(source="a.md", title="A", passage="text", score=0.5)],
            "tool_calls": [
                ToolCall(name="order_query", arguments={"order_id": "1"}, status="ok", attempts=1, elapsed_ms=2)
            ],
        }
    )
    service.agent.script = [given]
    response = await service.client.post("/agent/chat", json=CHAT)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == given.model_dump()


async def test_the_context_has_ids_and_a_deadline(service):
    before = time.time()
    await service.client.post("/agent/chat", json=CHAT, headers={"X-Request-Id": "mine.1"})
    [(context, request)] = service.agent.received
    assert (context.request_id, context.session_id, context.tenant) == ("mine.1", "s1", "default")
    assert re.fullmatch("[0-9a-f]{32}", context.run_id)
    assert before + 20 <= context.deadline <= time.time() + 20
    assert context.timeout_s == 20
    assert request.user_input == "hello"


@pytest.mark.parametrize("header", ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "nonsense", None])
async def test_the_context_has_the_caller_s_trace_where_there_is_one(service, header):
    await service.client.post("/agent/chat", json=CHAT, headers={"traceparent": header} if header else {})
    [(context, _)] = service.agent.received
    assert context.traceparent == (header if header and header.startswith("00-") else "")


async def test_events_before_the_answer_do_not_show_in_json(service):
    service.agent.script = [RunStarted(run_id="r1"), answer("late")]
    assert (await service.client.post("/agent/chat", json=CHAT)).json()["result"] == "late"


async def test_a_header_says_what_an_answer_was_made_without(service):
    service.agent.script = [answer("x").without("tool:a").without("memory")]
    response = await service.client.post("/agent/chat", json=CHAT)
    assert (response.status_code, response.headers["x-degraded"]) == (200, "memory, tool:a")
    service.agent.script = [answer("x")]
    assert "x-degraded" not in (await service.client.post("/agent/chat", json=CHAT)).headers


FAILURES = [
    (InvalidRequest("change it"), 422, "invalid_request"),
    (NotFound("no such thing"), 404, "not_found"),
    (SessionBusy("busy"), 409, "session_busy"),
    (Overloaded("full"), 503, "overloaded"),
    (DeadlineExceeded("late"), 504, "deadline_exceeded"),
    (AgentUnavailable("gone"), 503, "agent_unavailable"),
    (ModelUnavailable("down"), 503, "model_unavailable"),
    (StoreUnavailable("down"), 503, "store_unavailable"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("as_value", [False, True])
async def test_a_failure_of_ours_has_its_status_and_its_message(service, stream, as_value):
    for error, status, code in FAILURES:
        service.agent.script = [Failed(error=Failure.of(error, "q1")) if as_value else error]
        sent = {**CHAT, "stream": stream}
        response = await service.client.post("/agent/chat", json=sent, headers={"X-Request-Id": "q1"})
        assert response.status_code == status, code
        expected = {"code": code, "message": error.message, "retryable": error.retryable, "request_id": "q1"}
        assert response.json() == {"error": {**expected, "reason": error.reason}}
        assert ("retry-after" in response.headers) == (status == 503), code


@pytest.mark.parametrize(("given_s", "expected"), [(None, "1"), (0.2, "1"), (2.1, "3")])
async def test_a_shed_request_is_told_in_whole_seconds_when_to_come_back(service, given_s, expected):
    service.agent.script = [Overloaded("full", retry_after_s=given_s)]
    assert (await service.client.post("/agent/chat", json=CHAT)).headers["retry-after"] == expected


@pytest.mark.parametrize("error", [RuntimeError("the password is hunter2"), Internal("the password is hunter2")])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_text_of_a_fault_stays_inside_and_is_logged_with_the_request_id(service, caplog, error, stream):
    service.agent.script = [error]
    response = await service.client.post("/agent/chat", json={**CHAT, "stream": stream}, headers={"X-Request-Id": "q7"})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal"
    assert response.headers["x-request-id"] == "q7"
    assert "hunter2" not in response.text
    [record] = caplog.records
    assert (record.getMessage(), record.request_id) == ("request_failed", "q7")
    assert "hunter2" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_run_that_ends_without_an_answer_is_a_fault(service):
    service.agent.script = [RunStarted(run_id="r1")]
    assert (await service.client.post("/agent/chat", json=CHAT)).status_code == 500


@pytest.mark.parametrize("stream", [False, True])
async def test_an_agent_that_keeps_no_deadline_is_given_up(hurried, monkeypatch, stream):
    monkeypatch.setattr("serve_app.http.request_context.GRACE_S", 0.1)
    hurried.agent.script = [30.0, answer()]
    response = await hurried.client.post("/agent/chat", json={**CHAT, "stream": stream})
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert hurried.agent.open == 0


async def test_a_session_is_read_and_forgotten(service):
    for number in range(3):
        await service.client.post("/agent/chat", json={"user_input": str(number), "session_id": "a.b:c@d"})
    response = await service.client.get("/agent/sessions/a.b:c@d?limit=2")
    assert response.status_code == 200
    session = response.json()
    assert (session["session_id"], session["turns"], session["expires_in_s"]) == ("a.b:c@d", 3, 60)
    assert [exchange["messages"][0]["content"] for exchange in session["exchanges"]] == ["1", "2"]
    gone = await service.client.delete("/agent/sessions/a.b:c@d")
    assert (gone.status_code, gone.content) == (204, b"")
    for method in ("GET", "DELETE"):
        missing = await service.client.request(method, "/agent/sessions/a.b:c@d")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


async def test_the_largest_conversations_are_listed(service):
    for session_id in ("a", "b", "b", "c", "c", "c"):
        await service.client.post("/agent/chat", json={**CHAT, "session_id": session_id})
    response = await service.client.get("/admin/sessions?limit=2")
    assert response.status_code == 200
    assert [(each["session_id"], each["turns"]) for each in response.json()["sessions"]] == [("c", 3), ("b", 2)]
    assert (response.json()["counted"], response.json()["complete"]) == (3, True)
    assert len((await service.client.get("/admin/sessions")).json()["sessions"]) == 3


async def test_documents_are_added_listed_and_removed(service):
    batch = {"documents": [{"source": "a.md", "text": "# A", "title": "甲"}, {"source": "b.md", "text": "broken"}]}
    added = await service.client.post("/knowledge/documents", json=batch)
    assert added.status_code == 200
    assert [(one["source"], one["status"]) for one in added.json()["documents"]] == [
        ("a.md", "added"),
        ("b.md", "failed"),
    ]
    assert added.json()["documents"][1]["reason"] == "It is broken"
    listed = (await service.client.get("/knowledge/documents?offset=0&limit=100")).json()
    assert (listed["total"], [one["title"] for one in listed["documents"]]) == (1, ["甲"])
    assert (await service.client.get("/knowledge/documents?offset=1")).json()["documents"] == []
    removed = await service.client.delete("/knowledge/documents/d1")
    assert (removed.status_code, removed.json()["source"]) == (200, "a.md")
    assert (await service.client.delete("/knowledge/documents/d1")).status_code == 404


async def test_documents_have_minutes_and_belong_to_no_session(service):
    await service.client.post("/knowledge/documents", json={"documents": [{"source": "a", "text": "b"}]})
    [context] = service.retriever.contexts
    assert context.session_id == ""
    assert context.deadline > time.time() + 200
    assert context.timeout_s > 200


async def test_a_store_that_is_down_fails_each_route_that_needs_it(service):
    service.agent.failing = service.retriever.failing = StoreUnavailable("Redis did not answer", retry_after_s=4)
    add = await service.client.post("/knowledge/documents", json={"documents": [{"source": "a", "text": "b"}]})
    for response in (
        add,
        await service.client.get("/agent/sessions/s1"),
        await service.client.delete("/agent/sessions/s1"),
        await service.client.get("/admin/sessions"),
    ):
        assert (response.status_code, response.headers["retry-after"]) == (503, "4")
        assert response.json()["error"]["message"] == "Redis did not answer"


async def test_the_process_is_alive_whatever_its_dependencies_do(service):
    service.agent.failing = StoreUnavailable("down")
    response = await service.client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_a_service_whose_checks_pass_is_ready(service):
    response = await service.client.get("/readyz")
    assert response.status_code == 200
    names = [(check["name"], check["ok"], check["reason"]) for check in response.json()["checks"]]
    assert names == [("model", True, None), ("milvus", True, None), ("tool:order_query", True, None)]
    assert response.json()["ready"] is True


async def test_a_failed_check_makes_the_service_unready_and_says_why(service):
    service.agent.check = DependencyCheck(name="redis", ok=False, reason="No answer from Redis")
    response = await service.client.get("/readyz")
    assert (response.status_code, response.json()["ready"]) == (503, False)
    check = {"name": "redis", "ok": False, "reason": "No answer from Redis", "required": True}
    assert check in response.json()["checks"]


async def test_a_service_is_ready_without_what_turns_can_do_without(service):
    service.agent.check = DependencyCheck(name="milvus", ok=False, reason="Milvus did not answer", required=False)
    response = await service.client.get("/readyz")
    assert (response.status_code, response.json()["ready"]) == (200, True)
    check = {"name": "milvus", "ok": False, "reason": "Milvus did not answer", "required": False}
    assert check in response.json()["checks"]


async def test_a_service_without_its_retriever_is_ready_and_says_so(service):
    assert (await service.client.get("/readyz")).status_code == 200
    service.retriever.failing = RetrieverUnavailable("No replica is ready")
    response = await service.client.get("/readyz")
    assert (response.status_code, response.json()["ready"]) == (200, True)
    check = {"name": "retriever", "ok": False, "reason": "No replica is ready", "required": False}
    assert check in response.json()["checks"]


async def test_a_service_that_starts_waits_for_its_retriever_but_not_for_ever(service, monkeypatch):
    service.retriever.failing = RetrieverUnavailable("No replica is ready")
    response = await service.client.get("/readyz")
    assert (response.status_code, response.json()["ready"]) == (503, False)
    check = {"name": "retriever", "ok": False, "reason": "No replica is ready", "required": True}
    assert check in response.json()["checks"]
    monkeypatch.setattr(health, "STARTUP_S", 0)
    assert (await service.client.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    ("failing", "reason"),
    [(AgentUnavailable("No replica is ready"), "No replica is ready"), (KeyError("secret"), "Something went wrong")],
)
async def test_a_part_that_cannot_be_asked_is_a_failed_check(service, failing, reason):
    service.agent.failing = failing
    response = await service.client.get("/readyz")
    assert response.status_code == 503
    [check] = [check for check in response.json()["checks"] if not check["ok"]]
    assert check["name"] == "agent"
    assert check["reason"].startswith(reason)
    assert "secret" not in response.text


async def test_a_part_that_does_not_answer_in_two_seconds_is_a_failed_check(service):
    service.agent.check_pause_s = 30
    started = time.monotonic()
    response = await service.client.get("/readyz")
    assert time.monotonic() - started < 4
    [check] = [check for check in response.json()["checks"] if not check["ok"]]
    assert check == {"name": "agent", "ok": False, "reason": "No answer within 2 seconds", "required": True}


@pytest.mark.parametrize("given", ["abc", "A-Z_0.9", "x" * 64])
async def test_a_client_may_name_its_request(service, given):
    response = await service.client.get("/healthz", headers={"X-Request-Id": given})
    assert response.headers.get_list("x-request-id") == [given]


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a/b", "<script>"])
async def test_a_request_id_of_another_form_is_replaced(service, given):
    response = await service.client.get("/healthz", headers={"X-Request-Id": given})
    [made] = response.headers.get_list("x-request-id")
    assert re.fullmatch("[0-9a-f]{32}", made)


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/docs", "/openapi.json", "/nowhere", "/agent/chat", "/agent/sessions/s1"]
)
async def test_every_response_has_one_request_id(service, path):
    response = await service.client.get(path)
    assert len(response.headers.get_list("x-request-id")) == 1


@pytest.mark.parametrize(("given", "ours"), [("mine", 0), ("not valid!", 1), (None, 1)])
async def test_an_id_that_the_server_sends_back_itself_is_not_sent_twice(given, ours):
    app = Service().api
    app.add_middleware(RequestIdEchoMiddleware)
    headers = {} if given is None else {"X-Request-Id": given}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
        response = await client.get("/healthz", headers=headers)
    assert len(response.headers.get_list("x-request-id")) == ours


async def test_the_documentation_names_our_errors_only_and_is_there_to_read(service):
    described = (await service.client.get("/openapi.json")).json()
    assert "HTTPValidationError" not in json.dumps(described)
    chat = described["paths"]["/agent/chat"]["post"]
    assert set(chat["responses"]) == {
        "200",
        "202",
        "400",
        "408",
        "409",
        "413",
        "415",
        "422",
        "429",
        "431",
        "500",
        "503",
        "504",
    }
    assert "text/event-stream" in chat["responses"]["200"]["content"]
    assert "订单" in chat["requestBody"]["content"]["application/json"]["examples"]
    for path in described["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert operation["description"]
    assert "swagger" in (await service.client.get("/docs")).text
