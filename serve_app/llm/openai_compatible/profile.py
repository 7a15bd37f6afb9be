"""How the endpoints that speak OpenAI's chat completions differ from OpenAI's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

OPENAI_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class Profile:
    """The ways of one kind of endpoint."""

    name: str
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    empty_content: Literal["empty", "null"] = "empty"
    """The content of an assistant message that only calls tools."""
    stream_usage: bool = True
    """Whether a stream is asked to count its tokens, by `stream_options`."""
    schema: Literal["full", "simple"] = "full"
    """The form of tool schemas that it takes, see `tool_schema`."""
    accepts_done_as_end: bool = False
    """Whether `[DONE]` ends a reply that has no `finish_reason`."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Fields that each request has, unless the settings say otherwise."""
    whole_body: Mapping[str, Any] = field(default_factory=dict)
    """Fields that a request for a whole reply has besides."""


PROFILES: dict[str, Profile] = {
    each.name: each
    for each in (
        Profile("openai", max_tokens_field="max_completion_tokens", empty_content="null"),
        Profile("zhipu", stream_usage=False, schema="simple"),
        Profile("dashscope", schema="simple", whole_body={"enable_thinking": False}),
        Profile("deepseek"),
        Profile("moonshot", schema="simple"),
        Profile("siliconflow", schema="simple"),
        Profile("vllm"),
        Profile("ollama", schema="simple"),
        Profile("generic"),
    )
}
_HOSTS = {
    "api.openai.com": "openai",
    "bigmodel.cn": "zhipu",
    "z.ai": "zhipu",
    "aliyuncs.com": "dashscope",
    "deepseek.com": "deepseek",
    "moonshot.cn": "moonshot",
    "moonshot.ai": "moonshot",
    "siliconflow.cn": "siliconflow",
    "siliconflow.com": "siliconflow",
}


def profile_for(base_url: str | None) -> Profile:
    """The profile of an endpoint by its host; `generic` where the host is not known."""
    host = urlsplit(base_url or OPENAI_URL).hostname or ""
    return PROFILES[next((name for end, name in _HOSTS.items() if host == end or host.endswith("." + end)), "generic")]
