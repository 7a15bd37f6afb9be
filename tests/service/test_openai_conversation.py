"""A conversation with OpenAI's client, with and without stored memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import openai
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from running_service import Service

FIRST, THEN, WHICH = "Where is order OD-20240502?", "Has it shipped?", "Which order did I ask about first?"


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="sk-none-is-asked-for", base_url=f"{service.url}/v1") as client:
        yield client


def _messages(*texts: str) -> list[Any]:
    return [{"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(texts)]


def _answer(client: openai.OpenAI, *texts: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    completion = client.chat.completions.create(model="serve_app", messages=_messages(*texts), **fields)
    assert completion.usage is not None
    assert completion.usage.total_tokens > 0
    ours: dict[str, Any] = completion.model_extra["serve_app"]  # type: ignore[index]
    return completion.choices[0].message.content or "", ours


def test_a_session_remembers_what_its_messages_leave_out(client: openai.OpenAI, service: Service) -> None:
    session = {"metadata": {"session_id": "openai-session"}}
    _, ours = _answer(client, FIRST, **session)
    assert [(call["name"], call["status"]) for call in ours["tool_calls"]] == [("order_query", "ok")]
    text, ours = _answer(client, THEN, **session)
    assert ours["tool_calls"][0]["arguments"] == {"order_id": "OD-20240502"}
    assert "shipped" in text
    assert "OD-20240502" in service.ask(WHICH, "openai-session")["result"]


def test_without_a_session_the_messages_are_all_that_is_known(client: openai.OpenAI, service: Service) -> None:
    first, ours = _answer(client, FIRST)
    assert ours["session_id"] is None
    text, ours = _answer(client, FIRST, first, THEN)
    assert ours["tool_calls"][0]["arguments"] == {"order_id": "OD-20240502"}
    assert "shipped" in text
    assert "OD-2024" not in _answer(client, WHICH)[0]
    with service.client() as http:
        run = http.get(f"/agent/runs/{ours['run_id']}").json()
        assert (run["status"], run["session_id"]) == ("success", "")
        vote = http.post("/agent/feedback", json={"run_id": ours["run_id"], "rating": "up"})
        assert vote.status_code == 200, vote.text


def test_a_stream_is_the_answer_word_by_word(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="serve_app", messages=_messages(FIRST), stream=True, stream_options={"include_usage": True}
        )
    )
    deltas = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert deltas
    assert "OD-20240502" in "".join(deltas)
    assert "result" not in chunks[-2].model_extra["serve_app"]  # type: ignore[index]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens > 0


def test_twenty_callers_at_once_keep_to_themselves(service: Service) -> None:
    async def ask(client: openai.AsyncOpenAI, number: int) -> None:
        mine = f"OD-4{number:07d}"
        messages = _messages(f"Where is order {mine}?", f"{mine} is on its way.", "Which order did I ask about?")
        completion = await client.chat.completions.create(model="serve_app", messages=messages)
        assert mine in (completion.choices[0].message.content or "")

    async def all_at_once() -> None:
        async with openai.AsyncOpenAI(api_key="sk-none-is-asked-for", base_url=f"{service.url}/v1") as client:
            await asyncio.gather(*(ask(client, number) for number in range(20)))

    asyncio.run(all_at_once())


def test_what_is_refused_is_raised_through_serve_too(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="'seed' is not supported here") as wrong:
        client.chat.completions.create(model="serve_app", messages=_messages(FIRST), seed=1)
    assert wrong.value.param == "seed"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")
    [model] = client.models.list()
    assert model.model_extra == {"serve_app": {"model": "offline"}}
