"""A client that follows its run: retries with one key, and resumes a cut stream."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
from task_model import DEVICES, answer, calls_of, device_of, task
from traced_tools import result_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AGAIN_AFTER_S = 0.5
MOST_TRIES = 6
UNKNOWN = "error: the outcome of book is unknown; it may have happened, do not repeat it"


@dataclass(frozen=True)
class Frame:
    """One server-sent event as it came."""

    raw: bytes
    at: float
    """By the monotonic clock."""

    def _field(self, name: str) -> str:
        lines = self.raw.decode().splitlines()
        return next((line.removeprefix(f"{name}: ") for line in lines if line.startswith(f"{name}: ")), "")

    @property
    def id(self) -> str:
        return self._field("id")

    @property
    def event(self) -> str:
        return self._field("event")

    @property
    def data(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self._field("data"))
        return read

    @property
    def last(self) -> bool:
        return self.event in {"answer", "error", "cancelled"}


async def frames(response: httpx.Response) -> AsyncIterator[Frame]:
    """The response's frames; comments are left out."""
    rest = b""
    async for piece in response.aiter_raw():
        rest += piece
        while b"\n\n" in rest:
            raw, _, rest = rest.partition(b"\n\n")
            if not raw.startswith(b":"):
                yield Frame(raw + b"\n\n", time.monotonic())


class Refused(Exception):
    """A response that is no answer."""


@dataclass
class FollowedTurn:
    """What a client saw of one turn."""

    name: str
    how: str
    begun: float = field(default_factory=time.monotonic)
    ended: float = 0
    frames: list[Frame] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=dict)
    tries: list[tuple[float, float, str]] = field(default_factory=list)
    """Each try that brought no answer: when it began, when it ended, and how."""

    @property
    def text(self) -> str:
        """The tokens, but for those that were taken back."""
        text = ""
        for frame in self.frames:
            if frame.event == "token":
                text = frame.data["text"] if frame.data["restart"] else text + frame.data["text"]
        return text

    @property
    def run_id(self) -> str | None:
        return self.frames[0].data["run_id"] if self.frames else None

    @property
    def recovered_at(self) -> list[float]:
        """When it was told that another process goes on with the run."""
        return [frame.at for frame in self.frames if frame.event == "run" and frame.data["recovered"]]

    @property
    def unknown(self) -> bool:
        return any(call["status"] == "unknown" for call in self.answer.get("tool_calls", []))

    def wrong(self) -> list[str]:
        """What of the answer, and of the frames, is not as it has to be."""
        calls = [call for step in calls_of(self.name, self.how) for call in step]
        made = [(call["name"], call["arguments"]) for call in self.answer["tool_calls"]]
        statuses = {call["name"]: call["status"] for call in self.answer["tool_calls"]}
        bad = {
            name: status
            for name, status in statuses.items()
            if status != "ok" and (name, status) != ("book", "unknown")
        }
        results = [self._result(name, arguments, statuses.get(name)) for name, arguments in calls]
        degraded = ["tool:book"] if self.unknown else []
        found = {
            "calls": (made, calls),
            "statuses": (bad, {}),
            "result": (self.answer["result"], answer(self.name, results)),
            "degraded": (self.answer["degraded"], degraded),
        }
        if self.frames:
            found["ids"] = ([frame.id for frame in self.frames], [str(each) for each in range(1, len(self.frames) + 1)])
            found["tokens"] = (self.text, self.answer["result"])
            found["first"] = (self.frames[0].event, "run")
        return [f"{self.name}: {what}: {is_}, not {due}" for what, (is_, due) in found.items() if is_ != due]

    def _result(self, tool: str, arguments: dict[str, str], status: str | None) -> str:
        if tool == "knowledge_search":
            return f"code word {DEVICES[device_of(self.name)]}"
        return UNKNOWN if status == "unknown" else result_of(tool, arguments["item"])


@dataclass(frozen=True)
class FollowingClient:
    """Takes a turn to its answer, whatever breaks on the way, and notes what broke."""

    http: httpx.AsyncClient

    async def turn(self, name: str, how: str, key: str, *, stream: bool) -> FollowedTurn:
        """One turn of the session that the task's name names.

        Raises:
            Refused: there was no answer after `MOST_TRIES`.
        """
        turn = FollowedTurn(name, how)
        while not turn.answer:
            begun = time.monotonic()
            try:
                await (self._stream(turn, key) if stream else self._post(turn, key))
            except (httpx.TransportError, Refused) as error:
                turn.tries.append((begun, time.monotonic(), repr(error)))
                if len(turn.tries) == MOST_TRIES:
                    raise Refused(f"{name}: {turn.tries}") from error
                await asyncio.sleep(AGAIN_AFTER_S)
        turn.ended = time.monotonic()
        return turn

    async def _post(self, turn: FollowedTurn, key: str) -> None:
        response = await self.http.post("/agent/chat", json=body(turn.name, turn.how), headers={"Idempotency-Key": key})
        if response.status_code != 200:
            raise Refused(f"{response.status_code} {response.text[:300]}")
        turn.answer = response.json()

    async def _stream(self, turn: FollowedTurn, key: str) -> None:
        if turn.run_id is None:
            json_body = {**body(turn.name, turn.how), "stream": True}
            stream = self.http.stream("POST", "/agent/chat", json=json_body, headers={"Idempotency-Key": key})
        else:
            last = {"Last-Event-ID": turn.frames[-1].id}
            stream = self.http.stream("GET", f"/agent/runs/{turn.run_id}/events", headers=last)
        async with stream as response:
            if response.status_code != 200:
                raise Refused(f"{response.status_code} {(await response.aread())[:300]!r}")
            async for frame in frames(response):
                if frame.event in {"error", "cancelled"}:
                    raise Refused(frame.raw.decode())
                turn.frames.append(frame)
                if frame.last:
                    turn.answer = frame.data
                    return
        raise Refused("the stream ended without its last frame")


def body(name: str, how: str) -> dict[str, str]:
    """The request of a task in the session that its name begins with."""
    return {"user_input": task(name, how), "session_id": name.rpartition("-")[0]}
