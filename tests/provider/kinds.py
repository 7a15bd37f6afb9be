"""A kind of reply: how it is sent when asked either way, and what a turn then has to be."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from replies import PLAIN, Framing, Said, streamed, text, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from provider import Ask, Reply

ASKED = re.compile(r"reply as (\S+) in (\S+)")
NEXT = "and now?"
"""The message after that of a kind; it is answered in plain text."""
NEXT_ANSWER = "All is well."
CLOSING = "The tools said: "
UNAVAILABLE = "model_unavailable"
REFUSED_INPUT = "invalid_request"


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """An outcome that is right; a turn may have several."""

    outcomes: tuple[str, ...] = ("success",)
    """Statuses of an answer, or codes of an error."""
    result: str | None = None
    contains: tuple[str, ...] = ()
    calls: tuple[tuple[str, str], ...] = ()
    """Name and status of each call, in any order; a `*` is any name."""
    deeds: tuple[str, ...] = ()
    finish: tuple[str, ...] = ("stop",)
    degraded: tuple[str, ...] = ()
    """What the answer has to say that it lacked."""
    retryable: bool | None = None
    usage: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of reply that a provider is known to send."""

    name: str
    whole: Callable[[Ask, str], Reply]
    streamed: Callable[[Ask, str], Reply]
    right: tuple[Right, ...]
    streamed_right: tuple[Right, ...] = ()
    """Where a stream is another reply than the body; else both have to mean the same."""
    tries: int = 8
    """How often the first step may be asked."""
    within_s: float = 8
    harms: bool = False
    """Whether other turns are watched beside it."""
    hidden: tuple[str, ...] = field(default=("MUSING",))
    """Words that nobody may see."""

    def answer(self, ask: Ask, turn: str) -> Reply:
        return (self.streamed if ask.stream else self.whole)(ask, turn)


def kind(name: str, make: Callable[[str], Said], *right: Right, framing: Framing = PLAIN, **more: Any) -> Kind:
    """The first step says what `make` makes of the turn's name; the next one tells what the tools said."""

    def sent_whole(ask: Ask, turn: str) -> Reply:
        return whole(closing(ask) if ask.step else make(turn))

    def sent_streamed(ask: Ask, turn: str) -> Reply:
        return streamed(closing(ask)) if ask.step else streamed(make(turn), framing)

    return Kind(name=name, whole=sent_whole, streamed=sent_streamed, right=right, **more)


def sent(name: str, make: Callable[[Ask], Reply], *right: Right, **more: Any) -> Kind:
    """The same bytes, whichever way it is asked."""

    def of(ask: Ask, turn: str) -> Reply:
        return make(ask)

    return Kind(name=name, whole=of, streamed=of, right=right, **more)


def closing(ask: Ask) -> Said:
    """The reply that tells what the tools of the latest step said."""
    return text(CLOSING + " / ".join(each[:300] for each in ask.results))


def plain(ask: Ask, words: str) -> Reply:
    return streamed(text(words)) if ask.stream else whole(text(words))


def answering(kinds: Iterable[Kind]) -> Callable[[Ask], Reply]:
    """A provider's answers: the user's message says the kind and the turn."""
    by_name = {each.name: each for each in kinds}

    def answer(ask: Ask) -> Reply:
        asked = ASKED.search(ask.user)
        return by_name[asked[1]].answer(ask, asked[2]) if asked else plain(ask, NEXT_ANSWER)

    return answer


ANSWERED = Right(contains=(CLOSING,))
UNREADABLE = Right(outcomes=(UNAVAILABLE,), retryable=True)
"""An error of the provider's that another try may not meet."""
FINAL = Right(outcomes=(UNAVAILABLE,), retryable=False)
"""An error that no other try mends."""
FAILED = Right(outcomes=(UNAVAILABLE,))
TRUNCATED = Right(outcomes=("degraded",), degraded=("truncated",), finish=("length",))
REFUSAL = Right(outcomes=("success", "degraded"), finish=("content_filter",))


def done(*calls: tuple[str, str], contains: tuple[str, ...] = (), deeds: tuple[str, ...] = ()) -> Right:
    """A success with these calls."""
    return Right(contains=(CLOSING, *contains), calls=calls, deeds=deeds)


def not_run(name: str) -> Right:
    """The model is told that its call was wrong, and nothing was done."""
    return Right(outcomes=("success", "degraded"), contains=(CLOSING,), calls=((name, "error"),))
