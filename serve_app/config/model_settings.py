"""Settings of the chat models: which one answers, how it is asked, and what becomes of a call that fails."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from serve_app.config.class_path import SECRET_OPTION
from serve_app.config.validators import HttpUrl, Section, VariableName

FallbackOn = Literal["refusal", "length"]
ProfileName = Literal[
    "openai", "zhipu", "dashscope", "deepseek", "moonshot", "siliconflow", "vllm", "ollama", "generic"
]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{0,1000}$")]

_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"})


class ModelEndpoint(Section):
    """One chat model, and how it is reached."""

    name: str
    """`offline`; `openai:NAME` for any OpenAI-compatible endpoint, by the client of this project; any other name that
    `init_chat_model` knows, such as `anthropic:claude-sonnet-4-5`; or a class by its import path, such as
    `langchain_community.chat_models:ChatTongyi`, constructed with `options`."""
    options: dict[str, Any] = {}
    """Constructor arguments, for a model named by its class or of another provider than `openai`. No secrets."""
    options_env: dict[str, VariableName] = {}
    """Option -> the environment variable that holds it: secrets of a class that `api_key_env` does not fit."""
    profile: ProfileName | None = None
    """How the endpoint differs from OpenAI's own; None tells by the host of `base_url`."""
    base_url: HttpUrl | None = None
    """The endpoint of an OpenAI-compatible server; None means the provider's own."""
    api_key_env: VariableName | None = None
    """The environment variable that holds the key; None leaves it to the provider's usual variable."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """None leaves it to the provider: some models refuse the parameter."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Likewise."""
    seed: int | None = None
    """Likewise."""
    max_tokens: int | None = Field(default=None, ge=1)
    """The longest reply, in tokens; None leaves it to the provider."""
    reasoning_effort: str | None = Field(default=None, max_length=20)
    """How long a reasoning model thinks, in its provider's words, such as `low`; None leaves it to the provider."""
    extra_body: dict[str, Any] = {}
    """Fields of the request that only this provider knows, such as `enable_thinking: false`; they win over ours."""
    extra_headers: dict[HeaderName, HeaderValue] = {}
    """Headers of each request. A key has its place in `api_key_env`, not here."""
    stream: Literal["auto", "always"] = "auto"
    """`always` asks for a stream even where the whole reply is wanted: some models only answer so."""
    stream_usage: bool | None = None
    """Whether a stream is asked to count its tokens (`stream_options`); None does what the profile says."""
    done_ends: bool = False
    """Whether `[DONE]` without a `finish_reason` ends a reply, for servers that never send one. Otherwise such a reply
    counts as broken off."""
    tools: bool = True
    """False for a model that takes no tools: it answers from documents that are searched for it, or plainly."""
    context_tokens: int | None = Field(default=None, ge=1)
    """How much the model reads, in tokens. After an overflow, no fallback that reads as little is asked."""
    timeout_s: float = Field(default=30, gt=0)
    """For one call, first byte to last: half of a turn's time, so that a second call still fits."""

    @model_validator(mode="after")
    def _no_secrets(self) -> ModelEndpoint:
        named = sorted(name for name in self.extra_headers if name.lower() in _SECRET_HEADERS)
        if named:
            raise ValueError(f"{named[0]} stands in extra_headers; name the variable that holds it in api_key_env")
        if unsafe := next((name for name in self.options if SECRET_OPTION.search(name)), None):
            raise ValueError(f"{unsafe} stands in options; name the variable that holds it in options_env")
        if self.name.startswith("openai:") and (self.options or self.options_env):
            raise ValueError("options are for models of other providers; what openai: names are sent is extra_body")
        return self


class ModelSettings(ModelEndpoint):
    """Which chat model answers, and what becomes of a call that fails."""

    name: str = "offline"
    """As of every model."""
    fallbacks: tuple[ModelEndpoint, ...] = ()
    """The models that are asked where those before them fail, in this order; such an answer is `degraded`."""
    fallback_on: tuple[FallbackOn, ...] = ()
    """Which whole replies a fallback is asked for, too: a `refusal`, or one that was cut off at its `length`. None: a
    refusal is told to the user, and a cut-off answer is given as far as it goes."""
    attempts: int = Field(default=2, ge=1, le=10)
    """Tries of one model in one call, on failures that may pass; 0.5 s between them, doubling to 4 s, or the provider's
    `Retry-After`. While another model is left to ask, a time-out is not tried again, nor are more than 4 s waited."""
    breaker_failures: int = Field(default=5, ge=1, le=1000)
    """Failures in a row after which a model is left alone: fewer open it on a short hiccup, more cost users' time."""
    cool_down_s: float = Field(default=10, gt=0, le=3600)
    """For how long; then one call tries whether it is back."""
