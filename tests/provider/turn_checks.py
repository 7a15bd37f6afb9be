"""Checks a turn against what the kind of its model's reply allows."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reply_kinds import NEXT_ANSWER

if TYPE_CHECKING:
    from reply_kinds import ExpectedTurn, ReplyKind

NEVER = ("Traceback", "ray::", "127.0.0.1", "sk-stub")


@dataclass(frozen=True, slots=True)
class TurnResponse:
    """All that a client received of one turn."""

    status: int
    body: dict[str, Any]
    """The answer, or `{"error": …}`."""
    took_s: float = 0
    shown: str = ""
    """All text that was sent, without what a restart discards."""
    streamed: str | None = None
    """The pieces of the answer, put together; None where it was not streamed."""

    @property
    def outcome(self) -> str:
        return str(self.body["error"]["code"] if "error" in self.body else self.body.get("status"))

    def meaning(self, turn: str) -> str:
        """Returns what must be equal for a whole and a streamed reply, without the turn's own name."""
        body = self.body
        if "error" in body:
            return f"{self.outcome}, retryable {body['error']['retryable']}"
        calls = [(each["name"], each["arguments"], each["status"]) for each in body["tool_calls"]]
        seen = [self.outcome, body["result"], body["degraded"], body["finish_reason"], calls]
        return json.dumps(seen, ensure_ascii=False, sort_keys=True).replace(turn, "TURN")


@dataclass(frozen=True, slots=True)
class PlayedTurn:
    """One turn with a kind of reply, and the next message of its session."""

    kind: ReplyKind
    turn: str
    stream: bool
    response: TurnResponse
    after: TurnResponse
    deeds: tuple[str, ...] = ()
    tries: int = 0
    refused: tuple[str, ...] = ()
    """What was invalid in the requests."""
    beside: list[TurnResponse] = field(default_factory=list)
    """Turns of other sessions at the same time."""


def find_faults(played: PlayedTurn) -> list[str]:
    """Returns all that is wrong with a turn, in words."""
    response, kind = played.response, played.kind
    right = (kind.streamed_right or kind.right) if played.stream else kind.right
    misses = [_find_misses(each, response, played.deeds) for each in right]
    found = [] if not all(misses) else [f"outcome: {'; '.join(min(misses, key=len))}"]
    if response.outcome == "internal" or response.status == 500:
        found.append("an internal error")
    if response.took_s > kind.within_s:
        found.append(f"slow: {response.took_s:.1f} s")
    found += [f"shown: {word}" for word in (*kind.hidden, *NEVER) if word in response.shown]
    found += [f"refused: {each}" for each in played.refused]
    if played.tries > kind.tries:
        found.append(f"asked {played.tries} times")
    if played.after.body.get("result") != NEXT_ANSWER or played.after.outcome != "success":
        found.append(f"next message: {played.after.status} {str(played.after.body)[:120]}")
    if (
        response.streamed is not None
        and "result" in response.body
        and not response.streamed.endswith(response.body["result"])
    ):
        found.append(f"streamed {response.streamed[-80:]!r}, answered {response.body['result'][-80:]!r}")
    found += [f"a bystander: {each.outcome} after {each.took_s:.1f} s" for each in played.beside if not _is_well(each)]
    return [f"{kind.name} {'streamed' if played.stream else 'whole'}: {each}" for each in found]


def find_differences(whole: PlayedTurn, streamed: PlayedTurn) -> list[str]:
    """Returns a difference in meaning between the whole and the streamed reply."""
    first, second = (each.response.meaning(each.turn) for each in (whole, streamed))
    if whole.kind.streamed_right or first == second:
        return []
    return [f"{whole.kind.name}: two meanings: {first:.200} and {second:.200}"]


def _is_well(response: TurnResponse) -> bool:
    return response.outcome == "success" and response.took_s < 4


def _find_misses(right: ExpectedTurn, response: TurnResponse, deeds: tuple[str, ...]) -> list[str]:
    found = [] if Counter(deeds) == Counter(right.deeds) else [f"deeds {deeds}, not {right.deeds}"]
    body = response.body
    if response.outcome not in right.outcomes:
        words = body.get("error", body)
        return [*found, f"{response.outcome}, not {right.outcomes}: {words!s:.200}"]
    if "error" in body:
        retryable = body["error"]["retryable"]
        return found if right.retryable in {None, retryable} else [*found, f"retryable {retryable}"]
    return found + _find_misses_of_answer(right, body)


def _find_misses_of_answer(right: ExpectedTurn, body: dict[str, Any]) -> list[str]:
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
