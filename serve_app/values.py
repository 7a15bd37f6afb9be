"""Which values cross a boundary between processes, and what do they hold?"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_app.errors import Internal, ServeAppError

SessionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:@-]{1,128}$")]
"""A conversation's name, chosen by the client."""

Effect = Literal["pure", "idempotent", "effect"]
"""What a second call of a tool does: nothing new, nothing new under the same key, or the deed once more."""

CallStatus = Literal["ok", "error", "timeout", "standby", "unknown", "refused"]
"""How a tool call ended; `error` is the tool's own failure or, with no attempt made, a wrong argument; `refused` means
that the service would not run it."""


class Value(BaseModel):
    """Frozen and closed: an unknown field is an error that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Context(Value):
    """Who asks, for which run, and until when; carried through every hop."""

    request_id: str
    run_id: str
    session_id: str
    tenant: str = "default"
    deadline: float
    """Unix time in seconds at which the whole request is given up."""


class ChatRequest(Value):
    """The body of `POST /agent/chat`."""

    user_input: str = Field(min_length=1, max_length=32_000, description="What the user says.")
    session_id: SessionId = Field(description="The conversation this turn belongs to.")
    stream: bool = Field(
        default=False, strict=True, description="Answer with server-sent events instead of one JSON body."
    )
    user_id: str | None = Field(default=None, max_length=128, description="The end user, for your own records.")


class Citation(Value):
    """A passage that the answer rests on."""

    source: str
    title: str
    passage: str
    score: float


class ToolRequest(Value):
    """What the model asked of a tool; `id` is the model's and unique within one model step only."""

    event: ClassVar[str] = "tool_call"
    id: str
    name: str
    arguments: dict[str, Any]


class ToolCall(Value):
    """One finished tool call, as the client sees it."""

    event: ClassVar[str] = "tool_result"
    name: str
    arguments: dict[str, Any]
    status: CallStatus
    attempts: int
    elapsed_ms: float


class Usage(Value):
    """Tokens of all model calls of one turn."""

    input_tokens: int = 0
    output_tokens: int = 0


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


class RunStarted(Value):
    """The first frame of a run."""

    event: ClassVar[str] = "run"
    run_id: str
    recovered: bool = False


class Token(Value):
    """A piece of the answer's text; `restart` says that what came before is to be discarded."""

    event: ClassVar[str] = "token"
    text: str
    restart: bool = False


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


EventData = RunStarted | Token | ToolRequest | ToolCall | Answer | Failed


class Event(Value):
    """One step of a run that a client can see; `id` rises by one within the run."""

    id: int
    data: EventData

    @property
    def name(self) -> str:
        """The SSE event name."""
        return self.data.event

    @property
    def last(self) -> bool:
        """Whether the run ends with this event."""
        return isinstance(self.data, Answer | Failed)


class Message(Value):
    """One message of a conversation."""

    role: Literal["user", "assistant", "tool"]
    content: str
    tool_calls: list[ToolRequest] = []
    tool_call_id: str | None = None


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


class ToolSpec(Value):
    """What a model is told of a tool, and how the tool may be called."""

    name: str
    description: str
    parameters: dict[str, Any]
    """JSON schema of the arguments object."""
    timeout_s: float
    attempts: int
    effect: Effect


class ToolResult(Value):
    """What a tool said: `content` goes to the model whatever the status."""

    content: str
    status: CallStatus
    attempts: int
    elapsed_ms: float

    @classmethod
    def not_run(cls, reason: str) -> ToolResult:
        """A call that was refused before its first attempt: the model's fault, and for it to mend."""
        return cls(content=f"error: {reason}", status="error", attempts=0, elapsed_ms=0)

    @classmethod
    def unknown(cls, name: str, attempts: int, elapsed_ms: float) -> ToolResult:
        """An effect of which nobody knows whether it happened."""
        content = f"error: the outcome of {name} is unknown; it may have happened, do not repeat it"
        return cls(content=content, status="unknown", attempts=attempts, elapsed_ms=elapsed_ms)

    @classmethod
    def late(cls, name: str, attempts: int, elapsed_ms: float) -> ToolResult:
        """A call that took longer than it may."""
        content = f"error: {name} did not answer in time"
        return cls(content=content, status="timeout", attempts=attempts, elapsed_ms=elapsed_ms)


class Passage(Value):
    """A piece of a document that was found for a query; `score` in 0..1, 1 carries all of the query."""

    document_id: str
    source: str
    title: str
    text: str
    score: float


class Document(Value):
    """A document as it is sent to the knowledge base; `source` names it, the same source replaces it."""

    source: str = Field(min_length=1, max_length=1024, description="What names the document, such as its path or URL.")
    title: str = Field(default="", max_length=512, description="Shown with its passages; default the first heading.")
    text: str = Field(min_length=1, description="The document's text.")
    format: Literal["markdown", "text"] = Field(default="markdown", description="Whether headings are marked by '#'.")


class Indexed(Value):
    """What became of a document that was sent."""

    id: str
    source: str
    status: Literal["added", "replaced", "unchanged", "failed"]
    passages: int = 0
    reason: str | None = Field(default=None, description="Why it failed.")


class DocumentSummary(Value):
    """A document of the knowledge base."""

    id: str
    source: str
    title: str
    passages: int
    characters: int
    indexed_at: float = Field(description="Unix time in seconds.")


class Catalogue(Value):
    """A page of the knowledge base's documents, and the totals of all."""

    documents: list[DocumentSummary]
    total: int
    passages: int


class Check(Value):
    """One dependency's state as `/readyz` tells it; `reason` is there where it is not ok."""

    name: str
    ok: bool
    reason: str | None = None
