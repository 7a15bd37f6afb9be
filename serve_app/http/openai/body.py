"""What may be asked in OpenAI's language?

A field of theirs that this service cannot honour may be sent with the value that it has anyway when it is left out;
with another value it is refused, by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError, core_schema

from serve_app.values import SessionId, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

MAX_MESSAGES = 500
MAX_METADATA = 16
"""As OpenAI has it."""


@dataclass(frozen=True, slots=True)
class Only:
    """Marks a field that may be sent as null or as one of these values, all of which change nothing."""

    values: Sequence[Any] = ()

    def check(self, value: Any) -> None:
        """Let pass what changes nothing."""
        neutral = (each for each in self.values if isinstance(each, bool) == isinstance(value, bool))
        if value is not None and all(value != each for each in neutral):
            raise PydanticCustomError("unsupported", "it is not supported here; leave it out")

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(
        self, _schema: core_schema.CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"enum": [None, *self.values]}


def _texts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _role(role: Any) -> Any:
    if role in ("tool", "function"):
        raise PydanticCustomError("tools", "is one for tools of your own; the service runs its own, leave these out")
    return role


class Part(Value):
    """A piece of a message."""

    type: Literal["text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _no_other(cls, part: Any) -> Any:
        if isinstance(part, dict) and part.get("type", "text") != "text":
            raise PydanticCustomError("part", "it is not of type text; nothing else is read here")
        return part


_Parts = Annotated[list[Part], Field(min_length=1)]


class Said(Value):
    """One message."""

    role: Annotated[Literal["system", "developer", "user", "assistant"], BeforeValidator(_role)]
    content: Annotated[
        tuple[Part, ...], Field(min_length=1), BeforeValidator(_texts, json_schema_input_type=str | _Parts)
    ]
    name: Annotated[Any, Only()] = None
    refusal: Annotated[Any, Only()] = None
    annotations: Annotated[Any, Only([[]])] = None
    audio: Annotated[Any, Only()] = None
    function_call: Annotated[Any, Only()] = None
    tool_calls: Annotated[Any, Only([[]])] = None
    tool_call_id: Annotated[Any, Only()] = None

    @property
    def text(self) -> str:
        """The message in one piece."""
        return "\n".join(part.text for part in self.content)


class Metadata(Value):
    """Keys of the application's own; nothing but `session_id` is read."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"maxProperties": MAX_METADATA})
    __pydantic_extra__: dict[str, Annotated[str, Field(max_length=512)]]

    session_id: SessionId | None = Field(
        default=None, description="The conversation this turn belongs to; it remembers what was said in it."
    )

    @model_validator(mode="before")
    @classmethod
    def _few(cls, metadata: Any) -> Any:
        if isinstance(metadata, dict) and len(metadata) > MAX_METADATA:
            raise PydanticCustomError("many", "has more than {most} keys", {"most": MAX_METADATA})
        return metadata


class StreamOptions(Value):
    """What a stream tells besides."""

    include_usage: bool | None = Field(default=None, description="Tell the tokens in a chunk of their own, the last.")
    include_obfuscation: Annotated[Any, Only([False])] = None


class CompletionRequest(Value):
    """The body of `POST /v1/chat/completions`."""

    model: str = Field(description="`serve_app`, which is the agent with its tools and documents.")
    messages: tuple[Said, ...] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="The last one is the user's, and what is answered. Those before it are the history, unless the "
        "turn belongs to a conversation: that one remembers its own, and only system messages are read of them.",
    )
    stream: bool | None = Field(default=None, strict=True)
    stream_options: StreamOptions | None = None
    user: SessionId | None = Field(
        default=None, description="The end user; names the conversation too, unless `metadata.session_id` does."
    )
    metadata: Metadata | None = None
    audio: Annotated[Any, Only()] = None
    frequency_penalty: Annotated[Any, Only([0])] = None
    function_call: Annotated[Any, Only()] = None
    functions: Annotated[Any, Only([[]])] = None
    logit_bias: Annotated[Any, Only([{}])] = None
    logprobs: Annotated[Any, Only([False])] = None
    max_completion_tokens: Annotated[Any, Only()] = None
    max_tokens: Annotated[Any, Only()] = None
    modalities: Annotated[Any, Only([["text"]])] = None
    moderation: Annotated[Any, Only()] = None
    n: Annotated[Any, Only([1])] = None
    parallel_tool_calls: Annotated[Any, Only([True])] = None
    prediction: Annotated[Any, Only()] = None
    presence_penalty: Annotated[Any, Only([0])] = None
    prompt_cache_key: Annotated[Any, Only()] = None
    prompt_cache_options: Annotated[Any, Only()] = None
    prompt_cache_retention: Annotated[Any, Only()] = None
    reasoning_effort: Annotated[Any, Only()] = None
    response_format: Annotated[Any, Only([{"type": "text"}])] = None
    safety_identifier: Annotated[Any, Only()] = None
    seed: Annotated[Any, Only()] = None
    service_tier: Annotated[Any, Only(["auto", "default"])] = None
    stop: Annotated[Any, Only([[]])] = None
    store: Annotated[Any, Only([False])] = None
    temperature: Annotated[Any, Only([1])] = None
    tool_choice: Annotated[Any, Only(["auto"])] = None
    tools: Annotated[Any, Only([[]])] = None
    top_logprobs: Annotated[Any, Only([0])] = None
    top_p: Annotated[Any, Only([1])] = None
    verbosity: Annotated[Any, Only(["medium"])] = None
    web_search_options: Annotated[Any, Only()] = None
