"""What is wrong with a turn, judged by the kind of reply that its model gave."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kinds import NEXT_ANSWER

if TYPE_CHECKING:
    from kinds import Kind, Right

NEVER = ("Traceback", "ray::", "127.0.0.1", "sk-stub")


@dataclass(frozen=True, slots=True)
class Told:
    """What a client was told of one turn."""

    status: int
    body: dict[str, Any]
    """The answer, or `{"error": …}`."""
    took_s: float = 0
    shown: str = ""
    """All text that was sent, except what was taken back."""
    streamed: str | None = None
    """The pieces of the answer, put together; None where it was not streamed."""

    @property
    def outcome(self) -> str:
        return str(self.body["error"]["code"] if "error" in self.body else self.body.get("status"))

    def meaning(self, turn: str) -> str:
        """What two ways of asking for the same reply have in common; `turn` is the name that only this one has."""
        body = self.body
        if "error" in body:
            return f"{self.outcome}, retryable {body['error']['retryable']}"
        calls = [(each["name"], each["arguments"], each["status"]) for each in body["tool_calls"]]
        said = [self.outcome, body["result"], body["degraded"], body["finish_reason"], calls]
        return json.dumps(said, ensure_ascii=False, sort_keys=True).replace(turn, "TURN")


@dataclass(frozen=True, slots=True)
class Played:
    """One kind of reply, asked for in one way, and the message after it."""

    kind: Kind
    turn: str
    stream: bool
    told: Told
    after: Told
    deeds: tuple[str, ...] = ()
    tries: int = 0
    refused: tuple[str, ...] = ()
    """What the provider had against the requests."""
    beside: list[Told] = field(default_factory=list)
    """Turns of others meanwhile."""


def complaints(played: Played) -> list[str]:
    """Each thing that is wrong, in words; empty where the turn is right."""
    told, kind = played.told, played.kind
    right = (kind.streamed_right or kind.right) if played.stream else kind.right
    misses = [_misses(each, told, played.deeds) for each in right]
    found = [] if not all(misses) else [f"outcome: {'; '.join(min(misses, key=len))}"]
    if told.outcome == "internal" or told.status == 500:
        found.append("an internal error")
    if told.took_s > kind.within_s:
        found.append(f"slow: {told.took_s:.1f} s")
    found += [f"shown: {word}" for word in (*kind.hidden, *NEVER) if word in told.shown]
    found += [f"refused: {each}" for each in played.refused]
    if played.tries > kind.tries:
        found.append(f"asked {played.tries} times")
    if played.after.body.get("result") != NEXT_ANSWER or played.after.outcome != "success":
        found.append(f"next message: {played.after.status} {str(played.after.body)[:120]}")
    if told.streamed is not None and "result" in told.body and not told.streamed.endswith(told.body["result"]):
        found.append(f"streamed {told.streamed[-80:]!r}, answered {told.body['result'][-80:]!r}")
    found += [f"a bystander: {each.outcome} after {each.took_s:.1f} s" for each in played.beside if not _well(each)]
    return [f"{kind.name} {'streamed' if played.stream else 'whole'}: {each}" for each in found]


def two_meanings(whole: Played, streamed: Played) -> list[str]:
    """Whether one reply has two meanings by the way of asking."""
    first, second = (each.told.meaning(each.turn) for each in (whole, streamed))
    if whole.kind.streamed_right or first == second:
        return []
    return [f"{whole.kind.name}: two meanings: {first:.200} and {second:.200}"]


def _well(told: Told) -> bool:
    return told.outcome == "success" and told.took_s < 4


def _misses(right: Right, told: Told, deeds: tuple[str, ...]) -> list[str]:
    found = [] if Counter(deeds) == Counter(right.deeds) else [f"deeds {deeds}, not {right.deeds}"]
    body = told.body
    if told.outcome not in right.outcomes:
        words = body.get("error", body)
        return [*found, f"{told.outcome}, not {right.outcomes}: {words!s:.200}"]
    if "error" in body:
        retryable = body["error"]["retryable"]
        return found if right.retryable in {None, retryable} else [*found, f"retryable {retryable}"]
    return found + _misses_of_answer(right, body)


def _misses_of_answer(right: Right, body: dict[str, Any]) -> list[str]:
    result = body["result"]
    found = [f"{part!r} is missing from {result!r:.120}" for part in right.contains if part not in result]
    if right.result is not None and result.strip() != right.result:
        found.append(f"result {result!r:.120}")
    if not result.strip():
        found.append("an empty result")
    if body["finish_reason"] not in right.finish:
        found.append(f"finish_reason {body['finish_reason']}")
    found += [f"{part} not in degraded {body['degraded']}" for part in right.degraded if part not in body["degraded"]]
    counted = body["usage"]["input_tokens"], body["usage"]["output_tokens"]
    if (min(counted) <= 0 and body["finish_reason"] != "content_filter") or (right.usage and counted != right.usage):
        found.append(f"usage {counted}")
    calls = Counter((each["name"], each["status"]) for each in body["tool_calls"])
    wanted = Counter(right.calls)
    anything = [(name, status) for name, status in wanted.elements() if name == "*"]
    rest = list((calls - wanted).elements())
    if (wanted - calls) - Counter(anything) or [status for _, status in rest] != [status for _, status in anything]:
        found.append(f"calls {sorted(calls.elements())}")
    return found
