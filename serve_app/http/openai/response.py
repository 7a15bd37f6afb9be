"""OpenAI's completion and model objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from serve_app.http.openai.body import MODEL
from serve_app.values import FinishReason, Value

if TYPE_CHECKING:
    from serve_app.values import Answer, TurnRequest

ID_PREFIX = "chatcmpl-"
"""A completion's id is this and the run's id."""


class CompletionUsage(Value):
    """Tokens of all model calls of the turn."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, answer: Answer) -> CompletionUsage:
        """The tokens of the answer."""
        prompt, completion = answer.usage.input_tokens, answer.usage.output_tokens
        return cls(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


class CompletionMessage(Value):
    """The agent's message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    annotations: tuple[Any, ...] = ()


class CompletionChoice(Value):
    """The one answer."""

    index: int = 0
    message: CompletionMessage
    logprobs: None = None
    finish_reason: FinishReason = "stop"


class Completion(Value):
    """The answer."""

    id: str = Field(description="`chatcmpl-` and the run's id.")
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(description="Unix time in seconds.")
    model: str = MODEL
    choices: tuple[CompletionChoice]
    usage: CompletionUsage
    serve_app: dict[str, Any] = Field(
        description="The rest of the answer as `POST /agent/chat` has it: `run_id`, `session_id`, `status`, "
        "`degraded`, `citations`, `tool_calls`, the underlying `model`, …; and `history`, which says where what was "
        "said before came from: `messages`, or the `session`."
    )

    @classmethod
    def of(cls, answer: Answer, request: TurnRequest, created: int) -> Completion:
        """The run's answer as a completion."""
        return cls(
            id=ID_PREFIX + answer.run_id,
            created=created,
            choices=(
                CompletionChoice(message=CompletionMessage(content=answer.result), finish_reason=answer.finish_reason),
            ),
            usage=CompletionUsage.of(answer),
            serve_app=extra_fields(answer, request),
        )


def extra_fields(answer: Answer, request: TurnRequest) -> dict[str, Any]:
    """The fields of the answer that OpenAI's object has no place for."""
    fields = answer.sanitize().model_dump(exclude={"result", "usage"})
    history = "session" if request.session_id else "messages"
    return {**fields, "session_id": request.session_id or None, "history": history}


class OpenAIModel(Value):
    """The agent, as a model."""

    id: str = MODEL
    object: Literal["model"] = "model"
    created: int = Field(default=0, description="Nobody knows when.")
    owned_by: str = "serve_app"
    serve_app: dict[str, Any] = Field(default={}, description="`model` is the name of the model behind it.")


class ModelList(Value):
    """All models."""

    object: Literal["list"] = "list"
    data: tuple[OpenAIModel, ...]
