"""An agent that plays scripts, and the events of an answer."""

from __future__ import annotations

from typing import Any

from http_fakes import ScriptedAgent

from serve_app.errors import AgentUnavailable, Overloaded
from serve_app.values import (
    Answer,
    Cancelled,
    ChatRequest,
    Citation,
    Context,
    Failed,
    Failure,
    RunStarted,
    Token,
    ToolCall,
    ToolRequest,
)

RUN = RunStarted(run_id="")
ARGUMENTS = {"order_id": "OD-20240502"}
CALL = ToolRequest(id="1", name="order_query", arguments=ARGUMENTS)
RESULT = ToolCall(name="order_query", arguments=ARGUMENTS, status="ok", attempts=1, elapsed_ms=3.2)


def answer(result: str, **fields: Any) -> Answer:
    return Answer(**{"result": result, "session_id": "s", "run_id": "r1", "model": "offline", **fields})


def cited(*sources: str) -> list[Citation]:
    return [Citation(source=source, title="Returns", passage="…", score=0.9) for source in sources]


SCRIPTS: dict[str, list[Any]] = {
    "where is it?": [
        RUN,
        CALL,
        RESULT,
        Token(text="It has "),
        Token(text="shipped."),
        answer("It has shipped.", citations=cited("guide.md", "guide.md", "faq.md")),
    ],
    "slow": [RUN, Token(text="one "), 0.6, Token(text="two"), answer("one two")],
    "endless": [RUN, Token(text="I begin "), 30.0, answer("")],
    "silent": [30.0, RUN, answer("")],
    "replica dies": [RUN, Token(text="It has "), AgentUnavailable("gone"), Token(text="shipped."), answer("")],
    "cancelled": [RUN, Token(text="It is"), Cancelled(run_id="")],
    "overloaded": [Overloaded("Too many turns wait", retry_after_s=1)],
    "fails late": [
        RUN,
        Token(text="It is"),
        Failed(error=Failure(code="deadline_exceeded", message="Time ran out", retryable=True, request_id="q1")),
    ],
}


class ScriptedChatAgent(ScriptedAgent):
    """Plays what `SCRIPTS` has for the message, else says what it was told."""

    def _steps(self, context: Context, request: ChatRequest) -> list[Any]:
        events = [RUN, Token(text=f"You said: {request.user_input}"), answer("…")]
        return SCRIPTS.get(request.user_input, events)
