"""The running service holds a conversation."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import httpx
    from running_service import Service

MANUAL = """
# Kettle K-7 manual

## Descaling

Descale the kettle every three months. Fill it with water and two spoons of citric acid, bring it to the boil, wait
twenty minutes and rinse it twice. A kettle that is never descaled boils slowly and becomes noisy over the years.

## Warranty

The warranty covers five years from the day of purchase. It ends when the seal under the base plate is broken by
anyone but the customer service. Keep the receipt: without it no repair is made free of charge.
"""
HANDBOOK = """
# 水壶使用手册

## 除垢

水壶每三个月需要除垢一次。加入清水和两勺柠檬酸,煮沸后静置二十分钟,然后用清水冲洗两遍。长期不除垢的水壶加热会变慢,
噪音也会越来越大,内壁的水垢还可能脱落到饮用水里,影响口感。

## 保修

本产品自购买之日起保修五年。底座封条被非授权人员拆开时,保修即告失效。请妥善保管购物凭证,没有凭证无法享受免费维修服务,
凭证遗失时可以联系客服补办电子凭证。
"""


@pytest.fixture(scope="module")
def manuals(service: Service) -> None:
    documents = [{"source": "kettle.md", "text": MANUAL}, {"source": "水壶.md", "text": HANDBOOK}]
    with service.client() as client:
        response = client.post("/knowledge/documents", json={"documents": documents})
    assert [each["status"] for each in response.json()["documents"]] == ["added", "added"], response.text


def test_the_missions_conversation(service: Service) -> None:
    shipped = service.ask("订单OD-20240502到哪了?", "mission")
    assert "已发货" in shipped["result"]
    assert [(call["name"], call["status"]) for call in shipped["tool_calls"]] == [("order_query", "ok")]
    assert "已付款" in service.ask("那OD-20240501呢?", "mission")["result"]
    assert "OD-20240502" in service.ask("我刚才问的第一个订单是哪个?", "mission")["result"]


def test_an_order_named_a_turn_earlier_is_understood(service: Service) -> None:
    service.ask("Where is my order OD-20240502?", "earlier")
    answer = service.ask("Has it shipped?", "earlier")
    assert answer["tool_calls"][0]["arguments"] == {"order_id": "OD-20240502"}
    assert "shipped" in answer["result"]


def test_an_unknown_order_does_not_exist(service: Service) -> None:
    assert "订单不存在" in service.ask("OD-20249999 发货了吗?", "unknown")["result"]


@pytest.mark.usefixtures("manuals")
@pytest.mark.parametrize(
    ("question", "source", "fact"),
    [
        ("How do I descale the kettle?", "kettle.md", "citric acid"),
        ("How long does the warranty last?", "kettle.md", "five years"),
        ("水壶怎么除垢?", "水壶.md", "柠檬酸"),
        ("保修期是多久?", "水壶.md", "五年"),
    ],
)
def test_a_question_is_answered_from_the_documents_with_citations(
    service: Service, question: str, source: str, fact: str
) -> None:
    answer = service.ask(question, f"manual-{hash(question)}".replace("-", "x"))
    assert fact in answer["result"]
    assert answer["citations"][0]["source"] == source
    assert fact in answer["citations"][0]["passage"]
    assert [call["name"] for call in answer["tool_calls"]] == ["knowledge_search"]


@pytest.mark.usefixtures("manuals")
def test_what_the_documents_do_not_say_is_not_made_up(service: Service) -> None:
    answer = service.ask("Who won the football world cup in 1998?", "nothing")
    assert answer["citations"] == []
    assert "found nothing" in answer["result"].lower() or "nothing" in answer["result"].lower()


def test_a_tool_that_a_user_brings_is_called(service: Service) -> None:
    answer = service.ask("Where is parcel PX-123456?", "parcel")
    assert [call["name"] for call in answer["tool_calls"]] == ["track_parcel"]
    assert "Hangzhou" in answer["result"]


def test_a_greeting_calls_nothing_and_names_the_offline_model(service: Service) -> None:
    answer = service.ask("你好", "greeting")
    assert answer["tool_calls"] == []
    assert answer["model"] == "offline"
    assert answer["usage"]["output_tokens"] > 0


def test_a_request_id_leads_to_the_run_or_to_why_the_turn_was_refused(service: Service) -> None:
    turn = {"user_input": "你好", "session_id": "traced"}
    with service.client() as client:
        run_id = client.post("/agent/chat", json=turn, headers={"X-Request-Id": "ran"}).json()["run_id"]
        refused = client.post("/agent/chat", json={**turn, "user_input": ""}, headers={"X-Request-Id": "refused"})
        assert refused.json()["error"]["reason"] == "invalid"
        logs = {name: _request_log(client, name) for name in ("ran", "refused")}
    assert (logs["ran"]["run_id"], logs["refused"]["run_id"]) == (run_id, None)
    assert "run_ended" in [line["event"] for line in logs["ran"]["lines"]]
    [line] = logs["refused"]["lines"]
    assert (line["event"], line["fields"]["reason"]) == ("turn_refused", "invalid")


def _request_log(client: httpx.Client, request_id: str) -> dict[str, Any]:
    """The log of the request, as soon as it is written."""
    give_up = time.monotonic() + 20
    while True:
        response = client.get(f"/admin/requests/{request_id}/logs")
        log = response.json()
        if response.status_code == 200 and {"turn_refused", "run_ended"} & {line["event"] for line in log["lines"]}:
            return log  # type: ignore[no-any-return]
        assert time.monotonic() < give_up, log
        time.sleep(0.1)


def test_a_session_can_be_read_and_deleted(service: Service) -> None:
    service.ask("OD-20240501?", "kept")
    with service.client() as client:
        session = client.get("/agent/sessions/kept").json()
        assert session["turns"] == 1
        assert session["exchanges"][0]["messages"][0] == {
            "role": "user",
            "content": "OD-20240501?",
            "tool_calls": [],
            "tool_call_id": None,
        }
        assert client.delete("/agent/sessions/kept").status_code == 204
        assert client.get("/agent/sessions/kept").status_code == 404


def test_a_stream_has_the_contracts_frames_in_order(service: Service) -> None:
    frames = _frames(service, "OD-20240502 到哪了?", "stream")
    assert [frame["id"] for frame in frames] == list(range(1, len(frames) + 1))
    names = [frame["event"] for frame in frames]
    assert names[:3] == ["run", "tool_call", "tool_result"]
    assert set(names[3:-1]) == {"token"}
    assert names[-1] == "answer"
    answer = frames[-1]["data"]
    assert "".join(frame["data"]["text"] for frame in frames if frame["event"] == "token") == answer["result"]
    assert frames[0]["data"] == {"run_id": answer["run_id"], "recovered": False}


def _frames(service: Service, text: str, session: str) -> list[dict[str, Any]]:
    body = {"user_input": text, "session_id": session, "stream": True}
    with service.client() as client, client.stream("POST", "/agent/chat", json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        raw = "".join(response.iter_text())
    frames = []
    for block in raw.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if fields:
            frames.append({"id": int(fields["id"]), "event": fields["event"], "data": json.loads(fields["data"])})
    return frames


def test_a_client_that_disconnects_disturbs_nobody_and_its_turn_is_remembered(service: Service) -> None:
    body = {"user_input": "OD-20240502?", "session_id": "leaver", "stream": True}
    with service.client() as client, client.stream("POST", "/agent/chat", json=body) as response:
        next(response.iter_raw())
    assert "已付款" in service.ask("OD-20240501?", "stayer")["result"]
    assert "OD-20240502" in service.ask("Which order did I ask about first?", "leaver")["result"]


def test_forty_sessions_of_five_turns_at_once_keep_to_themselves(service: Service) -> None:
    def converse(number: int) -> None:
        session, mine = f"crowd{number}", f"OD-3{number:07d}"
        assert mine in service.ask(f"Where is order {mine}?", session)["result"]
        for _ in range(3):
            answer = service.ask("Has it shipped?", session)
            assert [call["arguments"] for call in answer["tool_calls"]] == [{"order_id": mine}]
            assert answer["status"] == "success"
        assert mine in service.ask("Which order did I ask about?", session)["result"]

    with ThreadPoolExecutor(40) as pool:
        assert len(list(pool.map(converse, range(40)))) == 40


def test_turns_of_one_session_run_one_after_the_other(service: Service) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: service.ask(f"OD-2024000{number}?", "queue"), range(8)))
    with service.client() as client:
        session = client.get("/agent/sessions/queue").json()
    assert session["turns"] == 8
    assert all(len(exchange["messages"]) == 4 for exchange in session["exchanges"])
