"""A provider on loopback: it answers by script, or as a small model that calls its tools by their schemas."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
Body = dict[str, Any]


@dataclass
class Answer:
    """What is sent: the pieces with `pause_s` between them; `cut` breaks the connection after them."""

    pieces: list[bytes]
    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    pause_s: float = 0.0
    cut: bool = False


Script = Callable[[Body], Answer]


@dataclass
class Stub:
    url: str = ""
    script: Script | None = None
    bodies: list[Body] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    peers: list[int] = field(default_factory=list)
    disconnected: threading.Event = field(default_factory=threading.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.peers.append(request.transport.get_extra_info("peername")[1])
        answer = (self.script or well)(body)
        response = web.StreamResponse(
            status=answer.status, headers={"Content-Type": answer.content_type, **answer.headers}
        )
        try:
            await response.prepare(request)
            for piece in answer.pieces:
                await response.write(piece)
                await asyncio.sleep(answer.pause_s)
            if answer.cut:
                request.transport.abort()
            await response.write_eof()
        except (ConnectionError, asyncio.CancelledError):
            self.disconnected.set()
            raise
        return response


@contextmanager
def serving() -> Iterator[Stub]:
    """Runs the provider in a thread, so that calls from any event loop reach it."""
    stub, started, loop = Stub(), threading.Event(), asyncio.new_event_loop()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/chat/completions", stub.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        stub.url = f"http://127.0.0.1:{port}/v1"
        started.set()

    def run() -> None:
        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    try:
        yield stub
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def whole(message: Body, finish: str | None = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    body = {"id": "x", "object": "chat.completion", "model": "stub", "choices": [choice], "usage": USAGE, **more}
    return json.dumps(body).encode()


def chunk(delta: Body | None, finish: str | None = None, **more: Any) -> Body:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "x", "object": "chat.completion.chunk", "model": "stub", "choices": choices, **more}


def events(*chunks: Body, done: bool = True) -> bytes:
    sent = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks)
    return sent + (b"data: [DONE]\n\n" if done else b"")


def streamed(message: Body, finish: str | None = "stop", width: int = 4, model: str = "stub") -> bytes:
    """The message in pieces of `width` characters, its calls' arguments too."""
    text = message.get("content") or ""
    chunks = [chunk({"role": "assistant", "content": ""})]
    chunks += [chunk({"content": text[at : at + width]}) for at in range(0, len(text), width)]
    for index, call in enumerate(message.get("tool_calls") or []):
        arguments = call["function"]["arguments"]
        head = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
        chunks.append(chunk({"tool_calls": [head]}))
        for at in range(0, len(arguments), width):
            piece = {"index": index, "function": {"arguments": arguments[at : at + width]}}
            chunks.append(chunk({"tool_calls": [piece]}))
    chunks.append(chunk({}, finish))
    chunks.append({"id": "x", "model": "stub", "choices": [], "usage": USAGE})
    return events(*({**each, "model": model} for each in chunks))


def call(name: str | None, arguments: Any, label: str | None = "call_a") -> Body:
    made: Body = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return made if label is None else {**made, "id": label}


def well(body: Body) -> Answer:
    """Answers as a model that calls its first tool once, then speaks; refuses what OpenAI refuses."""
    refused = refusal(body)
    if refused:
        error = {"error": {"message": refused, "type": "invalid_request_error", "code": None}}
        return Answer([json.dumps(error).encode()], status=400)
    message, finish = _message(body)
    if body.get("stream"):
        return Answer([streamed(message, finish, model=body["model"])], content_type="text/event-stream")
    return Answer([whole(message, finish, model=body["model"])])


def refusal(body: Body) -> str:
    """Why OpenAI would refuse the body; "" if it would not."""
    waiting: list[str] = []
    for message in body["messages"]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting or not isinstance(message["content"], str):
                return "a tool message that answers no call"
            waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            return "a call without its result"
        for each in message.get("tool_calls") or []:
            if not isinstance(json.loads(each["function"]["arguments"]), dict):
                return "arguments that are no object"
            waiting.append(each["id"])
        if message.get("content") is None and not message.get("tool_calls"):
            return "a message without content"
    return ""


def _message(body: Body) -> tuple[Body, str]:
    last = body["messages"][-1]
    form = (body.get("response_format") or {}).get("json_schema")
    if form:
        return {"content": json.dumps(_made(form["schema"], form["schema"]))}, "stop"
    if "response_format" in body:
        return {"content": json.dumps({"setup": "why", "punchline": "because"})}, "stop"
    tools = body.get("tools") or []
    if tools and last["role"] == "user" and body.get("tool_choice") != "none":
        chosen = body.get("tool_choice")
        names = [chosen["function"]["name"]] if isinstance(chosen, dict) else []
        tool = next((each for each in tools if each["function"]["name"] in names), tools[0])["function"]
        made = _made(tool["parameters"], tool["parameters"])
        return {"content": None, "tool_calls": [call(tool["name"], json.dumps(made))]}, "tool_calls"
    return {"content": "The answer, in some words: 北京 😀."}, "stop"


def _made(schema: Body, root: Body) -> Any:
    """A value that the schema takes."""
    if "$ref" in schema:
        return _made(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return _made(schema["anyOf"][0], root)
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: _made(each, root) for name, each in schema.get("properties", {}).items()}
    if kind == "array":
        return [_made(schema.get("items", {"type": "string"}), root)]
    return {"integer": 3, "number": 3.0, "boolean": True, "null": None}.get(kind, "你好 こんにちは")
