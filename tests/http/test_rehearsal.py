"""The faults that an operator sets reach the turns, and only where they are allowed."""

from __future__ import annotations

import time

import pytest
from http_service import Service, running

from serve_app.stores.fault_store import FaultStore

FAULTS = "/admin/faults"
CHAT = {"user_input": "hello", "session_id": "s1"}


async def test_a_fault_is_set_listed_and_cleared(service):
    sent = {"target": "tool:order_query", "mode": "error", "rate": 0.3, "for_s": 60}
    for response in (await service.client.put(FAULTS, json=sent), await service.client.get(FAULTS)):
        assert response.status_code == 200
        [fault] = response.json()["faults"]
        assert (fault["target"], fault["mode"], fault["rate"]) == ("tool:order_query", "error", 0.3)
        assert fault["until"] == pytest.approx(time.time() + 60, abs=5)
    await service.client.put(FAULTS, json={"target": "retriever", "mode": "slow", "delay_s": 3})
    listed = (await service.client.delete(FAULTS, params={"target": "tool:order_query"})).json()["faults"]
    assert [(each["target"], each["delay_s"], each["rate"]) for each in listed] == [("retriever", 3, 1)]
    assert (await service.client.delete(FAULTS)).json() == {"faults": []}


@pytest.mark.parametrize("headers", [{}, {"Prefer": "respond-async"}])
async def test_a_turn_carries_the_faults_in_force(service, headers):
    await service.client.put(FAULTS, json={"target": "model", "mode": "timeout"})
    assert (await service.client.post("/agent/chat", json=CHAT, headers=headers)).is_success
    await service.client.delete(FAULTS)
    assert (await service.client.post("/agent/chat", json=CHAT, headers=headers)).is_success
    (faulty, _), (sound, _) = service.agent.received
    assert [(fault.target, fault.mode) for fault in faulty.faults] == [("model", "timeout")]
    assert sound.faults == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": "redis"},
        {"target": "tool:"},
        {"target": "tool:a b"},
        {"mode": "burn"},
        {"rate": 1.1},
        {"for_s": 0},
        {"for_s": 3601},
        {"delay_s": -1},
        {"until": 4e9},
    ],
    ids=str,
)
async def test_a_fault_that_cannot_be_is_refused(service, wrong):
    response = await service.client.put(FAULTS, json={"target": "model", "mode": "error", **wrong})
    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_request")
    assert next(iter(wrong)) in response.json()["error"]["message"]
    assert (await service.client.get(FAULTS)).json() == {"faults": []}


async def test_faults_that_are_not_allowed_are_not_there_and_the_message_says_how_to_allow_them():
    async with running(Service(fault_injection=False)) as service:
        for response in (
            await service.client.get(FAULTS),
            await service.client.put(FAULTS, json={"target": "model", "mode": "error"}),
            await service.client.delete(FAULTS),
        ):
            assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
            assert "faults: {enabled: true}" in response.json()["error"]["message"]
        assert (await service.client.post("/agent/chat", json=CHAT)).status_code == 200


async def test_a_store_that_is_away_is_a_503():
    service = Service()
    service.faults = FaultStore(service.redis)
    async with running(service):
        assert (await service.client.get(FAULTS)).status_code == 503
