"""An OpenAI-compatible server on loopback; the model's name chooses how it behaves.

`broken@2` is `broken` with a `Retry-After` of 2, and `broken@` with none; `slow@3` answers after 3 s; `calls@NAME`
calls that tool, and `parrots@NAME` gives it the user's words and says what it brought. A model that is given moods by
`Stub.moods` answers as the models do that these name, call by call, and after the last one well. One whose name ends
with `-heeding` does as the user says, step by step: `be searches, then broken@2: and so on`.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRET_TEXT = "the provider's own words, with key sk-123"
REFUSALS = {
    "rate-limited": (429, "rate_limit_exceeded"),
    "broken": (500, "server_error"),
    "overloaded": (503, "server_error"),
    "wrong-key": (401, "invalid_api_key"),
    "forbidden": (403, "forbidden"),
    "unknown-model": (404, "model_not_found"),
    "bad-request": (400, "invalid_request"),
    "too-long": (400, "context_length_exceeded"),
}
PIN = "4-8-15-16-23"
"""An argument that a tool may mark as sensitive."""
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
RETRY_AFTER = "7"


def stub_app() -> FastAPI:
    app = FastAPI()
    app.state.seen, app.state.moods = [], {}

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        body = await request.json()
        app.state.seen.append((dict(request.headers), body))
        moods = app.state.moods.get(body["model"])
        model, at, after = (moods.pop(0) if moods else _model_name(body)).partition("@")
        if model in REFUSALS:
            status, code = REFUSALS[model]
            error = {"message": SECRET_TEXT, "type": code, "code": code}
            after = after if at else RETRY_AFTER
            return JSONResponse({"error": error}, status, headers={"retry-after": after} if after else {})
        if model == "garbage":
            return Response("<html>not JSON</html>", media_type="text/html")
        if model == "empty":
            return JSONResponse({"id": "x", "object": "chat.completion", "created": 0, "model": model, "choices": None})
        if model == "silent":
            await asyncio.sleep(30)
        if model == "slow":
            await asyncio.sleep(float(after))
        if body.get("stream"):
            return StreamingResponse(_frames(model, after, body), media_type="text/event-stream")
        whole = JSONResponse(_whole(model, after, body))
        return StreamingResponse(_half(bytes(whole.body)), headers=whole.headers) if model == "cut" else whole

    return app


def _model_name(body: dict[str, Any]) -> str:
    """The mood that the model has by its name, or by the user's words."""
    if not body["model"].endswith("-heeding"):
        return str(body["model"])
    roles = [each["role"] for each in body["messages"]]
    last_user = len(roles) - 1 - roles[::-1].index("user")
    moods_match = re.match(r"be ([^:]+)", body["messages"][last_user]["content"])
    moods = moods_match[1].split(", then ") if moods_match else []
    step = roles[last_user:].count("assistant")
    return moods[step] if step < len(moods) else "well"


def _wants_call(model: str, body: dict[str, Any]) -> bool:
    return bool(body.get("tools")) and (model in {"loops", "calls"} or body["messages"][-1]["role"] == "user")


def _words(model: str, body: dict[str, Any]) -> tuple[str, ...]:
    if model == "parrots":
        return (body["messages"][-1]["content"],)
    return () if model == "blank" else ("Hello ", "from ", "the ", "stub.")


def _function(model: str, tool: str, body: dict[str, Any]) -> dict[str, str]:
    """What the model calls."""
    if model == "calls":
        return {"name": tool, "arguments": "{}"}
    if model == "parrots":
        return {"name": tool, "arguments": json.dumps({"text": body["messages"][-1]["content"], "pin": PIN})}
    if model == "searches":
        return {"name": "knowledge_search", "arguments": '{"query": "Which code word opens the amberlock device?"}'}
    return {"name": "order_query", "arguments": '{"order_id": OD' if model == "malformed" else '{"order_id": "OD-1"}'}


async def _half(body: bytes) -> AsyncIterator[bytes]:
    """A body that breaks off in the middle."""
    yield body[: len(body) // 2]
    raise ConnectionResetError


def _whole(model: str, tool: str, body: dict[str, Any]) -> dict[str, Any]:
    called = _wants_call(model, body)
    text = "".join(_words(model, body))
    message: dict[str, Any] = {"role": "assistant", "content": None if called else text}
    if called:
        message["tool_calls"] = [{"id": "call_abc", "type": "function", "function": _function(model, tool, body)}]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if called else "stop"}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": model, "choices": [choice], "usage": USAGE}


async def _frames(model: str, tool: str, body: dict[str, Any]) -> AsyncIterator[str]:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if _wants_call(model, body):
        name, arguments = _function(model, tool, body).values()
        deltas.append(
            {
                "tool_calls": [
                    {"index": 0, "id": "call_abc", "type": "function", "function": {"name": name, "arguments": ""}}
                ]
            }
        )
        deltas += [
            {"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in (arguments[:9], arguments[9:])
        ]
    else:
        deltas += [{"content": word} for word in _words(model, body)]
    for count, delta in enumerate(deltas):
        yield _frame(model, [{"index": 0, "delta": delta, "finish_reason": None}])
        if model == "stalls" and count == 2:
            await asyncio.sleep(30)
        if model == "cut" and count == 2:
            raise ConnectionResetError
        if model == "error-frame" and count == 2:
            yield f"data: {json.dumps({'error': {'message': SECRET_TEXT, 'type': 'server_error', 'code': None}})}\n\n"
            return
        if model == "garbage-frame" and count == 2:
            yield "data: {not json\n\n"
            return
        if model == "drips":
            await asyncio.sleep(0.15)
    yield _frame(model, [{"index": 0, "delta": {}, "finish_reason": "stop"}])
    if (body.get("stream_options") or {}).get("include_usage"):
        yield _frame(model, [], USAGE)
    yield "data: [DONE]\n\n"


def _frame(model: str, choices: list[Any], usage: dict[str, int] | None = None) -> str:
    chunk = {
        "id": "x",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": model,
        "choices": choices,
        "usage": usage,
    }
    return f"data: {json.dumps(chunk)}\n\n"


class Stub:
    """A running stub; `seen` are the headers and bodies that it was asked with, `moods` those of a model to come."""

    def __init__(self, url: str, app: FastAPI) -> None:
        self.url = f"{url}/v1"
        self.seen: list[tuple[dict[str, str], dict[str, Any]]] = app.state.seen
        self.moods: dict[str, list[str]] = app.state.moods

    def count_requests(self, model: str) -> int:
        """How often the model was called."""
        return sum(body["model"] == model for _, body in self.seen)
