"""Codes and words in the errors of providers, by kind of failure.

Each entry comes from replies of a provider: OpenAI, Azure, Anthropic, Gemini, Zhipu, DashScope, Moonshot, DeepSeek,
vLLM, llama.cpp, Ollama, Groq, Bedrock. Patterns are searched in the text in lower case; codes are compared
whole, in lower case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

OVERFLOW_STATUSES = frozenset({None, 400, 413, 422, 500})
REQUEST_STATUSES = frozenset({400, 413, 422})


@dataclass(frozen=True, slots=True)
class ErrorSigns:
    """The codes and words of one kind of failure."""

    codes: frozenset[str]
    words: re.Pattern[str] = field(repr=False)

    def names(self, code: str, text: str) -> bool:
        """Returns whether a code or text is of this kind."""
        return code.lower() in self.codes or bool(self.words.search(text.lower()))


def _signs(codes: str, *words: str) -> ErrorSigns:
    return ErrorSigns(frozenset(codes.split()), re.compile("|".join(words)))


OVERFLOW = _signs(
    "context_length_exceeded exceed_context_size_error 1261 model_context_window_exceeded string_above_max_length "
    "context_window_exceeded request_too_large",
    r"context[ _](?:length|window|size)",
    r"maximum context",
    r"(?:prompt|input|message|request|conversation)s? (?:is|are|was) too (?:long|large)",
    r"prompt 超长",
    r"range of input length should be",
    r"exceeded model token limit",
    r"input (?:token count|tokens?)[^.]{0,60}exceeds?",
    r"exceeds? the (?:maximum|available|model'?s?)[^.]{0,40}(?:tokens?|context|input|length)",
    r"too many (?:input |total |prompt )?tokens",
    r"reduce the length of the (?:messages|prompt|input)",
    r"longer than the (?:model'?s context|maximum model length)",
    r"request too large for model|reduce your message size",
    r"total (?:number of )?tokens[^.]{0,40}exceed",
    r"input length and `?max_tokens`? exceed",
    r"max_total_tokens|max_input_tokens",
)
"""The conversation is longer than the model reads."""

NO_MONEY = _signs(
    "insufficient_quota 1113 arrearage insufficient_balance billing_hard_limit_reached exceeded_current_quota_error "
    "billing_not_active 30001 allocationquota.freetieronly",
    r"insufficient[ _](?:balance|quota|credits?|funds)",
    r"exceeded your current quota(?![^\0]*(?:gemini|generativelanguage|ai\.google))",  # which Gemini says of rates, too
    r"credit balance is too low",
    r"余额不足|已欠费|欠费",
    r"account is in arrears|overdue[- ]payment",
    r"requires more credits",
)
"""The account has no balance or quota left."""

WRONG_KEY = _signs(
    "invalid_api_key invalidapikey authentication_error invalid_authentication_error incorrect_api_key_error "
    "unrecognizedclientexception 1004",
    r"(?:incorrect|invalid|wrong) api[ _-]?key",
    r"api[ _-]?key (?:is )?(?:not valid|invalid|expired)",
    r"invalid x-api-key",
    r"authentication fails",
    r"invalid authentication",
)
"""The provider does not accept the key."""

FILTERED = _signs(
    "content_filter content_policy_violation 1301 data_inspection_failed datainspectionfailed "
    "responsibleaipolicyviolation content_filtered moderation_blocked prohibited_content",
    r"content management policy|content[ _]filter",
    r"inappropriate content",
    r"considered high risk",
    r"不安全或敏感内容|敏感内容",
    r"blocked by (?:the )?(?:safety|content)",
    r"data may contain inappropriate",
)
"""The provider refuses the content of the conversation."""

NO_TOOLS = _signs(
    "",
    r"does ?n[o']t support (?:tools|tool use|function|tool)",
    r"tool (?:use|calling) is not supported",
    r"function calling is not (?:supported|enabled)",
    r'"auto" tool choice requires',
    r"support(?:s)? for tools is not",
)
"""The model takes no tools."""

TOO_MANY = _signs(
    "429 rate_limit_exceeded rate_limit_error rate_limit_reached_error 1302 1303 1305 throttling throttlingexception "
    "throttling.ratequota resource_exhausted engine_overloaded_error",
    r"rate limit",
    r"too many requests",
)
"""The provider limits the rate of requests."""
