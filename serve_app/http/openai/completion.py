"""Completions: a run's answer as OpenAI's object, or its events as OpenAI's chunks."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from serve_app.errors import DeadlineExceeded, RunCancelled
from serve_app.http.errors import OpenAIErrorBody
from serve_app.http.openai.body import MODEL
from serve_app.http.request_context import answer_timeout_s
from serve_app.http.run_responses import (
    CANCELLED,
    FIRST_EVENT_S,
    KEEP_ALIVE,
    EventStreamResponse,
    RunFollower,
    run_items,
)
from serve_app.values import Answer, Cancelled, Failed, Failure, FinishReason, RunStarted, Token, Value
from serve_app.values.sanitize import sanitize_json

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from starlette.responses import Response

    from serve_app.values import Context, RunEvent, TurnRequest

    ToErrorResponse = Callable[[Failure], Response]

ID_PREFIX = "chatcmpl-"
"""A completion's id is this and the run's id."""
DONE = b"data: [DONE]\n\n"
PARAGRAPH_BREAK = "\n\n"
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


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
    created: int = Field(default=0, description="Always 0.")
    owned_by: str = "serve_app"
    serve_app: dict[str, Any] = Field(default={}, description="`model` is the name of the model behind it.")


class ModelList(Value):
    """All models."""

    object: Literal["list"] = "list"
    data: tuple[OpenAIModel, ...]


@dataclass(slots=True)
class SentText:
    """The text of an answer that was sent, and the next piece of it.

    A run may restart its answer: after words that came before a tool call, or where another model or another process
    goes on. OpenAI's protocol cannot take text back. So a restarted answer that begins like the one before it goes on
    where that one stopped, and any other stands in a paragraph of its own.
    """

    sent: str = ""
    _start: int = 0
    """Where in `sent` the present answer starts."""
    _restarted: str | None = None
    """The text of a restarted answer, as long as it repeats what was sent."""

    def add(self, token: Token) -> str:
        """The text to send now."""
        if token.restart:
            self._restarted = ""
        if self._restarted is None:
            return self._send(token.text)
        self._restarted += token.text
        if self.sent[self._start :].startswith(self._restarted):
            return ""
        return self._send_missing(self._restarted)

    def finish(self, result: str) -> str:
        """What is missing of the whole answer."""
        return self._send_missing(result)

    def _send_missing(self, text: str) -> str:
        self._restarted = None
        before = self.sent[self._start :]
        if text.startswith(before):
            return self._send(text[len(before) :])
        self._start = len(self.sent) + len(PARAGRAPH_BREAK)
        return self._send(PARAGRAPH_BREAK + text)

    def _send(self, text: str) -> str:
        self.sent += text
        return text


@dataclass(slots=True)
class ChunkEncoder:
    """Encodes the chunks of one completion; the first one has the role."""

    request: TurnRequest
    context: Context
    created: int
    include_usage: bool
    _run_id: str = field(init=False)
    _has_begun: bool = field(default=False, init=False)
    _text: SentText = field(default_factory=SentText, init=False)

    def __post_init__(self) -> None:
        self._run_id = self.context.run_id

    def encode(self, event: RunEvent) -> Iterator[bytes]:
        """The chunks of an event; none for an event that OpenAI has no chunk for."""
        match event.data:
            case RunStarted(run_id=run_id):  # an idempotency key may have brought the run of an earlier request
                self._run_id = run_id
            case Token() as token:
                yield from self._encode_text(self._text.add(token))
            case Answer() as answer:
                self._run_id = answer.run_id
                yield from self._encode_end(answer)
            case Failed() as failed:
                yield encode_failure(failed)
            case Cancelled():
                error = Failure.of(RunCancelled(CANCELLED), self.context.request_id)
                yield encode_failure(Failed(error=error))

    def _encode_text(self, text: str) -> Iterator[bytes]:
        if not self._has_begun:
            self._has_begun = True
            yield self._chunk({"role": "assistant", "content": "", "refusal": None})
        if text:
            yield self._chunk({"content": text})

    def _encode_end(self, answer: Answer) -> Iterator[bytes]:
        yield from self._encode_text(self._text.finish(answer.result))
        fields = extra_fields(answer, self.request)
        if self._text.sent != answer.result:
            fields["result"] = answer.result
        yield self._chunk({}, answer.finish_reason, serve_app=fields)
        if self.include_usage:
            yield self._frame(choices=[], usage=CompletionUsage.of(answer).model_dump())
        yield DONE

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self.include_usage else {}
        return self._frame(choices=[choice], **usage, **more)

    def _frame(self, **fields: Any) -> bytes:
        object_ = "chat.completion.chunk"
        head = {"id": ID_PREFIX + self._run_id, "object": object_, "created": self.created, "model": MODEL}
        return _encode_frame({**head, **fields})


def _encode_frame(chunk: dict[str, Any]) -> bytes:
    """Encode a chunk as a frame; values that are not valid JSON are sanitized."""
    try:
        return f"data: {_JSON.encode(chunk)}\n\n".encode()
    except (TypeError, ValueError, RecursionError):
        return f"data: {_JSON.encode(sanitize_json(chunk))}\n\n".encode()


def encode_failure(failed: Failed) -> bytes:
    """Encode a failure as the last frame of a stream; OpenAI's clients raise it."""
    return f"data: {OpenAIErrorBody.of(failed.error).model_dump_json()}\n\n".encode()


async def stream_completion(
    events: AsyncGenerator[RunEvent, None], encoder: ChunkEncoder, to_error_response: ToErrorResponse
) -> Response:
    """The stream; an error response if the run fails within `FIRST_EVENT_S`, before its first chunk."""
    async with AsyncExitStack() as undo:
        follower = RunFollower(events)
        undo.push_async_callback(follower.close)
        first = await _read_first(follower, encoder)
        if first is not None and isinstance(first.data, Failed):
            return to_error_response(first.data.error)
        undo.pop_all()
    return EventStreamResponse(_frames(follower, first, encoder), follower)


async def _read_first(follower: RunFollower, encoder: ChunkEncoder) -> RunEvent | None:
    """The first event that has a chunk; None where there is none for `FIRST_EVENT_S`.

    Raises:
        DeadlineExceeded: the request's time ran out.
        RunCancelled: the run was cancelled.
    """
    left_s = answer_timeout_s(encoder.context)
    with suppress(TimeoutError):
        async with asyncio.timeout(min(left_s, FIRST_EVENT_S)):
            while event := await follower.next(left_s):
                if isinstance(event.data, Cancelled):
                    raise RunCancelled(CANCELLED)
                if isinstance(event.data, Token) or event.last:
                    return event
                deque(encoder.encode(event), maxlen=0)
    if left_s <= FIRST_EVENT_S:
        raise DeadlineExceeded("The request's time ran out")
    return None


async def _frames(follower: RunFollower, first: RunEvent | None, encoder: ChunkEncoder) -> AsyncGenerator[bytes, None]:
    async with aclosing(run_items(follower, first, encoder.context)) as items:
        async for item in items:
            if item is None:
                yield KEEP_ALIVE
            elif isinstance(item, Failed):
                yield encode_failure(item)
            else:
                for chunk in encoder.encode(item):
                    yield chunk
