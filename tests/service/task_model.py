"""A deterministic model for inputs such as "task NAME: HOW".

It asks for two facts at once (and, `with the manual`, for a passage), then books and notifies at once, and then answers
with what the tools said in exactly this turn. What else it is sent tells whether conversations were mixed up or broken;
`odd` has a line for each thing that no model may be sent.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import listening
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request

LATENCY_S = 0.3
SLOW_S = 4.0
"""How long a `slow` answer takes to be said."""
PIECES = 12
"""In so many pieces an answer is streamed."""
TASK = re.compile(r"task (\S+)-(\d+): (.*)")
CODE_WORD = re.compile(r"code word (\w+)")
WINDOW = 3
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
DEVICES = {"amberlock": "heron", "brasshinge": "otter", "copperkey": "lynx", "dovetail": "badger"}

Call = tuple[str, dict[str, str]]
Messages = list[dict[str, Any]]


def task(name: str, how: str = "plainly") -> str:
    """What a user says."""
    return f"task {name}: {how}"


def device_of(name: str) -> str:
    """The device whose manual the task `name` looks into."""
    return sorted(DEVICES)[int(name.rpartition("-")[2]) % len(DEVICES)]


def calls_of(name: str, how: str) -> list[list[Call]]:
    """The calls of each step of a task."""
    if "watch" in how:
        return [[("watch", {"item": name})]]
    if "talk" in how:
        return []
    facts: list[Call] = [("price_of", {"item": name}), ("stock_of", {"item": name})]
    if "manual" in how:
        question = f"Which code word opens the {device_of(name)} device?"
        facts.append(("knowledge_search", {"query": question}))
    return [facts, [("book", {"item": name}), ("notify", {"item": name})]]


def answer(name: str, results: list[str]) -> str:
    """What the model says when the tools of the task have said `results`."""
    return (
        f"The task {name} is done: {'; '.join(results) or 'it was to talk for a while about nothing'}. So ends {name}."
    )


class TaskModel:
    """The model of one test session; `abandoned` has the time at which a reader of each task's answer left early."""

    def __init__(self) -> None:
        self.odd: list[str] = []
        self.requested: list[str] = []
        self.abandoned: dict[str, float] = {}
        self.app = Starlette(routes=[Route("/v1/chat/completions", self._complete, methods=["POST"])])
        self.url = ""

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        messages: Messages = body["messages"]
        start = max(index for index, each in enumerate(messages) if each["role"] == "user")
        spoken = TASK.fullmatch(messages[start]["content"])
        if spoken is None:
            return JSONResponse({"error": {"message": "no task", "type": "bad", "code": None}}, 400)
        name, how = f"{spoken[1]}-{spoken[2]}", spoken[3]
        self.requested.append(name)
        self.odd.extend(f"{name}: {what}" for what in _odd(messages, start, spoken[1], int(spoken[2])))
        turn = messages[start + 1 :]
        steps, step = calls_of(name, how), sum(bool(each.get("tool_calls")) for each in turn)
        calls = steps[step] if step < len(steps) else []
        results = [_quoted(each["content"]) for each in turn if each["role"] == "tool"]
        text = answer(name, results) if not calls else "Let me look. " if int(spoken[2]) % 2 else ""
        if body.get("stream"):
            return StreamingResponse(self._frames(name, how, text, calls), media_type="text/event-stream")
        await asyncio.sleep(SLOW_S if "slow" in how and not calls else LATENCY_S)
        message = {"role": "assistant", "content": text or None}
        if calls:
            message["tool_calls"] = [_call(index, *each) for index, each in enumerate(calls)]
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
        return JSONResponse({**_head("chat.completion"), "choices": [choice], "usage": USAGE})

    async def _frames(self, name: str, how: str, text: str, calls: list[Call]) -> AsyncIterator[str]:
        whole_s = SLOW_S if "slow" in how and not calls else LATENCY_S
        deltas: list[dict[str, Any]] = [{"content": piece} for piece in _pieces(text)]
        deltas += [{"tool_calls": [{**_call(index, *each), "index": index}]} for index, each in enumerate(calls)]
        ended = False
        try:
            for delta in deltas:
                await asyncio.sleep(whole_s / len(deltas))
                yield _frame([{"index": 0, "delta": delta, "finish_reason": None}])
            yield _frame([{"index": 0, "delta": {}, "finish_reason": "tool_calls" if calls else "stop"}])
            yield _frame([], USAGE)
            yield "data: [DONE]\n\n"
            ended = True
        finally:
            if not ended:
                self.abandoned[name] = time.monotonic()


@contextmanager
def served(model: TaskModel) -> Iterator[TaskModel]:
    """The model on a port of its own."""
    with listening.served(model.app) as url:
        model.url = f"{url}/v1"
        yield model


def _odd(messages: Messages, start: int, session: str, number: int) -> Iterator[str]:
    """What is wrong with a conversation of `session` whose task `number` begins at `start`."""
    spoken = [TASK.fullmatch(each["content"]) for each in messages[: start + 1] if each["role"] == "user"]
    tasks = [(each[1], int(each[2])) if each else None for each in spoken]
    wanted = [(session, each) for each in range(max(1, number - WINDOW), number + 1)]
    if tasks != wanted:
        yield f"its tasks are {tasks}, and not {wanted}"
    opened: list[str] = []
    for each in messages:
        if each["role"] == "tool":
            if each["tool_call_id"] not in opened:
                yield f"a result without its call: {each}"
                continue
            opened.remove(each["tool_call_id"])
            continue
        if opened:
            yield f"calls without results: {opened}"
        opened = [call["id"] for call in each.get("tool_calls") or []]
    for each in messages[start + 1 :]:
        if each["role"] == "tool" and not _of_turn(each["content"], f"{session}-{number}"):
            yield f"a result of another turn: {each['content']}"


def _of_turn(content: str, name: str) -> bool:
    """Whether a tool may have said this in the turn of the task `name`; passages and errors name no task."""
    return content.startswith(("[", "error:")) or name in content.split()


def _quoted(content: str) -> str:
    """A tool's words, of passages the code word of the first."""
    if not content.startswith("["):
        return content
    found = CODE_WORD.search(content)
    return f"code word {found[1]}" if found else "no passage"


def _call(index: int, name: str, arguments: dict[str, str]) -> dict[str, Any]:
    """With an id that comes again in each step, as some providers' do."""
    return {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def _pieces(text: str) -> list[str]:
    size = max(1, -(-len(text) // PIECES))
    return [text[start : start + size] for start in range(0, len(text), size)]


def _head(kind: str) -> dict[str, Any]:
    return {"id": "x", "object": kind, "created": 0, "model": "tasks"}


def _frame(choices: list[Any], usage: dict[str, int] | None = None) -> str:
    return f"data: {json.dumps({**_head('chat.completion.chunk'), 'choices': choices, 'usage': usage})}\n\n"
