"""A model endpoint in a process of its own, which costs little and whose time is known.

    python -m tests.benchmarks.stub_model

It prints its port. `PUT /settings` sets its latency, the number and interval of the tokens of a stream, and the tool. A
request with tools whose last message is not a tool's result gets one call of the tool, every other one an answer. In a
stream, each token is the time at which it was sent, so that a client knows how long it took.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import cast

import orjson
import uvloop

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
FRAME = {"id": "x", "created": 1, "model": "stub"}
ARGUMENTS = {"order_query": '{"order_id":"OD-1"}', "knowledge_search": '{"query":"pump 77 pressure"}'}
CALLS = {
    name: {"id": "call_a", "type": "function", "function": {"name": name, "arguments": arguments}}
    for name, arguments in ARGUMENTS.items()
}
ANSWER = {"role": "assistant", "content": "Order OD-1 was sent yesterday and arrives tomorrow."}
DONE = b"data: [DONE]\n\n"


@dataclass(slots=True)
class Settings:
    """How the model answers."""

    latency_s: float = 0.0
    """To the first token of a stream, or to the whole of another answer."""
    tokens: int = 20
    token_interval_s: float = 0.0
    tool: str = "order_query"


class Endpoint(asyncio.Protocol):
    """One connection of a client; it sends one request after another."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._received = b""
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        if len(rest) >= length:
            self._received = rest[length:]
            body = orjson.loads(rest[:length])
            if head.startswith(b"PUT"):
                for name, value in body.items():
                    setattr(self._settings, name, value)
                self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            else:
                self._answer(body)

    def _answer(self, body: dict[str, object]) -> None:
        messages = body["messages"]
        assert isinstance(messages, list)
        wants_call = bool(body.get("tools")) and messages[-1]["role"] != "tool"
        if body.get("stream"):
            task = asyncio.get_running_loop().create_task(self._stream(wants_call=wants_call))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif self._settings.latency_s:
            asyncio.get_running_loop().call_later(self._settings.latency_s, self._send_whole, wants_call)
        else:
            self._send_whole(wants_call)

    def _send_whole(self, wants_call: bool) -> None:  # noqa: FBT001 - `call_later` passes it
        call = {"role": "assistant", "content": None, "tool_calls": [CALLS[self._settings.tool]]}
        message, reason = (call, "tool_calls") if wants_call else (ANSWER, "stop")
        choice = {"index": 0, "message": message, "finish_reason": reason}
        body = orjson.dumps({**FRAME, "object": "chat.completion", "choices": [choice], "usage": USAGE})
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)

    async def _stream(self, *, wants_call: bool) -> None:
        settings = self._settings
        await asyncio.sleep(settings.latency_s)
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        if wants_call:
            self._transport.write(_chunk({"role": "assistant", "tool_calls": [{**CALLS[settings.tool], "index": 0}]}))
        else:
            for number in range(settings.tokens):
                if number and settings.token_interval_s:
                    await asyncio.sleep(settings.token_interval_s)
                elif number % 20 == 19:  # as fast as it is read, and no faster
                    await asyncio.sleep(0)
                self._transport.write(_chunk({"content": f" {time.monotonic():.4f}"}))
        self._transport.write(_chunk({}, "tool_calls" if wants_call else "stop") + _frame(DONE) + b"0\r\n\r\n")


def _chunk(delta: dict[str, object], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    more = {"usage": USAGE} if finish_reason else {}
    event = orjson.dumps({**FRAME, "object": "chat.completion.chunk", "choices": [choice], **more})
    return _frame(b"data: " + event + b"\n\n")


def _frame(line: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(line), line)


async def _main() -> None:
    settings = Settings()
    server = await asyncio.get_running_loop().create_server(lambda: Endpoint(settings), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main())
