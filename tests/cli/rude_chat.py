"""A service for load tests that answers each message as the message says, well or badly."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web
from listening import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "the-right-key"
TEXT = "Grüße 你好 🙂"
SCRIPT = "<script>alert(1)</script>"
JSON = "application/json"


def answer(body: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"result": TEXT, "session_id": body["session_id"], "status": "success", "run_id": "r", **changes}


def _error(code: str, reason: str) -> str:
    return json.dumps(
        {"error": {"code": code, "message": "No", "retryable": True, "request_id": "q", "reason": reason}}
    )


def _refuse(status: int, code: str, reason: str) -> Callable[[dict[str, Any]], web.Response]:
    return lambda _: web.Response(status=status, text=_error(code, reason), content_type=JSON)


def _say(status: int, text: str, kind: str = JSON, **headers: str) -> Callable[[dict[str, Any]], web.Response]:
    return lambda _: web.Response(status=status, text=text, content_type=kind, headers=headers)


def _answer(**changes: Any) -> Callable[[dict[str, Any]], web.Response]:
    return lambda body: web.json_response(answer(body, **changes))


WHOLE = {
    "degraded": _answer(status="degraded", degraded=["tool:order_query"]),
    "waiting": _answer(status="waiting"),
    "cached": _answer(cached=True),
    "malformed": _say(200, '{"result": "ha'),
    "nested": _say(200, "[" * 100_000),
    "array": _say(200, "[1]"),
    "unfit": _answer(status=["success"]),
    "stranger": _answer(session_id="another"),
    "huge": _say(200, " " * (9 << 20)),
    "429": _refuse(429, "rate_limited", "rate_limited"),
    "503": _refuse(503, "overloaded", "queue_full"),
    "500": _refuse(500, "internal", "internal"),
    "422": _refuse(422, "invalid_request", "invalid"),
    "script": _refuse(503, "model_unavailable", SCRIPT),
    "proxy": _say(503, "<html>503 Service Temporarily Unavailable", "text/html"),
    "plain": _say(503, "no healthy upstream", "text/plain"),
    "redirect": _say(302, "", Location="/elsewhere"),
    "no-stream": _answer(),
}
"""The first word of the message -> the whole response."""
RAW = {
    "closes": b"",
    "mid-header": b"HTTP/1.1 200 OK\r\nContent-Ty",
    "no-http": b"220 mail.example.com ESMTP\r\n\r\n",
    "broken": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
}
"""The first word of the message -> all bytes before the connection is closed."""


def frame(event: str, data: Any) -> bytes:
    return f"id: 1\nevent: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def token(text: str) -> bytes:
    return frame("token", {"text": text, "restart": False})


ENDS = {
    "ends": b"",
    "half": b"event: answer\ndata: {",
    "failed": b"event: error\ndata: " + _error("model_unavailable", "no model").encode() + b"\n\n",
    "cancelled": frame("cancelled", {"run_id": "r"}),
    "bad-token": b"event: token\ndata: {\n\n",
    "bad-answer": frame("answer", {"result": 1}),
}
"""The first word of the message -> how its stream ends."""


class RudeChat:
    """`POST /agent/chat`. The first word of the message chooses what happens.

    `seen` has the body of each request and when it came. A message `later X` is answered well once, then like `X`.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[float, dict[str, Any]]] = []
        self.app = web.Application()
        self.app.router.add_post("/agent/chat", self._chat)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.seen.append((time.monotonic(), body))
        if request.headers.get("Authorization", f"Bearer {KEY}") != f"Bearer {KEY}":
            return _refuse(401, "unauthenticated", "unauthenticated")(body)
        word, _, rest = body["user_input"].partition(" ")
        if word == "later":
            word, _, rest = rest.partition(" ") if len(self.seen) > 1 else ("", "", "")
        if word == "slow":
            await asyncio.sleep(float(rest))
        if word in WHOLE:
            return WHOLE[word](body)
        if word in RAW and not body["stream"]:
            assert request.transport
            request.transport.write(RAW[word])
            request.transport.close()
            return web.Response()
        return await self._stream(request, body, word) if body["stream"] else _answer()(body)

    async def _stream(self, request: web.Request, body: dict[str, Any], word: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        await response.write(frame("run", {"run_id": "r", "recovered": False}))
        end = ENDS.get(word, frame("answer", answer(body)))
        if word == "split":
            end = b"".join((token(TEXT[:3]), token(TEXT[3:]), end))
            for place in range(len(end)):
                await response.write(end[place : place + 1])
            return response
        if word != "tokenless":
            await response.write(token("Grüße "))
            await asyncio.sleep(0.05)
            await response.write(token("你好"))
        while word == "endless":
            await response.write(b": nothing\n\n")
            await asyncio.sleep(0.05)
        while word == "flood":
            await response.write(b"data: " + b"x" * 65536)
        if word == "broken":
            assert request.transport
            request.transport.abort()
            return response
        await response.write(end)
        if word == "open":
            await asyncio.sleep(60)
        return response


@contextmanager
def rude_chat() -> Iterator[tuple[str, RudeChat]]:
    """The service in a thread of its own: its URL, and what it has seen."""
    chat, port = RudeChat(), free_port()
    logger = logging.getLogger("rude_chat")
    logger.disabled = True  # it reports each connection that a test breaks
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        runner = web.AppRunner(chat.app, access_log=None, logger=logger, shutdown_timeout=0)
        _run(loop, runner.setup())
        _run(loop, web.TCPSite(runner, "127.0.0.1", port).start())
        yield f"http://127.0.0.1:{port}", chat
        _run(loop, _stop(runner))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)
        loop.close()


async def _stop(runner: web.AppRunner) -> None:
    """Ends the server and whatever it still answers."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await runner.cleanup()


def _run(loop: asyncio.AbstractEventLoop, step: Any) -> None:
    asyncio.run_coroutine_threadsafe(step, loop).result(timeout=10)
