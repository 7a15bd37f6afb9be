"""The model over real HTTP: what it sends, what it gives, how it fails, and that it leaves nothing open."""

from __future__ import annotations

import asyncio
import copy
import gc
import gzip
import json
import pickle
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from pydantic import SecretStr
from scripted_provider import Answer, Stub, call, chunk, events, serving, streamed, whole

from serve_app.llm.openai_compatible.chat_model import OpenAICompatibleModel
from serve_app.llm.openai_compatible.endpoint_profile import PROFILES, find_profile
from serve_app.llm.openai_compatible.provider_error import (
    ConnectionFailed,
    ProviderError,
    ReplyIncomplete,
    ReplyUnreadable,
    TimedOut,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
from serve_app.llm.openai_compatible.transport import LINGER_S

STREAM = "text/event-stream"


@pytest.fixture
def provider() -> Iterator[Stub]:
    with serving() as stub:
        yield stub


def model(provider: Stub, **more: Any) -> OpenAICompatibleModel:
    return OpenAICompatibleModel(model="m", base_url=provider.url, **{"timeout_s": 5.0, **more})


async def gathered(client: OpenAICompatibleModel, messages: Any = "hi", **more: Any) -> AIMessageChunk:
    full: AIMessageChunk | None = None
    async for piece in client.astream(messages, **more):
        full = piece if full is None else full + piece
    assert full is not None
    return full


async def test_streamed_or_whole_the_message_is_the_same(provider: Stub) -> None:
    calls = [call("wipe", '{"limit": 1}'), call("pay", '{"amount": 5', "call_b"), call("give", "[1]", "call_c")]
    message = {"content": "北京 😀", "tool_calls": calls}
    for finish in ("tool_calls", "length"):

        def script(body: dict[str, Any], finish: str = finish) -> Answer:
            made = streamed(message, finish) if body.get("stream") else whole(message, finish)
            return Answer([made], content_type=STREAM if body.get("stream") else "application/json")

        provider.script = script
        one, other = await model(provider).ainvoke("hi"), await gathered(model(provider))
        always = await model(provider, stream_always=True).ainvoke("hi")
        for name in ("content", "tool_calls", "invalid_tool_calls", "usage_metadata", "response_metadata"):
            assert getattr(one, name) == getattr(other, name) == getattr(always, name), name
        if finish == "tool_calls":
            assert [each["args"] for each in one.tool_calls] == [{"limit": 1}]
            assert [json.loads(each["args"]) for each in one.invalid_tool_calls] == ['{"amount": 5', "[1]"]
        else:
            assert not one.tool_calls
            assert one.response_metadata["cut_calls"] == 3


async def test_an_answer_of_the_other_kind_is_taken(provider: Stub) -> None:
    provider.script = lambda _: Answer([whole({"content": "whole"})])
    assert (await gathered(model(provider))).content == "whole"
    provider.script = lambda _: Answer([streamed({"content": "streamed"})], content_type=STREAM)
    assert (await model(provider).ainvoke("hi")).content == "streamed"


async def test_the_request_holds_what_was_asked_as_the_profile_wants_it(provider: Stub) -> None:
    client = model(
        provider,
        api_key=SecretStr("key"),
        endpoint_profile=PROFILES["openai"],
        temperature=0.5,
        top_p=0.9,
        seed=7,
        max_tokens=100,
        stop=["END"],
        reasoning_effort="low",
        extra_body={"user": "me"},
        extra_headers={"X-Team": "a"},
    )
    image = {"type": "image", "base64": "AAAA", "mime_type": "image/png"}
    lone = {"name": "give", "args": {"kind": "x\ud83d", "ratio": float("nan")}, "id": "c1"}
    bad = {"name": "pay", "args": '"{\\"amount"', "id": "c2", "error": None, "type": "invalid_tool_call"}
    messages = [
        SystemMessage("be kind"),
        HumanMessage([{"type": "text", "text": "what is it?"}, image]),
        AIMessage("", tool_calls=[lone], invalid_tool_calls=[bad], additional_kwargs={"reasoning_content": "hm"}),
        ToolMessage([{"type": "text", "text": "a\ud83d\ude00"}], tool_call_id="c1"),
        ToolMessage("no", tool_call_id="c2"),
        AIMessage("done", additional_kwargs={"reasoning_content": "not sent"}),
        HumanMessage("and now?"),
    ]
    await client.ainvoke(messages)
    await gathered(client, messages)
    body, streamed_body = provider.bodies
    assert streamed_body.pop("stream") is True
    assert streamed_body.pop("stream_options") == {"include_usage": True}
    assert streamed_body == body
    sent = body.pop("messages")
    assert body == {
        "model": "m",
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "max_completion_tokens": 100,
        "stop": ["END"],
        "reasoning_effort": "low",
        "user": "me",
    }
    assert sent[1]["content"][1] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert (sent[2]["content"], sent[2]["reasoning_content"]) == (None, "hm")
    arguments = [json.loads(each["function"]["arguments"]) for each in sent[2]["tool_calls"]]
    assert arguments == [{"kind": "x\ufffd", "ratio": None}, {"unreadable_arguments": '"{\\"amount"'}]
    assert sent[3] == {"role": "tool", "tool_call_id": "c1", "content": "a😀"}
    assert sent[5] == {"role": "assistant", "content": "done"}
    headers = provider.headers[0]
    assert (headers["Authorization"], headers["X-Team"]) == ("Bearer key", "a")
    await model(provider).ainvoke("hi")
    assert "Authorization" not in provider.headers[-1]


async def test_a_model_without_images_reads_a_note_in_their_place(provider: Stub) -> None:
    deepseek = model(provider, endpoint_profile=PROFILES["deepseek"])
    await deepseek.ainvoke([HumanMessage([{"type": "image_url", "image_url": {"url": "http://x/y.png"}}])])
    [part] = provider.bodies[0]["messages"][0]["content"]
    assert part["type"] == "text"


async def test_stream_options_that_are_refused_are_not_sent_again(provider: Stub) -> None:
    def script(body: dict[str, Any]) -> Answer:
        if "stream_options" in body:
            error = {"error": {"message": "stream_options: Extra inputs are not permitted"}}
            return Answer([json.dumps(error).encode()], status=400)
        return Answer([streamed({"content": "fine"})], content_type=STREAM)

    provider.script = script
    client = model(provider)
    assert [(await gathered(client)).content for _ in range(2)] == ["fine", "fine"]
    assert ["stream_options" in body for body in provider.bodies] == [True, False, False]
    await gathered(model(provider, stream_usage=False))
    assert "stream_options" not in provider.bodies[-1]


async def test_a_profile_is_guessed_by_the_host_and_knows_the_models_that_only_stream() -> None:
    guesses = {
        None: "openai",
        "https://open.bigmodel.cn/api/paas/v4": "zhipu",
        "https://dashscope.aliyuncs.com/compatible-mode/v1": "dashscope",
        "https://api.deepseek.com": "deepseek",
        "https://api.moonshot.cn/v1": "moonshot",
        "https://api.siliconflow.cn/v1": "siliconflow",
        "http://127.0.0.1:11434/v1": "ollama",
        "https://notdeepseek.example/v1": "generic",
    }
    for url, name in guesses.items():
        assert find_profile(url, "m").name == name, url
    url = "https://dashscope.aliyuncs.com/compatible-mode/v1"
    assert find_profile(url, "qwen3-32b").whole_extra_body == {"enable_thinking": False}
    assert find_profile(url, "qwq-32b").stream_only


async def test_what_a_provider_refuses_is_raised_with_its_status_code_words_and_wait(provider: Stub) -> None:
    openai = {"error": {"message": "busy", "type": "rate_limit", "code": None}}
    cases: list[tuple[int, Any, dict[str, str], tuple[str, str, float | None]]] = [
        (429, openai, {"Retry-After": "7"}, ("rate_limit", "busy", 7.0)),
        (429, openai, {"retry-after-ms": "1500", "Retry-After": "9"}, ("rate_limit", "busy", 1.5)),
        (503, {"message": "down", "code": 12}, {"Retry-After": "soon"}, ("12", "down", None)),
        (400, {"error": {"code": "1261", "message": "超长"}}, {}, ("1261", "超长", None)),
        (402, {"error": "no money"}, {}, ("", "no money", None)),
        (403, "<html>blocked</html>", {}, ("", "<html>blocked</html>", None)),
        (500, "", {}, ("", "status 500", None)),
        (302, "", {"Location": "http://127.0.0.1:1/"}, ("", "status 302", None)),
    ]
    for status, body, headers, expected in cases:
        raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        provider.script = lambda _, raw=raw, status=status, headers=headers: Answer([raw], status, headers=headers)
        for ask in (model(provider).ainvoke("hi"), gathered(model(provider))):
            with pytest.raises(ProviderError) as caught:
                await ask
            error = pickle.loads(pickle.dumps(caught.value))
            assert (error.status, (error.code, error.text, error.retry_after_s)) == (status, expected)
    headers = {"Retry-After": formatdate(time.time() + 60, usegmt=True)}
    provider.script = lambda _: Answer([b"{}"], 503, headers=headers)
    with pytest.raises(ProviderError) as caught:
        await model(provider).ainvoke("hi")
    assert caught.value.retry_after_s == pytest.approx(60, abs=3)


async def test_a_connection_that_fails_is_told_from_a_time_out_and_from_a_broken_reply(provider: Stub) -> None:
    half = events(chunk({"content": "half of "}), done=False)
    cases: list[tuple[Answer, type[ProviderError]]] = [
        (Answer([half], content_type=STREAM, cut=True), ConnectionFailed),
        (Answer([half], content_type=STREAM), ReplyIncomplete),
        (Answer([half, half], content_type=STREAM, pause_s=3.0), TimedOut),
        (Answer([b"<html></html>"], content_type="text/html"), ReplyUnreadable),
        (Answer([b""]), ReplyUnreadable),
    ]
    for answer, kind in cases:
        provider.script = lambda _, answer=answer: answer
        for ask in (model(provider, timeout_s=0.5).ainvoke("hi"), gathered(model(provider, timeout_s=0.5))):
            with pytest.raises(ProviderError) as caught:
                await ask
            assert type(caught.value) is kind, answer
    nobody = OpenAICompatibleModel(model="m", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ConnectionFailed):
        await nobody.ainvoke("hi")


async def test_a_stream_that_breaks_after_its_finish_reason_is_whole(provider: Stub) -> None:
    ended = events(chunk({"content": "all of it"}, "stop"), done=False)
    provider.script = lambda _: Answer([ended], content_type=STREAM, pause_s=0.2, cut=True)
    assert (await gathered(model(provider))).content == "all of it"


async def test_connections_are_kept_and_compressed_answers_read(provider: Stub) -> None:
    client = model(provider)
    for _ in range(3):
        await client.ainvoke("hi")
        await gathered(client)
    assert len(set(provider.peers)) == 1
    packed = gzip.compress(streamed({"content": "packed"}))
    headers = {"Content-Encoding": "gzip"}
    provider.script = lambda _: Answer([packed[:20], packed[20:]], content_type=STREAM, headers=headers)
    assert (await gathered(client)).content == "packed"


async def test_a_call_that_is_cancelled_or_left_closes_its_connection(provider: Stub) -> None:
    pieces = [events(chunk({"content": "x"}), done=False)] * 100
    provider.script = lambda _: Answer(pieces, content_type=STREAM, pause_s=0.05)
    client = model(provider, timeout_s=60)
    parts = client.astream("hi")
    await anext(parts)
    await parts.aclose()
    assert await asyncio.to_thread(provider.disconnected.wait, 2)
    for ask in (gathered(client), client.ainvoke("hi")):
        provider.disconnected.clear()
        task = asyncio.create_task(ask)
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(provider.disconnected.wait, 2)


def test_event_loops_and_models_that_end_leave_nothing_open(provider: Stub) -> None:
    client = model(provider)
    for _ in range(2):
        assert asyncio.run(client.ainvoke("hi")).content
    assert client.invoke("hi").content

    async def dropped(after_s: float) -> None:
        await model(provider).ainvoke("hi")
        gc.collect()
        await asyncio.sleep(after_s)

    for after_s in (0.0, 2 * LINGER_S):
        asyncio.run(dropped(after_s))
        gc.collect()


async def test_a_copy_asks_like_the_original(provider: Stub) -> None:
    client = model(provider, api_key=SecretStr("key"))
    await client.ainvoke("hi")
    for other in (copy.deepcopy(client), pickle.loads(pickle.dumps(client)), client.model_copy()):
        assert (await other.ainvoke("hi")).content
    assert {each["Authorization"] for each in provider.headers} == {"Bearer key"}
    assert "key" not in repr(client).replace("api_key", "")


async def test_the_proxy_of_the_environment_is_used(provider: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", provider.url.removesuffix("/v1"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    client = OpenAICompatibleModel(model="m", base_url="http://provider.invalid/v1", timeout_s=5)
    assert (await client.ainvoke("hi")).content
    assert provider.headers[0]["Host"] == "provider.invalid"
    monkeypatch.setenv("no_proxy", "provider.invalid")
    with pytest.raises(ConnectionFailed):
        await OpenAICompatibleModel(model="m", base_url="http://provider.invalid/v1", timeout_s=5).ainvoke("hi")


async def test_a_thought_is_shown_apart_from_the_text(provider: Stub) -> None:
    thought = [
        chunk({"reasoning_content": "hm, "}),
        chunk({"reasoning_content": "so"}),
        chunk({"content": "yes"}, "stop"),
    ]
    provider.script = lambda _: Answer([events(*thought)], content_type=STREAM)
    for made in (await gathered(model(provider)), await model(provider).ainvoke("hi")):
        assert (made.content, made.additional_kwargs) == ("yes", {"reasoning_content": "hm, so"})
