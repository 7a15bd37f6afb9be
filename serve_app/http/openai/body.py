"""The body of `POST /v1/chat/completions`, and the turn that it asks for.

A field of OpenAI's that this service cannot honour may be sent as null or with its default; with another value it is
refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError, core_schema

from serve_app.errors import ModelNotFound
from serve_app.values import Message, SessionId, TurnRequest, Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

MODEL = "serve_app"
"""The only model: the agent."""
MAX_INPUT = 32_000
"""Characters of the last message, as of `user_input`; and of the instructions."""
MAX_HISTORY = 128_000
"""Characters before the last message: four times as many as in it. At three bytes a character, as in Chinese, the two
take 480 kB, less than the default of `http.max_chat_body_bytes`. Long instructions or JSON escapes may need more."""

_SYSTEM_ROLES = {"system", "developer"}
MAX_MESSAGES = 500
MAX_METADATA = 16
"""As OpenAI has it."""


@dataclass(frozen=True, slots=True)
class NoEffect:
    """Marks a field that must be null or one of these values, which change nothing."""

    values: Sequence[Any] = ()

    def check(self, value: Any) -> None:
        """Refuse any other value."""
        accepted = (each for each in self.values if isinstance(each, bool) == isinstance(value, bool))
        if value is not None and all(value != each for each in accepted):
            raise PydanticCustomError("unsupported", "it is not supported here; leave it out")

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(
        self, _schema: core_schema.CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"enum": [None, *self.values]}


def _to_text_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _check_role(role: Any) -> Any:
    if role in ("tool", "function"):
        raise PydanticCustomError(
            "tools", "belongs to client-side tools; this service calls its own tools. Leave such messages out"
        )
    return role


class TextPart(Value):
    """A text part of a message."""

    type: Literal["text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _check_type(cls, part: Any) -> Any:
        if isinstance(part, dict) and part.get("type", "text") != "text":
            raise PydanticCustomError("part", "it is not of type text; nothing else is read here")
        return part


_Parts = Annotated[list[TextPart], Field(min_length=1)]


class ChatMessage(Value):
    """One message of the request."""

    role: Annotated[Literal["system", "developer", "user", "assistant"], BeforeValidator(_check_role)]
    content: Annotated[
        tuple[TextPart, ...], Field(min_length=1), BeforeValidator(_to_text_parts, json_schema_input_type=str | _Parts)
    ]
    name: Annotated[Any, NoEffect()] = None
    refusal: Annotated[Any, NoEffect()] = None
    annotations: Annotated[Any, NoEffect([[]])] = None
    audio: Annotated[Any, NoEffect()] = None
    function_call: Annotated[Any, NoEffect()] = None
    tool_calls: Annotated[Any, NoEffect([[]])] = None
    tool_call_id: Annotated[Any, NoEffect()] = None

    @property
    def text(self) -> str:
        """The text of all parts."""
        return "\n".join(part.text for part in self.content)


class CompletionMetadata(Value):
    """Keys of the application's own; only `session_id` is read."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"maxProperties": MAX_METADATA})
    __pydantic_extra__: dict[str, Annotated[str, Field(max_length=512)]]

    session_id: SessionId | None = Field(
        default=None, description="The conversation this turn belongs to; it remembers what was said in it."
    )

    @model_validator(mode="before")
    @classmethod
    def _check_size(cls, metadata: Any) -> Any:
        if isinstance(metadata, dict) and len(metadata) > MAX_METADATA:
            raise PydanticCustomError("many", "has more than {most} keys", {"most": MAX_METADATA})
        return metadata


class StreamOptions(Value):
    """Options of a streamed completion."""

    include_usage: bool | None = Field(default=None, description="Tell the tokens in a chunk of their own, the last.")
    include_obfuscation: Annotated[Any, NoEffect([False])] = None


class CompletionRequest(Value):
    """The body of `POST /v1/chat/completions`."""

    model: str = Field(description="`serve_app`, which is the agent with its tools and documents.")
    messages: tuple[ChatMessage, ...] = Field(
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
    metadata: CompletionMetadata | None = None
    audio: Annotated[Any, NoEffect()] = None
    frequency_penalty: Annotated[Any, NoEffect([0])] = None
    function_call: Annotated[Any, NoEffect()] = None
    functions: Annotated[Any, NoEffect([[]])] = None
    logit_bias: Annotated[Any, NoEffect([{}])] = None
    logprobs: Annotated[Any, NoEffect([False])] = None
    max_completion_tokens: Annotated[Any, NoEffect()] = None
    max_tokens: Annotated[Any, NoEffect()] = None
    modalities: Annotated[Any, NoEffect([["text"]])] = None
    moderation: Annotated[Any, NoEffect()] = None
    n: Annotated[Any, NoEffect([1])] = None
    parallel_tool_calls: Annotated[Any, NoEffect([True])] = None
    prediction: Annotated[Any, NoEffect()] = None
    presence_penalty: Annotated[Any, NoEffect([0])] = None
    prompt_cache_key: Annotated[Any, NoEffect()] = None
    prompt_cache_options: Annotated[Any, NoEffect()] = None
    prompt_cache_retention: Annotated[Any, NoEffect()] = None
    reasoning_effort: Annotated[Any, NoEffect()] = None
    response_format: Annotated[Any, NoEffect([{"type": "text"}])] = None
    safety_identifier: Annotated[Any, NoEffect()] = None
    seed: Annotated[Any, NoEffect()] = None
    service_tier: Annotated[Any, NoEffect(["auto", "default"])] = None
    stop: Annotated[Any, NoEffect([[]])] = None
    store: Annotated[Any, NoEffect([False])] = None
    temperature: Annotated[Any, NoEffect([1])] = None
    tool_choice: Annotated[Any, NoEffect(["auto"])] = None
    tools: Annotated[Any, NoEffect([[]])] = None
    top_logprobs: Annotated[Any, NoEffect([0])] = None
    top_p: Annotated[Any, NoEffect([1])] = None
    verbosity: Annotated[Any, NoEffect(["medium"])] = None
    web_search_options: Annotated[Any, NoEffect()] = None


def to_turn_request(body: CompletionRequest) -> TurnRequest:
    """The turn that the request asks for.

    The earlier messages are its history, unless it belongs to a conversation, which has its own.

    Raises:
        ModelNotFound: another model is asked for.
        RequestValidationError: a field is wrong.
    """
    require_model(body.model)
    *before, last = body.messages
    _check_messages(body, before)
    session_id = (body.metadata and body.metadata.session_id) or body.user or ""
    return TurnRequest(
        user_input=last.text,
        session_id=session_id,
        stream=bool(body.stream),
        user_id=body.user,
        instructions="\n\n".join(message.text for message in before if message.role in _SYSTEM_ROLES),
        history=() if session_id else tuple(_to_history(before)),
    )


def require_model(model: str) -> None:
    """Check that the model is the agent, which is the only one.

    Raises:
        ModelNotFound: it is another.
    """
    if model != MODEL:
        raise ModelNotFound(f"There is no such model; the agent is {MODEL!r}")


def _check_messages(body: CompletionRequest, before: list[ChatMessage]) -> None:
    place = len(before)
    last = body.messages[-1]
    if last.role != "user":
        raise _field_error("should be user: the last message is the one that is answered", "messages", place, "role")
    if not last.text:
        raise _field_error("should have at least 1 character", "messages", place, "content")
    if len(last.text) > MAX_INPUT:
        raise _field_error(f"should have at most {MAX_INPUT} characters", "messages", place, "content")
    if sum(len(message.text) for message in before if message.role in _SYSTEM_ROLES) > MAX_INPUT:
        raise _field_error(f"should have at most {MAX_INPUT} characters in system messages", "messages")
    if sum(len(message.text) for message in before if message.role not in _SYSTEM_ROLES) > MAX_HISTORY:
        raise _field_error(f"should have at most {MAX_HISTORY} characters before the last message", "messages")
    if body.stream_options is not None and not body.stream:
        raise _field_error("is for streams; leave it out, or send stream as true", "stream_options")


def _field_error(problem: str, *path: str | int) -> RequestValidationError:
    """The error of a validation that finds `problem` in the field at `path`."""
    return RequestValidationError([{"type": "wrong", "loc": ("body", *path), "msg": problem}])


def _to_history(before: Iterable[ChatMessage]) -> Iterable[Message]:
    """Empty messages are left out: some providers refuse them."""
    for message in before:
        if message.role in {"user", "assistant"} and message.text:
            yield Message(role="user" if message.role == "user" else "assistant", content=message.text)
