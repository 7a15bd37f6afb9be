"""The clients that people have work as they come: OpenAI's own examples, LangChain, curl."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import openai
import pytest
from http_fakes import answer
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from openai_clients import HELLO, KEY, base_url

from serve_app.values import RunStarted, Token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from http_service import Service

SUNNY = [RunStarted(run_id=""), Token(text="It is "), Token(text="sunny."), answer("It is sunny.", "")]


async def test_the_synchronous_client_asks_and_streams_as_its_documentation_does(service: Service) -> None:
    def ask() -> tuple[str | None, str]:
        with openai.OpenAI(api_key=KEY, base_url=base_url(service)) as client:
            completion = client.chat.completions.create(
                model="serve_app",
                messages=[
                    {"role": "developer", "content": "Talk like a pirate."},
                    {"role": "user", "content": "How do I check if an instance has a method?"},
                ],
            )
            assert completion.serve_app["citations"] == []  # type: ignore[attr-defined]
            stream = client.chat.completions.create(model="serve_app", messages=HELLO, stream=True)
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            with client.chat.completions.with_streaming_response.create(model="serve_app", messages=HELLO) as response:
                assert response.headers.get("X-Request-Id")
                assert "chat.completion" in "".join(response.iter_lines())
            assert [model.id for model in client.models.list()] == ["serve_app"]
            return completion.choices[0].message.content, streamed

    service.agent.script = SUNNY
    assert await asyncio.to_thread(ask) == ("It is sunny.", "It is sunny.")
    assert service.agent.received[0][1].instructions == "Talk like a pirate."


async def test_the_clients_stream_helper_gathers_the_whole_completion(service: Service) -> None:
    service.agent.script = SUNNY
    async with openai.AsyncOpenAI(api_key=KEY, base_url=base_url(service)) as client:
        manager = client.chat.completions.stream(
            model="serve_app", messages=HELLO, stream_options={"include_usage": True}
        )
        async with manager as stream:
            kinds = {event.type async for event in stream}
            completion = await stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert completion.choices[0].message.content == "It is sunny."
    assert completion.usage is not None


@asynccontextmanager
async def langchain(service: Service, **options: Any) -> AsyncIterator[ChatOpenAI]:
    """LangChain's model; it leaves its connections to the garbage collector."""
    model = ChatOpenAI(model="serve_app", api_key=KEY, base_url=base_url(service), **options)  # type: ignore[arg-type]
    yield model
    await model.root_async_client.close()
    model.root_client.close()


@pytest.mark.parametrize("options", [{}, {"streaming": True, "stream_usage": True}])
async def test_langchain_asks_with_history_and_hears_the_answer(service: Service, options: dict[str, bool]) -> None:
    service.agent.script = SUNNY
    messages = [SystemMessage("Be brief."), HumanMessage("Hello"), AIMessage("Hello!"), HumanMessage("Is it sunny?")]
    async with langchain(service, **options) as model:
        reply = await model.ainvoke(messages)
        chunks = [chunk.text async for chunk in model.astream([*messages, reply, HumanMessage("And now?")])]
    assert (reply.text, reply.response_metadata["finish_reason"]) == ("It is sunny.", "stop")
    assert reply.usage_metadata is not None
    (_, request), (_, again) = service.agent.received
    assert (request.instructions, request.user_input, request.stream) == ("Be brief.", "Is it sunny?", bool(options))
    assert [message.content for message in request.history] == ["Hello", "Hello!"]  # type: ignore[attr-defined]
    assert [message.content for message in again.history[2:]] == ["Is it sunny?", "It is sunny."]  # type: ignore[attr-defined]
    assert [text for text in chunks if text] == ["It is ", "sunny."]


async def test_langchain_names_a_session_in_metadata(service: Service) -> None:
    async with langchain(service, extra_body={"metadata": {"session_id": "s9"}}) as model:
        await model.ainvoke("Hello")
    assert service.agent.received[0][0].session_id == "s9"


async def test_langchain_raises_what_names_the_field(service: Service) -> None:
    async with langchain(service, temperature=0.2) as model:
        with pytest.raises(openai.BadRequestError, match="'temperature' is not supported here; leave it out"):
            await model.ainvoke("Hello")


async def test_curl_asks_streams_and_is_refused(service: Service) -> None:
    service.agent.script = SUNNY
    body = {"model": "serve_app", "messages": HELLO}
    assert json.loads(await _curl(service, body))["choices"][0]["message"]["content"] == "It is sunny."
    *_, done = (await _curl(service, {**body, "stream": True})).strip().split("\n\n")
    assert done == "data: [DONE]"
    assert json.loads(await _curl(service, {**body, "seed": 7}))["error"]["param"] == "seed"


async def _curl(service: Service, body: dict[str, object]) -> str:
    headers = ("-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {KEY}")
    command = ("curl", "-sSN", "--noproxy", "*", f"{base_url(service)}/chat/completions", *headers)
    curl = await asyncio.create_subprocess_exec(*command, "-d", json.dumps(body), stdout=asyncio.subprocess.PIPE)
    out, _ = await curl.communicate()
    assert curl.returncode == 0
    return out.decode()
