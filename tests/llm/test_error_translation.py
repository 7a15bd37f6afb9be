"""Failures of providers are recognised by their words and codes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from serve_app.errors import ModelUnavailable, ServeAppError
from serve_app.llm.error_translation import (
    ContentFiltered,
    ContextOverflow,
    KeyRefused,
    ModelBusy,
    ModelRefused,
    QuotaSpent,
    RequestRefused,
    ToolsRefused,
    translate_errors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


class ProviderFailure(Exception):
    """What a provider's package raises."""

    def __init__(self, status: int | None, code: str, text: str) -> None:
        super().__init__(text)
        self.status_code, self.code = status, code


SAYINGS: dict[type[ServeAppError], tuple[tuple[int | None, str, str], ...]] = {
    ContextOverflow: (
        (400, "context_length_exceeded", "This model's maximum context length is 8192 tokens."),
        (400, "", "prompt is too long: 210000 tokens > 200000 maximum"),
        (400, "", "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
        (400, "1261", "Prompt 超长"),
        (400, "invalid_parameter_error", "Range of input length should be [1, 30720]"),
        (400, "", "Invalid request: Your request exceeded model token limit: 8192"),
        (400, "exceed_context_size_error", "the request exceeds the available context size, try increasing it"),
        (413, "", "Please reduce the length of the messages or completion."),
        (400, "ValidationException", "Input is too long for requested model. The model's maximum context is smaller"),
        (500, "", "input length exceeds the context length"),
        (400, "BadRequestError", "The decoder prompt (length 9000) is longer than the maximum model length of 8192."),
        (
            413,
            "rate_limit_exceeded",
            "Request too large for model: Limit 6000, Requested 9000, reduce your message size",
        ),
        (422, "", "This endpoint's maximum context length is 16384 tokens."),
    ),
    QuotaSpent: (
        (429, "insufficient_quota", "You exceeded your current quota, please check your plan and billing details."),
        (402, "", "Insufficient Balance"),
        (429, "1113", "您的账户已欠费，请充值后重试"),
        (400, "Arrearage", "Access denied, please make sure your account is in good standing."),
        (400, "invalid_request_error", "Your credit balance is too low to access the API."),
        (403, "30001", "Sorry, your account balance is insufficient"),
    ),
    KeyRefused: (
        (401, "invalid_api_key", "Incorrect API key provided"),
        (401, "", "anything at all"),
        (400, "", "API key not valid. Please pass a valid API key."),
        (401, "1002", "Authorization Token 非法"),
        (401, "authentication_error", "invalid x-api-key"),
    ),
    ContentFiltered: (
        (400, "content_filter", "The response was filtered due to the prompt triggering content management policy."),
        (400, "1301", "系统检测到输入或生成内容可能包含不安全或敏感内容"),
        (400, "data_inspection_failed", "Input data may contain inappropriate content."),
        (400, "content_filter", "The request was rejected because it was considered high risk"),
        (None, "DataInspectionFailed", "Output data may contain inappropriate content."),
    ),
    ToolsRefused: (
        (400, "", "registry.ollama.ai/library/gemma:2b does not support tools"),
        (404, "", "No endpoints found that support tool use: tool use is not supported"),
        (400, "", '"auto" tool choice requires --enable-auto-tool-choice'),
    ),
    ModelBusy: (
        (429, "rate_limit_exceeded", "Rate limit reached"),
        (None, "1302", "您当前使用该 API 的并发数过高"),
        (400, "Throttling.RateQuota", "Requests rate limit exceeded"),
        (429, "", "You exceeded your current quota. https://ai.google.dev/gemini-api/docs/rate-limits"),
        (None, "429", "Provider returned error"),
    ),
    ModelUnavailable: ((500, "", "engine died"), (529, "overloaded_error", "Overloaded"), (None, "503", "busy")),
    RequestRefused: ((400, "invalid_request_error", "Unknown parameter: 'x'"),),
    ModelRefused: ((403, "", "blocked"), (404, "model_not_found", "model not found")),
}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.WARNING):
        yield


def test_what_a_provider_says_is_understood_in_its_own_words() -> None:
    for kind, sayings in SAYINGS.items():
        for saying in sayings:
            with pytest.raises(ServeAppError) as raised, translate_errors():
                raise ProviderFailure(*saying)
            assert type(raised.value) is kind, saying


def test_a_provider_s_words_stand_masked_in_the_log_and_in_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    words = "no such model \ud83d, ask bob@example.com with key sk-abcdefghijklmnop1234"
    with pytest.raises(ServeAppError) as raised, translate_errors():
        raise ProviderFailure(404, "model_not_found", words)
    assert "no such model" not in raised.value.message
    logged = str(caplog.records[-1].__dict__["provider_text"])
    assert "no such model" in logged
    assert "bob@example.com" not in logged
    assert "sk-abcdefghijklmnop1234" not in logged
    logged.encode()


def test_a_fault_of_our_own_is_no_provider_s_refusal() -> None:
    with pytest.raises(ModelUnavailable) as raised, translate_errors():
        raise ValueError("prompt is too long, said a library")
    assert raised.value.retryable
