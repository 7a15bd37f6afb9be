"""Settings of the chat models: the endpoint, its parameters, retries and fallbacks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from serve_app.config.class_path import SECRET_OPTION
from serve_app.config.validators import HttpUrl, SettingsSection, VariableName

FallbackOn = Literal["refusal", "length"]
ProfileName = Literal[
    "openai", "zhipu", "dashscope", "deepseek", "moonshot", "siliconflow", "vllm", "ollama", "generic"
]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{0,1000}$")]

_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"})


class ModelEndpoint(SettingsSection):
    """One chat model and its endpoint."""

    name: str
    """One of: `offline`, the built-in model for tests; `openai:NAME` for any OpenAI-compatible endpoint; any other name
    that LangChain's `init_chat_model` knows, such as `anthropic:claude-sonnet-4-5`; or the import path of a class, such
    as `langchain_community.chat_models:ChatTongyi`."""
    options: dict[str, Any] = {}
    """Constructor arguments, for a class by its import path or a provider other than `openai`. Never a secret: see
    `options_env`."""
    options_env: dict[str, VariableName] = {}
    """Constructor argument -> the environment variable with its value. For the secrets of a class that does not use
    `api_key_env`."""
    profile: ProfileName | None = None
    """How the endpoint differs from OpenAI's own. None: the host of `base_url` decides."""
    base_url: HttpUrl | None = None
    """The URL of an OpenAI-compatible server. None: the provider's own."""
    api_key_env: VariableName | None = None
    """The environment variable with the API key. None: the variable that the provider usually has."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Randomness of the answer. None: the provider's default; some models reject the parameter."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Nucleus sampling. None: the provider's default."""
    seed: int | None = None
    """Seed of the sampling. None: the provider's default."""
    max_tokens: int | None = Field(default=None, ge=1)
    """The longest reply, in tokens. None: the provider's default."""
    reasoning_effort: str | None = Field(default=None, max_length=20)
    """How long a reasoning model thinks, in the words of its provider, such as `low`. None: the provider's default."""
    extra_body: dict[str, Any] = {}
    """Fields of the request that only this provider knows, such as `enable_thinking: false`. They replace fields that
    the service sets."""
    extra_headers: dict[HeaderName, HeaderValue] = {}
    """Headers of each request. An API key belongs into `api_key_env`, not here."""
    stream: Literal["auto", "always"] = "auto"
    """`always` requests a stream even for a whole reply, because some models only answer so."""
    stream_usage: bool | None = None
    """Whether the service asks a stream to count its tokens (`stream_options`). None: as the profile says."""
    done_ends: bool = False
    """Whether `[DONE]` without a `finish_reason` ends a reply, for servers that never send a `finish_reason`. Otherwise
    such a reply counts as broken off."""
    tools: bool = True
    """False for a model that cannot call tools. It answers from documents that the service searches for it, or from its
    own knowledge."""
    context_tokens: int | None = Field(default=None, ge=1)
    """The size of the model's context window. After an overflow, the service skips fallbacks with a window of the same
    size or less."""
    timeout_s: float = Field(default=30, gt=0)
    """For one call, from the start to the last byte. The default is half of a turn's time, so that there is time for a
    second call."""

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
    """The chat model, its retries, its circuit breaker and its fallbacks."""

    name: str = Field(default="offline", description=ModelEndpoint.model_fields["name"].description)
    fallbacks: tuple[ModelEndpoint, ...] = ()
    """Models to call, in this order, after the models before them failed. Their answers are `degraded`."""
    fallback_on: tuple[FallbackOn, ...] = ()
    """Whole replies for which a fallback is called, too: a `refusal`, or a reply that was cut off at its `length`.
    None: the user gets the refusal, or the reply up to the cut."""
    attempts: int = Field(default=2, ge=1, le=10)
    """Calls of one model before the next fallback, for failures that may pass. Between them the service waits 0.5 s,
    doubling to 4 s, or as long as the provider's `Retry-After` says. While a fallback is left, it neither retries a
    timeout nor waits longer than 4 s."""
    breaker_failures: int = Field(default=5, ge=1, le=1000)
    """Failures in a row that open the model's circuit breaker. With fewer, a short disturbance opens it; with more,
    users wait longer in an outage."""
    cool_down_s: float = Field(default=10, gt=0, le=3600)
    """How long the circuit breaker stays open. Then one call tests whether the model works again."""
