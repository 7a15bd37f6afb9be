"""Differences between endpoints that speak OpenAI's protocol."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class EndpointProfile:
    """What one kind of endpoint accepts and sends."""

    name: str
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    empty_content: Literal["empty", "null", "omit"] = "empty"
    """The content of an assistant message with only tool calls; "empty" is the string ""."""
    stream_usage: bool = True
    """Whether `stream_options: {"include_usage": true}` is sent with a streamed call."""
    stream_only: bool = False
    """Whether the endpoint refuses calls that are not streamed."""
    accepts_done_as_end: bool = False
    """Whether `[DONE]` (or a whole body) without a finish_reason ends a reply; off, for a cut reply may look so."""
    system_role: Literal["system", "developer"] = "system"
    images: bool = True
    """Whether images are sent; else a note replaces them."""
    schema_dialect: Literal["full", "simple"] = "full"
    """Which JSON Schema the endpoint takes for tools."""
    extra_body: dict[str, Any] = field(default_factory=dict)
    """Fields of each request's body."""
    whole_extra_body: dict[str, Any] = field(default_factory=dict)
    """Fields of the body of requests that are not streamed."""
    hosts: tuple[str, ...] = ()
    """The ends of the host names by which the endpoint is known."""


PROFILES: MappingProxyType[str, EndpointProfile] = MappingProxyType(
    {
        each.name: each
        for each in (
            EndpointProfile(
                "openai",
                max_tokens_field="max_completion_tokens",
                empty_content="null",
                hosts=("api.openai.com", "openai.azure.com"),
            ),
            EndpointProfile(
                "zhipu",
                schema_dialect="simple",
                hosts=("bigmodel.cn", "z.ai"),
            ),
            EndpointProfile(
                "dashscope",
                schema_dialect="simple",
                hosts=("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com"),
            ),
            EndpointProfile("deepseek", images=False, hosts=("api.deepseek.com",)),
            EndpointProfile(
                "moonshot",
                schema_dialect="simple",
                hosts=("moonshot.cn", "moonshot.ai"),
            ),
            EndpointProfile("siliconflow", schema_dialect="simple", hosts=("siliconflow.cn", "siliconflow.com")),
            EndpointProfile("vllm"),
            EndpointProfile("ollama", schema_dialect="simple", hosts=("ollama.com",)),
            EndpointProfile("generic"),
        )
    }
)


def find_profile(base_url: str | None, model: str) -> EndpointProfile:
    """Find the profile by host, port and model name; else return `generic`."""
    if base_url is None:
        return PROFILES["openai"]
    address = urlsplit(base_url)
    host = (address.hostname or "").lower()
    for profile in PROFILES.values():
        if any(host == end or host.endswith("." + end) for end in profile.hosts):
            return _for_model(profile, model.lower())
    return PROFILES["ollama"] if _port(base_url) == OLLAMA_PORT else PROFILES["generic"]


OLLAMA_PORT = 11434


def _for_model(profile: EndpointProfile, model: str) -> EndpointProfile:
    if profile.name != "dashscope":
        return profile
    if model.startswith(("qwq", "qvq")) or "thinking" in model:
        return dataclasses.replace(profile, stream_only=True)
    if model.startswith("qwen3"):  # thinks unless told otherwise, and thinks only in streams
        return dataclasses.replace(profile, whole_extra_body={"enable_thinking": False})
    return profile


def _port(base_url: str) -> int | None:
    try:
        return urlsplit(base_url).port
    except ValueError:
        return None
