"""What does an answer look like in OpenAI's language?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from serve_app.http.openai.reading import MODEL
from serve_app.values import FinishReason, Value

if TYPE_CHECKING:
    from serve_app.values import Answer, TurnRequest

ID = "chatcmpl-"
"""Before the run's id."""


class CompletionUsage(Value):
    """Tokens of all model calls of the turn."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, answer: Answer) -> CompletionUsage:
        """What the answer has cost."""
        given, said = answer.usage.input_tokens, answer.usage.output_tokens
        return cls(prompt_tokens=given, completion_tokens=said, total_tokens=given + said)


class Reply(Value):
    """What the agent says."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    annotations: tuple[Any, ...] = ()


class Choice(Value):
    """The one answer."""

    index: int = 0
    message: Reply
    logprobs: None = None
    finish_reason: FinishReason = "stop"


class Completion(Value):
    """The answer."""

    id: str = Field(description="`chatcmpl-` and the run's id.")
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(description="Unix time in seconds.")
    model: str = MODEL
    choices: tuple[Choice]
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
            id=ID + answer.run_id,
            created=created,
            choices=(Choice(message=Reply(content=answer.result), finish_reason=answer.finish_reason),),
            usage=CompletionUsage.of(answer),
            serve_app=rest_of(answer, request),
        )


def rest_of(answer: Answer, request: TurnRequest) -> dict[str, Any]:
    """What OpenAI's own fields cannot say of it."""
    rest = answer.sanitize().model_dump(exclude={"result", "usage"})
    history = "session" if request.session_id else "messages"
    return {**rest, "session_id": request.session_id or None, "history": history}


class Model(Value):
    """The agent, as a model."""

    id: str = MODEL
    object: Literal["model"] = "model"
    created: int = Field(default=0, description="Nobody knows when.")
    owned_by: str = "serve_app"
    serve_app: dict[str, Any] = Field(default={}, description="`model` is the name of the model behind it.")


class Models(Value):
    """All models."""

    object: Literal["list"] = "list"
    data: tuple[Model, ...]
