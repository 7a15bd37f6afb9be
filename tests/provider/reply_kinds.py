"""Kinds of replies: their bytes, whole and streamed, and the turns that are right for them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reply_bytes import PLAIN, Framing, ModelReply, streamed, text, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from strict_provider import HttpReply, ModelRequest

INPUT = re.compile(r"reply as (\S+) in (\S+)")
NEXT = "and now?"
"""The message after that of a kind; it is answered in plain text."""
NEXT_ANSWER = "All is well."
CLOSING = "The tools said: "
UNAVAILABLE = "model_unavailable"
REFUSED_INPUT = "invalid_request"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedTurn:
    """One right outcome of a turn; a kind of reply may have several."""

    outcomes: tuple[str, ...] = ("success",)
    """Statuses of an answer, or codes of an error."""
    result: str | None = None
    contains: tuple[str, ...] = ()
    calls: tuple[tuple[str, str], ...] = ()
    """Name and status of each call, in any order; a `*` is any name."""
    deeds: tuple[str, ...] = ()
    finish: tuple[str, ...] = ("stop",)
    degraded: tuple[str, ...] = ()
    """Entries that the answer's `degraded` must have."""
    retryable: bool | None = None
    usage: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyKind:
    """A kind of reply that a provider is known to send."""

    name: str
    whole: Callable[[ModelRequest, str], HttpReply]
    streamed: Callable[[ModelRequest, str], HttpReply]
    right: tuple[ExpectedTurn, ...]
    streamed_right: tuple[ExpectedTurn, ...] = ()
    """If a stream means something else than the body; else both mean the same."""
    tries: int = 8
    """The most requests for the first step."""
    within_s: float = 8
    harms: bool = False
    """Whether turns of other sessions are checked at the same time."""
    hidden: tuple[str, ...] = field(default=("MUSING",))
    """Words that no client may receive."""

    def answer(self, ask: ModelRequest, turn: str) -> HttpReply:
        return (self.streamed if ask.stream else self.whole)(ask, turn)


def make_kind(
    name: str, make: Callable[[str], ModelReply], *right: ExpectedTurn, framing: Framing = PLAIN, **more: Any
) -> ReplyKind:
    """Makes a kind: the first step is `make(turn)`, the next repeats the results of the tools."""

    def sent_whole(ask: ModelRequest, turn: str) -> HttpReply:
        return whole(closing_reply(ask) if ask.step else make(turn))

    def sent_streamed(ask: ModelRequest, turn: str) -> HttpReply:
        return streamed(closing_reply(ask)) if ask.step else streamed(make(turn), framing)

    return ReplyKind(name=name, whole=sent_whole, streamed=sent_streamed, right=right, **more)


def make_raw_kind(name: str, make: Callable[[ModelRequest], HttpReply], *right: ExpectedTurn, **more: Any) -> ReplyKind:
    """Makes a kind that sends the same bytes, whole or streamed."""

    def of(ask: ModelRequest, turn: str) -> HttpReply:
        return make(ask)

    return ReplyKind(name=name, whole=of, streamed=of, right=right, **more)


def closing_reply(ask: ModelRequest) -> ModelReply:
    """Returns a reply that repeats the results of the latest step."""
    return text(CLOSING + " / ".join(each[:300] for each in ask.results))


def plain_reply(ask: ModelRequest, words: str) -> HttpReply:
    return streamed(text(words)) if ask.stream else whole(text(words))


def answer_by_kind(kinds: Iterable[ReplyKind]) -> Callable[[ModelRequest], HttpReply]:
    """Returns a provider's `answer`: the user's message names the kind and the turn."""
    by_name = {each.name: each for each in kinds}

    def answer(ask: ModelRequest) -> HttpReply:
        match = INPUT.search(ask.user)
        return by_name[match[1]].answer(ask, match[2]) if match else plain_reply(ask, NEXT_ANSWER)

    return answer


ANSWERED = ExpectedTurn(contains=(CLOSING,))
UNREADABLE = ExpectedTurn(outcomes=(UNAVAILABLE,), retryable=True)
"""An error that may pass."""
FINAL = ExpectedTurn(outcomes=(UNAVAILABLE,), retryable=False)
"""An error that stays."""
FAILED = ExpectedTurn(outcomes=(UNAVAILABLE,))
TRUNCATED = ExpectedTurn(outcomes=("degraded",), degraded=("truncated",), finish=("length",))
REFUSAL = ExpectedTurn(outcomes=("success", "degraded"), finish=("content_filter",))


def expect_calls(*calls: tuple[str, str], contains: tuple[str, ...] = (), deeds: tuple[str, ...] = ()) -> ExpectedTurn:
    """A success with these calls."""
    return ExpectedTurn(contains=(CLOSING, *contains), calls=calls, deeds=deeds)


def expect_not_run(name: str) -> ExpectedTurn:
    """The call is an error for the model, and no tool ran."""
    return ExpectedTurn(outcomes=("success", "degraded"), contains=(CLOSING,), calls=((name, "error"),))
