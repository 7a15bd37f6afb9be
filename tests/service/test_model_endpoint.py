"""The service with a model endpoint on loopback that speaks OpenAI's protocol."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from running_service import beside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from running_service import Service
    from stub_server import Stub


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def modelled(service: Service, stub: Stub) -> Iterator[Service]:
    """The service with a model that takes 0.15 s for each word."""
    tools = {"order_query": {"function": "serve_app.tools.orders:order_query"}}
    orders = {"file": str(service.data_dir / "orders.json")}
    (service.data_dir / "orders.json").write_text(json.dumps({"OD-1": "lost at sea"}))
    model = {"name": "openai:drips", "base_url": stub.url}
    with beside(service, "modelled", {"model": model, "tools": tools, "orders": orders}) as running:
        yield running


def test_a_model_by_name_calls_the_tools_and_answers(modelled: Service, stub: Stub) -> None:
    answer = modelled.ask("Where is my order?", "stub")
    assert (answer["result"], answer["model"]) == ("Hello from the stub.", "openai:drips")
    assert [(call["name"], call["status"]) for call in answer["tool_calls"]] == [("order_query", "ok")]
    assert answer["usage"] == {"input_tokens": 22, "output_tokens": 14}
    _, body = stub.seen[-1]
    assert "lost at sea" in body["messages"][-1]["content"]


def test_the_first_token_arrives_before_the_model_has_finished(modelled: Service) -> None:
    body = {"user_input": "hello", "session_id": "stub-stream", "stream": True}
    with modelled.client() as client, client.stream("POST", "/agent/chat", json=body) as response:
        lines = [(line, time.monotonic()) for line in response.iter_lines()]
    seen = [(line.removeprefix("event: "), at) for line, at in lines if line.startswith("event: ")]
    first_token = next(at for name, at in seen if name == "token")
    assert seen[-1][0] == "answer"
    assert seen[-1][1] - first_token > 0.3
    assert sum(name == "token" for name, _ in seen) == 4


def test_a_model_that_fails_is_a_503_without_the_providers_words(service: Service, stub: Stub) -> None:
    model = {"name": "openai:broken", "base_url": stub.url, "attempts": 1}
    with beside(service, "failing", {"model": model}) as failing, failing.client() as client:
        response = client.post("/agent/chat", json={"user_input": "hello", "session_id": "broken"})
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "model_unavailable"
    assert response.headers["retry-after"]
    assert "sk-123" not in response.text
