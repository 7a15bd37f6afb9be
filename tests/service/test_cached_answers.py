"""The running service answers repeated questions without its model, over two agents."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from running_service import beside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from running_service import Service
    from stub_server import Stub

pytestmark = pytest.mark.long

EQUAL = 100
SLOW = "openai:slow@1"


@pytest.fixture(scope="module")
def keeping(service: Service, stub: Stub) -> Iterator[Service]:
    """Two agents that keep answers, before a model that takes a second a call; it calls the tool, and then answers."""
    orders = service.data_dir / "orders.json"
    orders.write_text(json.dumps({"OD-1": "lost at sea"}))
    configuration = {
        "model": {"name": SLOW, "base_url": stub.url},
        "cache": {"ttl_s": 600},
        "tools": {"order_query": {"function": "serve_app.tools.orders:order_query"}},
        "orders": {"file": str(orders)},
    }
    with beside(service, "keeping", configuration, Agent=2) as running:
        yield running


async def _ask_all(service: Service, questions: list[tuple[str, str]]) -> list[dict[str, Any]]:
    limits = httpx.Limits(max_connections=len(questions))
    async with httpx.AsyncClient(base_url=service.url, timeout=60, limits=limits, trust_env=False) as client:
        bodies = [{"user_input": text, "session_id": session} for text, session in questions]
        responses = await asyncio.gather(*(client.post("/agent/chat", json=body) for body in bodies))
    assert {response.status_code for response in responses} == {200}
    return [response.json() for response in responses]


def _calls(stub: Stub, text: str) -> int:
    """How often the model was asked the question; what a tool brought it is told in a second call."""
    return sum(body["messages"][-1]["content"] == text for _, body in stub.seen)


def test_a_hundred_equal_questions_at_once_cost_one_call_of_the_model_over_two_agents(
    keeping: Service, stub: Stub
) -> None:
    text = "What is said of this question?"
    answers = asyncio.run(_ask_all(keeping, [(text, f"equal-{number}") for number in range(EQUAL)]))
    assert _calls(stub, text) == 1
    assert Counter(answer["cached"] for answer in answers) == {True: EQUAL - 1, False: 1}
    assert len({answer["run_id"] for answer in answers}) == EQUAL
    assert {answer["result"] for answer in answers} == {"Hello from the stub."}


def test_a_kept_answer_is_remembered_and_streams_and_a_document_ends_it(keeping: Service, stub: Stub) -> None:
    text = "What is kept of this?"
    assert [keeping.ask(text, f"kept-{number}")["cached"] for number in range(2)] == [False, True]
    with keeping.client() as client:
        session = client.get("/agent/sessions/kept-1").json()
        assert session["turns"] == 1
        body = {"user_input": text, "session_id": "kept-stream", "stream": True}
        with client.stream("POST", "/agent/chat", json=body) as response:
            data = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
        assert json.loads(data[-1])["cached"] is True
        added = client.post(
            "/knowledge/documents", json={"documents": [{"source": "kept.md", "text": "# News\n\nYes."}]}
        )
        [document] = added.raise_for_status().json()["documents"]
        try:
            assert keeping.ask(text, "kept-3")["cached"] is False
            assert _calls(stub, text) == 2
        finally:
            client.delete(f"/knowledge/documents/{document['id']}").raise_for_status()
