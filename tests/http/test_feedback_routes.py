"""A user can rate an answer, and the operator can read it."""

from __future__ import annotations

import pytest

from serve_app.observability.metric_catalogue import FEEDBACK
from serve_app.values import RunStarted

VOTE = "/agent/feedback"
CHAT = {"user_input": "hello", "session_id": "s1"}


async def run_id_of(service) -> str:
    await service.client.post("/agent/chat", json=CHAT)
    return next(reversed(service.agent.logs))


async def rating(service, **fields):
    return await service.client.post(VOTE, json=fields)


async def test_a_vote_is_told_back_and_listed(service):
    run_id = await run_id_of(service)
    answered = await rating(service, run_id=run_id, rating="up", comment="谢谢")
    assert (answered.status_code, answered.json()) == (200, {"run_id": run_id, "rating": "up", "comment": "谢谢"})
    listed = (await service.client.get("/admin/feedback")).json()
    assert (listed["up"], listed["down"], listed["feedback"][0]["comment"]) == (1, 0, "谢谢")


async def test_a_second_vote_takes_the_place_of_the_first_and_one_repeated_is_counted_once(service, captured_logs):
    run_id = await run_id_of(service)
    for each in ("up", "up", "down"):
        assert (await rating(service, run_id=run_id, rating=each)).status_code == 200
    assert [line["rating"] for line in captured_logs.of("feedback_received")] == ["up", "down"]
    assert sum(service.metrics.of(FEEDBACK).values()) == 2
    listed = (await service.client.get("/admin/feedback", params={"rating": "down"})).json()
    assert (listed["up"], listed["down"], len(listed["feedback"])) == (0, 1, 1)


async def test_a_comment_is_kept_as_it_is_and_masked_in_the_log(service, captured_logs):
    run_id = await run_id_of(service)
    await rating(service, run_id=run_id, rating="down", comment="call 13800138000")
    assert (await service.client.get("/admin/feedback")).json()["feedback"][0]["comment"] == "call 13800138000"
    [line] = captured_logs.of("feedback_received")
    assert (line["comment"], line["run_id"]) == ("call [phone]", run_id)


async def test_a_run_that_nobody_knows_is_a_404_and_one_that_goes_on_a_409(service):
    assert (await rating(service, run_id="none", rating="up")).status_code == 404
    service.agent.script = [RunStarted(run_id=""), 0.5]
    begun = await service.client.post("/agent/chat", json=CHAT, headers={"Prefer": "respond-async"})
    response = await rating(service, run_id=begun.json()["run_id"], rating="up")
    assert (response.status_code, response.json()["error"]["code"]) == (409, "run_unfinished")
    assert response.json()["error"]["retryable"]


@pytest.mark.parametrize(
    "wrong", [{"rating": "great"}, {"run_id": "a b"}, {"stars": 5}, {"comment": "x" * 4001}, {"rating": None}], ids=str
)
async def test_a_vote_that_cannot_be_is_a_422_that_names_the_field(service, wrong):
    response = await rating(service, **{"run_id": "r", "rating": "up", **wrong})
    assert response.status_code == 422
    assert next(iter(wrong)) in response.json()["error"]["message"]


async def test_what_an_error_repeats_of_the_request_is_masked(service):
    for path in ("/agent/runs/sk-proj-Ab3dEf6hIj9kLm2nOp5q", "/agent/sessions/li.wei@example.com"):
        response = await service.client.get(path)
        assert response.status_code == 404
        assert path.rpartition("/")[2] not in response.text
    named = {"run_id": "r", "rating": "up", "sk-proj-Ab3dEf6hIj9kLm2nOp5q": 1}
    response = await service.client.post(VOTE, json=named)
    assert response.status_code == 422
    assert "sk-proj" not in response.text
    assert "[secret]" in response.text


async def test_the_lines_of_a_run_are_told_and_of_no_other(service):
    run_id = await run_id_of(service)
    assert (await service.client.get(f"/admin/runs/{run_id}/logs")).json() == {"run_id": run_id, "lines": []}
    assert (await service.client.get("/admin/runs/none/logs")).status_code == 404
