"""A turn: its conversation, its context, its request and its answer."""

from __future__ import annotations

import operator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from serve_app.errors import Internal, ServeAppError
from serve_app.values.access import Metering, Tenant
from serve_app.values.operations import Fault
from serve_app.values.tools import ToolCall, ToolRequest
from serve_app.values.value import Value


class Message(Value):
    """One message of a conversation."""

    role: Literal["user", "assistant", "tool"]
    content: str
    tool_calls: list[ToolRequest] = []
    tool_call_id: str | None = None
    reasoning: str = Field(default="", exclude_if=operator.not_)
    """The thinking before tool calls. Some providers require it in the next request; clients never see it."""
    model: str = Field(default="", exclude_if=operator.not_)
    """The configured name of the model that wrote `reasoning`. Only this model receives it again."""


class Exchange(Value):
    """One turn in memory: the user's message, the steps, the answer."""

    run_id: str
    at: float
    """Unix time in seconds at which the turn ended."""
    user_id: str | None = None
    messages: list[Message]


class Session(Value):
    """A conversation in memory; `exchanges` are the latest ones, oldest first."""

    session_id: str
    turns: int
    expires_in_s: float
    exchanges: list[Exchange]


class SessionSize(Value):
    """The size of a conversation in Redis."""

    session_id: str
    turns: int
    bytes: int
    repairs: int = Field(description="How many messages were repaired or left out because a model could not read them.")
    expires_in_s: float


class SessionSizes(Value):
    """The largest conversations, largest first."""

    sessions: list[SessionSize]
    counted: int = Field(description="The number of conversations examined: all of them, unless `complete` is false.")
    complete: bool


CacheControl = Literal["", "no-cache", "no-store"]
"""The request's `Cache-Control`: empty allows a cached answer, `no-cache` makes a new answer and stores it, `no-store`
makes a new answer and stores nothing."""

FinishReason = Literal["stop", "length", "content_filter"]

SessionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:@-]{1,128}$")]
"""The name of a conversation, chosen by the client."""


class Context(Value):
    """The caller, the run and the deadline of a request; every process receives it."""

    request_id: str
    run_id: str
    session_id: str
    """Empty if the request belongs to no stored conversation. A client cannot choose the empty name."""
    tenant: Tenant = "default"
    key_id: str = ""
    """The API key of the request. Empty if the service does not require keys."""
    deadline: float
    """The end of the whole request: Unix time in seconds, by the clock of the process that accepted it."""
    timeout_s: float = Field(default=3600, ge=0)
    """An upper bound on the time left, for processes whose clock differs: the request's whole time, or what was left of
    it after the queue. The default is the largest value that can be configured."""
    effects: bool = True
    """Whether tools with effects may run. False if a repeated request could not be recognised as a repetition."""
    retries: int | None = None
    """How many times the receiver may retry; None: as often as the tool is configured to."""
    cache: CacheControl = ""
    metering: Metering | None = None
    """The token rate limits that count this request; None if there are none."""
    faults: tuple[Fault, ...] = ()
    """The injected faults that apply to this request."""
    traceparent: str = ""
    """The caller's trace (W3C Trace Context). Empty: the turn starts a new trace."""

    @property
    def ids(self) -> dict[str, str]:
        """The fields of every log line about the request."""
        fields = {
            "request_id": self.request_id,
            "run_id": self.run_id,
            "session_id": self.session_id,
            "tenant": self.tenant,
            "key_id": self.key_id,
            "trace_id": self.traceparent[3:35] or self.run_id,
        }
        return {name: value for name, value in fields.items() if value}


class ChatRequest(Value):
    """The body of `POST /agent/chat`."""

    user_input: str = Field(min_length=1, max_length=32_000, description="The user's message.")
    session_id: SessionId = Field(description="The conversation this turn belongs to.")
    stream: bool = Field(
        default=False, strict=True, description="Answer with server-sent events instead of one JSON body."
    )
    user_id: str | None = Field(
        default=None,
        max_length=128,
        description="The end user, for your own records.",
    )
    reasoning: bool = Field(
        default=False,
        strict=True,
        description="With `stream`: also send the model's thinking, in `reasoning` frames, if the model reports it.",
    )


class TurnRequest(ChatRequest):
    """A chat request with the parts that `POST /agent/chat` does not accept."""

    session_id: str = Field(default="", pattern=r"^([A-Za-z0-9._:@-]{1,128})?$")
    """Empty for a turn without a conversation: it neither reads nor writes memory."""
    instructions: str = ""
    """Added to the system prompt for this turn, by the calling application."""
    history: tuple[Message, ...] = ()
    """Earlier messages, if the turn has no conversation in memory."""


class Citation(Value):
    """A passage that supports the answer."""

    source: str
    title: str
    passage: str
    score: float


class Usage(Value):
    """The tokens of all model calls of one turn."""

    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = Field(
        default=False,
        exclude_if=operator.not_,
        description="Present and true if a provider did not count a call, so that the tokens are an estimate.",
    )

    def __add__(self, more: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + more.input_tokens,
            output_tokens=self.output_tokens + more.output_tokens,
            estimated=self.estimated or more.estimated,
        )


class Answer(Value):
    """The JSON answer of one turn, and the data of the `answer` frame."""

    event: ClassVar[str] = "answer"
    result: str
    session_id: str
    status: Literal["success", "degraded"] = "success"
    run_id: str
    degraded: list[str] = []
    citations: list[Citation] = []
    tool_calls: list[ToolCall] = []
    usage: Usage = Usage()
    model: str
    cached: bool = Field(default=False, description="Whether the answer comes from the answer cache.")
    finish_reason: FinishReason = Field(
        default="stop",
        description="Why the model stopped: `stop` at its end, `length` at a token limit, `content_filter` if its "
        "provider's content filter or the model itself refused.",
    )

    def without(self, part: str) -> Answer:
        """Return the same answer, degraded because `part` was not available."""
        return self.model_copy(update={"status": "degraded", "degraded": sorted({*self.degraded, part})})


class Failure(Value):
    """The content of the error body."""

    code: str
    message: str
    retryable: bool
    request_id: str
    reason: str = Field(default="", description="Why, for the operator: finer than the code, as in the service's logs.")
    retry_after_s: float | None = Field(default=None, exclude=True)
    """For the `Retry-After` header; not part of the body."""

    @classmethod
    def of(cls, error: BaseException, request_id: str) -> Failure:
        """Describe `error` for a client; an internal error shows only its code."""
        if isinstance(error, ServeAppError) and error.status != Internal.status:
            return cls(
                code=error.code,
                message=error.message,
                retryable=error.retryable,
                request_id=request_id,
                reason=error.reason,
                retry_after_s=error.retry_after_s,
            )
        message = "Something went wrong inside the service; tell the operator this request id"
        return cls(
            code=Internal.code,
            message=message,
            retryable=Internal.retryable,
            request_id=request_id,
            reason=Internal.code,
        )


class Failed(Value):
    """The error body of every route, and the data of the `error` frame."""

    event: ClassVar[str] = "error"
    error: Failure
