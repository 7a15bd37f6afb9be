"""Every response is counted by route template, status and error code."""

from __future__ import annotations

import asyncio

from http_fakes import answer
from http_service import Service, running

from serve_app.errors import ModelUnavailable, Overloaded
from serve_app.observability.metric_catalogue import RESPONSE_S, RESPONSES
from serve_app.values import Failed, Failure, RunStarted

TURN = {"user_input": "hello", "session_id": "s1"}
CHAT = "/agent/chat"


def counts(service: Service) -> dict[tuple[str, str, str], float]:
    """By route, status and code."""
    return {tuple(value for _, value in labels): count for labels, count in service.metrics.counted[RESPONSES].items()}  # type: ignore[misc]


async def test_an_answer_is_ok_with_and_without_a_stream(service: Service) -> None:
    for stream in (False, True):
        await service.client.post(CHAT, json={**TURN, "stream": stream})
    assert counts(service) == {(CHAT, "200", "ok"): 2}
    assert service.metrics.of(RESPONSE_S) == {CHAT: 2}


async def test_ids_in_paths_and_paths_that_there_are_not_make_no_series(service: Service) -> None:
    for number in range(3):
        await service.client.get(f"/agent/runs/none{number}")
        await service.client.get(f"/made/up/{number}")
        await service.client.put(CHAT, json={})
    assert counts(service) == {
        ("/agent/runs/{run_id}", "404", "not_found"): 3,
        ("unmatched", "404", "not_found"): 3,
        (CHAT, "405", "method_not_allowed"): 3,
    }


async def test_a_failure_is_counted_by_its_code(service: Service) -> None:
    failed = Failed(error=Failure.of(ModelUnavailable("down"), "q"))
    for step in (failed, Overloaded("full", 1), ValueError("a secret")):
        service.agent.script = [RunStarted(run_id=""), step]
        await service.client.post(CHAT, json=TURN)
    assert counts(service) == {
        (CHAT, "503", "model_unavailable"): 1,
        (CHAT, "503", "overloaded"): 1,
        (CHAT, "500", "internal"): 1,
    }


async def test_what_is_refused_before_it_is_routed_is_counted_at_its_route(service: Service) -> None:
    await service.client.post(CHAT, content=b"x" * 10_000)
    await service.client.post("/made/up", content=b"x" * 10_000)
    assert counts(service) == {(CHAT, "413", "body_too_large"): 1, ("unmatched", "413", "body_too_large"): 1}


async def test_a_stream_lasts_to_its_end() -> None:
    service = Service()
    service.agent.script = [RunStarted(run_id=""), 0.3, answer()]
    async with running(service):
        await service.client.post(CHAT, json={**TURN, "stream": True})
    (took_s,) = service.metrics.observed[RESPONSE_S].popitem()[1]
    assert took_s >= 0.3


async def test_a_client_that_leaves_within_its_body_is_no_failure_of_the_service(service: Service) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"POST /agent/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{")
    await asyncio.sleep(0.1)
    writer.close()
    for _ in range(100):
        if RESPONSES in service.metrics.counted:
            break
        await asyncio.sleep(0.02)
    assert counts(service) == {(CHAT, "499", "client_left"): 1}
