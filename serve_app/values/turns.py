"""A turn: its context, its request, its answer, and the conversation it belongs to."""

from __future__ import annotations

import operator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from serve_app.errors import Internal, ServeAppError
from serve_app.values.access import Metering, Tenant
from serve_app.values.operations import Fault
from serve_app.values.tools import ToolCall, ToolRequest
from serve_app.values.value import Value

NO_RESULT = "error: the outcome of this call is unknown; it may have happened, do not repeat it"
"""What stands in a conversation for the result of a tool call that has none."""


class Message(Value):
    """One message of a conversation."""

    role: Literal["user", "assistant", "tool"]
    content: str
    tool_calls: list[ToolRequest] = []
    tool_call_id: str | None = None
    reasoning: str = Field(default="", exclude_if=operator.not_)
    """The thinking before tool calls, which some providers want to read again; no client is shown it."""
    model: str = Field(default="", exclude_if=operator.not_)
    """The configured name of the model that wrote `reasoning`: no other one is sent it."""


class Exchange(Value):
    """One turn as memory keeps it: the user's message, the steps, the answer."""

    run_id: str
    at: float
    """Unix time in seconds at which the turn ended."""
    user_id: str | None = None
    messages: list[Message]


class Session(Value):
    """A conversation as memory keeps it; `exchanges` are the latest, oldest first."""

    session_id: str
    turns: int
    expires_in_s: float
    exchanges: list[Exchange]


class SessionSize(Value):
    """What a conversation takes up in Redis."""

    session_id: str
    turns: int
    bytes: int
    repairs: int = Field(
        description="How often a turn had to mend a message of it, or leave one out, for the model to read."
    )
    expires_in_s: float


class SessionSizes(Value):
    """The largest conversations, largest first."""

    sessions: list[SessionSize]
    counted: int = Field(description="Conversations that were looked at: all of them, unless `complete` is false.")
    complete: bool


CacheControl = Literal["", "no-cache", "no-store"]
"""What the request's `Cache-Control` says: give an answer that was given before, make it anew for those who come later,
or keep nothing of it."""

FinishReason = Literal["stop", "length", "content_filter"]

SessionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:@-]{1,128}$")]
"""A conversation's name, chosen by the client."""


class Context(Value):
    """Who asks, for which run, and until when; carried through every hop."""

    request_id: str
    run_id: str
    session_id: str
    """The conversation; empty, which no client can choose, where the request has none that is kept."""
    tenant: Tenant = "default"
    key_id: str = ""
    """The key that the request came with; empty where none are asked for."""
    deadline: float
    """Unix time in seconds at which the whole request is given up, by the clock of whoever took it in."""
    timeout_s: float = Field(default=3600, ge=0)
    """No process allows it more, whatever its clock says: the whole time that it was given, or what was left of it when
    its turn came. The default, for what the version before this one sends, is the most that may be configured."""
    effects: bool = True
    """Whether tools may do more than look: not where nobody could tell that the request was sent before."""
    retries: int | None = None
    """Tries beyond the first that this hop may make; None is as many as the tool has."""
    cache: CacheControl = ""
    metering: Metering | None = None
    """What the tokens are charged to; None where nobody counts them."""
    faults: tuple[Fault, ...] = ()
    """What goes wrong on purpose while this request is served."""
    traceparent: str = ""
    """The caller's trace, by W3C Trace Context; empty where the turn begins one of its own."""

    @property
    def ids(self) -> dict[str, str]:
        """By which a log line about the request is found."""
        named = {
            "request_id": self.request_id,
            "run_id": self.run_id,
            "session_id": self.session_id,
            "tenant": self.tenant,
            "key_id": self.key_id,
            "trace_id": self.traceparent[3:35] or self.run_id,
        }
        return {name: value for name, value in named.items() if value}


class ChatRequest(Value):
    """The body of `POST /agent/chat`."""

    user_input: str = Field(min_length=1, max_length=32_000, description="What the user says.")
    session_id: SessionId = Field(description="The conversation this turn belongs to.")
    stream: bool = Field(
        default=False, strict=True, description="Answer with server-sent events instead of one JSON body."
    )
    user_id: str | None = Field(default=None, max_length=128, description="The end user, for your own records.")
    reasoning: bool = Field(
        default=False,
        strict=True,
        description="With `stream`: also send the model's thinking, in `reasoning` frames, where the model shows any.",
    )


class TurnRequest(ChatRequest):
    """What a turn is asked with where the body of `POST /agent/chat` cannot say it."""

    session_id: str = Field(default="", pattern=r"^([A-Za-z0-9._:@-]{1,128})?$")
    """Empty for a turn without a conversation: nothing is remembered, before it or of it."""
    instructions: str = ""
    """What the application that asks adds to the system prompt, for this turn."""
    history: tuple[Message, ...] = ()
    """What was said before, where there is no conversation that has it."""


class Citation(Value):
    """A passage that the answer rests on."""

    source: str
    title: str
    passage: str
    score: float


class Usage(Value):
    """Tokens of all model calls of one turn."""

    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = Field(
        default=False,
        exclude_if=operator.not_,
        description="There and true where a provider did not count a call, so that its tokens are an estimate.",
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
    cached: bool = Field(default=False, description="Whether it was made for the same question before.")
    finish_reason: FinishReason = Field(
        default="stop",
        description="Why the model stopped: it was done, its answer was cut off at a limit, or its provider's content "
        "filter or the model itself refused.",
    )

    def without(self, part: str) -> Answer:
        """The same answer, made without `part`."""
        return self.model_copy(update={"status": "degraded", "degraded": sorted({*self.degraded, part})})


class Failure(Value):
    """The inside of the error body."""

    code: str
    message: str
    retryable: bool
    request_id: str
    retry_after_s: float | None = Field(default=None, exclude=True)
    """For the `Retry-After` header; not part of the body."""

    @classmethod
    def of(cls, error: BaseException, request_id: str) -> Failure:
        """What a client may know of `error`: nothing but the code where the fault is ours."""
        if isinstance(error, ServeAppError) and error.status != Internal.status:
            return cls(
                code=error.code,
                message=error.message,
                retryable=error.retryable,
                request_id=request_id,
                retry_after_s=error.retry_after_s,
            )
        message = "Something went wrong inside the service; tell the operator this request id"
        return cls(code=Internal.code, message=message, retryable=Internal.retryable, request_id=request_id)


class Failed(Value):
    """The error body, everywhere, and the data of the `error` frame."""

    event: ClassVar[str] = "error"
    error: Failure
