"""A second model answers where the first one's reply is none, is too short a memory's, or is refused for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from agent_in_process import InProcessAgent, open_agent, use_data_dir
from replies_of_calls import OWL
from reply_bytes import ModelReply, call, calls, error, streamed, text, whole
from reply_kinds import NEXT, NEXT_ANSWER, closing_reply, plain_reply
from strict_provider import HttpReply, run_provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from strict_provider import ModelRequest, StrictProvider

    First = Callable[[ModelRequest], HttpReply]

SECOND = "The second one answers."
FALLBACKS = [{"name": "openai:second", "timeout_s": 5}]


def _framed(ask: ModelRequest, model_reply: ModelReply) -> HttpReply:
    return streamed(model_reply) if ask.stream else whole(model_reply)


FIRSTS: dict[str, tuple[First, int]] = {
    "too long for it": (lambda ask: error(400, "too long", "context_length_exceeded"), 1),
    "no money": (lambda ask: error(429, "You exceeded your current quota", "insufficient_quota"), 1),
    "wrong key": (lambda ask: error(401, "Incorrect API key provided", "invalid_api_key"), 1),
    "no such model": (lambda ask: error(404, "no such model", "model_not_found"), 1),
    "refused request": (lambda ask: error(400, "does not like it"), 1),
    "broken JSON": (lambda ask: HttpReply((b'{"id": "x", "choi',)), 2),
    "cut off before its words": (lambda ask: _framed(ask, text("", "length")), 2),
    "a call that was cut off": (lambda ask: _framed(ask, calls(call("book", ""), finish="length")), 2),
    "busy": (lambda ask: error(503, "busy"), 2),
}
"""What the first model replies, and how often it may be asked."""


@pytest.fixture
async def pair(redis_url: str, tmp_path: Path) -> AsyncIterator[InProcessAgent]:
    with use_data_dir(tmp_path), run_provider(lambda ask: plain_reply(ask, NEXT_ANSWER)) as provider:
        fallbacks = [{**each, "base_url": provider.url} for each in FALLBACKS]
        async with open_agent(redis_url, provider, fallbacks=fallbacks) as opened:
            yield opened


def _answer(provider: StrictProvider, first: First) -> None:
    def answer(ask: ModelRequest) -> HttpReply:
        if ask.user == NEXT:
            return plain_reply(ask, NEXT_ANSWER)
        return first(ask) if ask.body["model"] == "odd" else plain_reply(ask, SECOND)

    provider.answer = answer


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_the_fallback_answers_for_a_first_model_that_cannot(pair: InProcessAgent, stream: bool) -> None:  # noqa: FBT001
    found: dict[str, Any] = {}
    for name, (first, most) in FIRSTS.items():
        _answer(pair.provider, first)
        session = name.replace(" ", "-")
        response = await pair.ask(name, session, stream=stream)
        after = await pair.ask(NEXT, session, stream=stream)
        odd_requests = sum(each.user == name and each.body["model"] == "odd" for each in pair.provider.requests)
        seen = response.body.get("result"), response.body.get("degraded"), after.outcome
        if seen != (SECOND, ["model"], "success") or odd_requests > most:
            found[name] = (response.body, after.body, odd_requests)
    assert not found
    assert not pair.provider.refused
    assert not pair.provider.failures


async def test_a_call_of_the_first_model_is_told_to_the_second_one_in_a_form_that_it_takes(
    pair: InProcessAgent,
) -> None:
    thought = {"reasoning_content": "MUSING", "tool_calls": [call("look_up", OWL, "chatcmpl-tool-" + "7e" * 20)]}
    model_reply = ModelReply(message={"role": "assistant", "content": None, **thought}, finish="tool_calls")

    def answer(ask: ModelRequest) -> HttpReply:
        if ask.body["model"] == "second":
            return _framed(ask, closing_reply(ask))
        return error(503, "busy") if ask.step else _framed(ask, model_reply)

    pair.provider.answer = answer
    response = await pair.ask("look the owl up", "s", stream=True)
    assert ("page 7" in response.body["result"], response.body["degraded"]) == (True, ["model"])
    assert not pair.provider.refused


async def test_a_refusal_goes_to_the_fallback_only_where_the_settings_say_so(
    redis_url: str, tmp_path: Path, pair: InProcessAgent
) -> None:
    _answer(pair.provider, lambda ask: _framed(ask, text("", "content_filter")))
    response = await pair.ask("say it", "s", stream=False)
    assert (response.body["finish_reason"], response.body["result"] == SECOND) == ("content_filter", False)
    fallbacks = [{**each, "base_url": pair.provider.url} for each in FALLBACKS]
    async with open_agent(redis_url, pair.provider, fallbacks=fallbacks, fallback_on=("refusal",)) as other:
        response = await other.ask("say it", "t", stream=False)
    assert response.body["result"] == SECOND
