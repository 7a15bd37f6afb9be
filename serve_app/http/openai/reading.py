"""Which turn is a completion that is asked for?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.errors import ModelNotFound
from serve_app.http.openai.errors import wrong
from serve_app.values import Message, TurnRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from serve_app.http.openai.body import CompletionRequest, Said

MODEL = "serve_app"
"""The one model that there is: the agent."""
MAX_INPUT = 32_000
"""Characters of the last message, as of `user_input`; and of the instructions."""
MAX_HISTORY = 128_000
"""Characters: four times a message. With it and three bytes a character it is below `http.max_chat_body_bytes`."""

_SYSTEM = {"system", "developer"}


def turn_of(body: CompletionRequest) -> TurnRequest:
    """The turn; in a conversation what was said before is remembered, without one it is read here.

    Raises:
        ModelNotFound: another model is asked for.
        RequestValidationError: a field is wrong.
    """
    find(body.model)
    *before, last = body.messages
    _check(body, before)
    session_id = (body.metadata and body.metadata.session_id) or body.user or ""
    return TurnRequest(
        user_input=last.text,
        session_id=session_id,
        stream=bool(body.stream),
        user_id=body.user,
        instructions="\n\n".join(said.text for said in before if said.role in _SYSTEM),
        history=() if session_id else tuple(_history(before)),
    )


def find(model: str) -> None:
    """Take note that the model is there.

    Raises:
        ModelNotFound: it is not.
    """
    if model != MODEL:
        raise ModelNotFound(f"There is no such model; the agent is {MODEL!r}")


def _check(body: CompletionRequest, before: list[Said]) -> None:
    place = len(before)
    last = body.messages[-1]
    if last.role != "user":
        raise wrong("should be user: the last message is the one that is answered", "messages", place, "role")
    if not last.text:
        raise wrong("should have at least 1 character", "messages", place, "content")
    if len(last.text) > MAX_INPUT:
        raise wrong(f"should have at most {MAX_INPUT} characters", "messages", place, "content")
    if sum(len(said.text) for said in before if said.role in _SYSTEM) > MAX_INPUT:
        raise wrong(f"should have at most {MAX_INPUT} characters in system messages", "messages")
    if sum(len(said.text) for said in before if said.role not in _SYSTEM) > MAX_HISTORY:
        raise wrong(f"should have at most {MAX_HISTORY} characters before the last message", "messages")
    if body.stream_options is not None and not body.stream:
        raise wrong("is for streams; leave it out, or send stream as true", "stream_options")


def _history(before: Iterable[Said]) -> Iterable[Message]:
    """Empty messages are left out: some providers refuse them."""
    for said in before:
        if said.role in {"user", "assistant"} and said.text:
            yield Message(role="user" if said.role == "user" else "assistant", content=said.text)
