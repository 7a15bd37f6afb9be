"""How do a run's events become a stream of chunks?"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serve_app.errors import DeadlineExceeded, RunCancelled
from serve_app.http.errors import STATUS_BY_CODE
from serve_app.http.following import Following
from serve_app.http.openai.errors import Refused
from serve_app.http.openai.reading import MODEL
from serve_app.http.openai.response import ID, CompletionUsage, rest_of
from serve_app.http.openai.telling import Telling
from serve_app.http.request_context import answer_timeout_s
from serve_app.http.run_responses import CANCELLED, FIRST_EVENT_S
from serve_app.http.sse import KEEP_ALIVE, EventStream, steps
from serve_app.values import Answer, Cancelled, Failed, Failure, RunStarted, Token
from serve_app.values.sanitize import sanitize_json

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from starlette.responses import Response

    from serve_app.values import Context, RunEvent, TurnRequest

    Refuse = Callable[[Failure], Response]

DONE = b"data: [DONE]\n\n"
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@dataclass(slots=True)
class Chunks:
    """Writes the chunks of one completion; it begins with the first event that has something to say."""

    request: TurnRequest
    context: Context
    created: int
    include_usage: bool
    _run_id: str = field(init=False)
    _begun: bool = field(default=False, init=False)
    _telling: Telling = field(default_factory=Telling, init=False)

    def __post_init__(self) -> None:
        self._run_id = self.context.run_id

    def of(self, event: RunEvent) -> Iterator[bytes]:
        """The chunks that an event gives; none where OpenAI has no word for it."""
        match event.data:
            case RunStarted(run_id=run_id):  # another one's than the request's, where its idempotency key came before
                self._run_id = run_id
            case Token() as token:
                yield from self._said(self._telling.take(token))
            case Answer() as answer:
                self._run_id = answer.run_id
                yield from self._last(answer)
            case Failed() as failed:
                yield failure(failed)
            case Cancelled():
                error = Failure.of(RunCancelled(CANCELLED), self.context.request_id)
                yield failure(Failed(error=error))

    def _said(self, text: str) -> Iterator[bytes]:
        if not self._begun:
            self._begun = True
            yield self._chunk({"role": "assistant", "content": "", "refusal": None})
        if text:
            yield self._chunk({"content": text})

    def _last(self, answer: Answer) -> Iterator[bytes]:
        yield from self._said(self._telling.finish(answer.result))
        rest = rest_of(answer, self.request)
        if self._telling.sent != answer.result:
            rest["result"] = answer.result
        yield self._chunk({}, answer.finish_reason, serve_app=rest)
        if self.include_usage:
            yield self._written(choices=[], usage=CompletionUsage.of(answer).model_dump())
        yield DONE

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self.include_usage else {}
        return self._written(choices=[choice], **usage, **more)

    def _written(self, **said: Any) -> bytes:
        head = {"id": ID + self._run_id, "object": "chat.completion.chunk", "created": self.created, "model": MODEL}
        return _data({**head, **said})


def _data(chunk: dict[str, Any]) -> bytes:
    """The chunk as it travels, whatever a model or a tool has put into it."""
    try:
        return f"data: {_JSON.encode(chunk)}\n\n".encode()
    except (TypeError, ValueError, RecursionError):
        return f"data: {_JSON.encode(sanitize_json(chunk))}\n\n".encode()


def failure(failed: Failed) -> bytes:
    """The failure of a stream that has begun, which ends with it: OpenAI's clients raise it."""
    return (
        f"data: {Refused.of(failed.error, STATUS_BY_CODE.get(failed.error.code, 500)).model_dump_json()}\n\n".encode()
    )


async def streamed(events: AsyncGenerator[RunEvent, None], chunks: Chunks, refuse: Refuse) -> Response:
    """The stream; a run that fails before it says anything is a status, as far as that does not take long."""
    async with AsyncExitStack() as undo:
        following = Following(events)
        undo.push_async_callback(following.close)
        first = await _first_said(following, chunks)
        if first is not None and isinstance(first.data, Failed):
            return refuse(first.data.error)
        undo.pop_all()
    return EventStream(_frames(following, first, chunks), following)


async def _first_said(following: Following, chunks: Chunks) -> RunEvent | None:
    """The first event with something to say; None where there is none for long.

    Raises:
        DeadlineExceeded: the request's time ran out.
        RunCancelled: the run was cancelled.
    """
    patience = answer_timeout_s(chunks.context)
    with suppress(TimeoutError):
        async with asyncio.timeout(min(patience, FIRST_EVENT_S)):
            while event := await following.next(patience):
                if isinstance(event.data, Cancelled):
                    raise RunCancelled(CANCELLED)
                if isinstance(event.data, Token) or event.last:
                    return event
                deque(chunks.of(event), maxlen=0)
    if patience <= FIRST_EVENT_S:
        raise DeadlineExceeded("The request's time ran out")
    return None


async def _frames(following: Following, first: RunEvent | None, chunks: Chunks) -> AsyncGenerator[bytes, None]:
    async with aclosing(steps(following, first, chunks.context)) as told:
        async for step in told:
            if step is None:
                yield KEEP_ALIVE
            elif isinstance(step, Failed):
                yield failure(step)
            else:
                for chunk in chunks.of(step):
                    yield chunk
