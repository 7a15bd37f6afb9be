"""The service with a model that replies as real ones have been seen to: right deeds, honest answers, whole sessions."""

from __future__ import annotations

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from replies_of_calls import ARGUMENTS, CALLS, DEEDS, ENDS, IDS, NAMES, PLACES, STEPS
from replies_of_ends import BODIES, LASTING, OVERFLOWS, PARAMETERS, PASSING, READS_LITTLE, REASONS, SLOW, STOPS, STREAMS
from replies_of_text import CONTENT, COSTS, FRAMING, LETTERS, TEXTS, THINKING
from reply_kinds import NEXT, answer_by_kind
from running_service import beside
from strict_provider import run_provider
from turn_checks import PlayedTurn, TurnResponse, find_differences, find_faults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reply_kinds import ReplyKind
    from running_service import Service
    from strict_provider import StrictProvider

NAME = "replies"
AT_ONCE = 6
"""Sessions that talk at the same time."""
FAMILIES = {
    "ids": [*IDS, *STEPS],
    "places": PLACES,
    "deeds": DEEDS,
    "arguments": ARGUMENTS,
    "names": NAMES,
    "ends of calls": ENDS,
    "content": CONTENT,
    "thinking": THINKING,
    "letters": LETTERS,
    "framing": FRAMING,
    "usage": COSTS,
    "finish reasons": REASONS,
    "streams that stop": STREAMS,
    "bodies": BODIES,
    "overflows": OVERFLOWS,
    "passing errors": PASSING,
    "lasting errors": LASTING,
    "parameters": PARAMETERS,
}
QUICK = {"deeds", "ends of calls", "streams that stop"}
"""The families of the wrong deeds; the others take a minute."""
TOOLS: dict[str, Any] = {
    "look_up": {"function": "reply_tools:look_up"},
    "pack": {"function": "reply_tools:pack"},
    "stumble": {"function": "reply_tools:stumble"},
    "book": {"function": "reply_tools:book", "effect": "effect"},
    "refund": {"function": "reply_tools:refund", "effect": "effect"},
}
numbers = itertools.count()


@dataclass(frozen=True)
class Scene:
    """The service, its provider, and the file of deeds."""

    service: Service
    provider: StrictProvider

    def ask(self, text: str, session: str, *, stream: bool) -> TurnResponse:
        """Runs one turn; returns all that its client received."""
        body = {"user_input": text, "session_id": session, "stream": stream}
        begun = time.monotonic()
        with self.service.client() as client:
            response = client.post("/agent/chat", json=body)
        took_s = time.monotonic() - begun
        if not response.headers["content-type"].startswith("text/event-stream"):
            return TurnResponse(response.status_code, response.json(), took_s, response.text)
        lines = [line.partition(": ")[::2] for line in response.text.splitlines() if line.startswith(("event", "data"))]
        frames = [(name, json.loads(data)) for (_, name), (_, data) in zip(lines[::2], lines[1::2], strict=True)]
        streamed = ""
        for name, data in frames:
            if name == "token":
                streamed = data["text"] if data["restart"] else streamed + data["text"]
        shown = streamed + "".join(json.dumps(data) for name, data in frames if name not in {"token", "run"})
        return TurnResponse(response.status_code, frames[-1][1], took_s, shown, streamed or None)

    def play(self, kind: ReplyKind, *, stream: bool) -> PlayedTurn:
        """A turn with the kind's reply, and the session's next message."""
        turn = f"t{next(numbers)}"
        user = f"reply as {kind.name} in {turn}"
        with ThreadPoolExecutor() as pool:
            playing = pool.submit(self.ask, user, turn, stream=stream)
            others = [pool.submit(self.ask, NEXT, f"{turn}-{each}", stream=False) for each in range(2 * kind.harms)]
            response, beside = playing.result(), [each.result() for each in others]
        after = self.ask(NEXT, turn, stream=not stream)
        deeds = [line.removeprefix(f"{turn} ") for line in self.deeds() if line.startswith(f"{turn} ")]
        refused = [str(found) for wanted_user, found in self.provider.refused if wanted_user == user]
        return PlayedTurn(
            kind, turn, stream, response, after, tuple(deeds), self.provider.tries(user), tuple(refused), beside
        )

    def deeds(self) -> list[str]:
        path = self.service.data_dir / "reply-deeds"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(scope="module")
def scene(service: Service) -> Iterator[Scene]:
    with run_provider(answer_by_kind([*CALLS, *TEXTS, *STOPS, *SLOW, READS_LITTLE])) as provider:
        model = {"name": "openai:odd", "base_url": provider.url, "timeout_s": 6, "breaker_failures": 1000}
        settings = {"model": model, "tools": TOOLS, "agent": {"turn_timeout_s": 25}, "knowledge": {"collection": NAME}}
        with beside(service, NAME, settings) as running:
            yield Scene(running, provider)


def _found(scene: Scene, kinds: list[ReplyKind]) -> list[str]:
    """All that is wrong with the turns of these kinds, asked both ways, several sessions at a time."""
    both = list(itertools.product(kinds, (False, True)))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        played = list(pool.map(lambda each: scene.play(each[0], stream=each[1]), both))
    found = [line for each in played for line in find_faults(each)]
    for whole, streamed in zip(played[::2], played[1::2], strict=True):
        found += find_differences(whole, streamed)
    found += [f"nobody asked for: {line}" for line in scene.deeds() if line.startswith("nobody")]
    return found + scene.provider.failures


@pytest.mark.parametrize(
    "family", [each if each in QUICK else pytest.param(each, marks=pytest.mark.long) for each in FAMILIES]
)
def test_each_reply_comes_to_what_its_model_said_and_the_session_goes_on(scene: Scene, family: str) -> None:
    found = _found(scene, FAMILIES[family])
    assert not found, "\n".join(found)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_session_that_its_model_cannot_read_any_more_goes_on_with_less(scene: Scene, stream: bool) -> None:  # noqa: FBT001
    responses = [scene.ask(f"reply as reads-little in {at}", f"long-{stream}", stream=stream) for at in range(8)]
    assert all("wordy" in each.body["result"] for each in responses)
    assert [each.body["degraded"] for each in responses[:2]] == [[], []]
    assert all(each.body["degraded"] == ["memory"] for each in responses[3:])


@pytest.mark.long
def test_a_model_that_says_no_more_ends_with_its_time(scene: Scene) -> None:
    found = _found(scene, SLOW)
    assert not found, "\n".join(found)
