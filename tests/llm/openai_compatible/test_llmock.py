"""An independent provider, PyPI's `llmock`, breaks its answers; its journal judges the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from llmock.pytest_plugin import LLMock
from llmock.testing import LLMockServer

from serve_app.llm.openai_compatible.chat_model import OpenAICompatibleModel
from serve_app.llm.openai_compatible.provider_error import (
    ConnectionFailed,
    ProviderError,
    ReplyIncomplete,
    ReplyUnreadable,
    TimedOut,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def judge() -> Iterator[LLMock]:
    with LLMockServer() as server:
        yield LLMock(server)


@pytest.fixture
def model(judge: LLMock) -> OpenAICompatibleModel:
    return OpenAICompatibleModel(model="gpt-4o", base_url=judge.base_url("openai"), timeout_s=2.0)


async def _text(model: OpenAICompatibleModel) -> str:
    return "".join([str(piece.content) async for piece in model.astream("Tell me a story in many words.")])


async def test_well_it_answers_both_ways(judge: LLMock, model: OpenAICompatibleModel) -> None:
    assert (await model.ainvoke("hi")).content
    assert await _text(model)
    assert judge.verdict().passed


async def test_each_broken_stream_is_an_error_of_its_kind_asked_once(
    judge: LLMock, model: OpenAICompatibleModel
) -> None:
    for broken, kind in (
        (judge.truncate, ReplyIncomplete),
        (judge.disconnect, ConnectionFailed),
        (judge.corrupt, ReplyUnreadable),
        (judge.stall, TimedOut),
    ):
        judge.reset()
        broken()
        with pytest.raises(ProviderError) as caught:
            await _text(model)
        assert type(caught.value) is kind
        assert len(judge.requests) == 1


async def test_each_refusal_is_raised_at_once_with_its_wait(judge: LLMock, model: OpenAICompatibleModel) -> None:
    for status, wait in ((429, 3.0), (503, 1.5), (401, None), (400, None)):
        judge.reset()
        judge.fail(status, retry_after=wait)
        with pytest.raises(ProviderError) as caught:
            await model.ainvoke("hi")
        assert (caught.value.status, caught.value.retry_after_s) == (status, wait)
        assert len(judge.requests) == 1
