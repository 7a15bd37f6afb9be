"""A chat completions server on loopback that is strict as OpenAI's and sends any bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from request_checks import find_violations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HttpReply:
    """The bytes of one HTTP answer, piece by piece."""

    pieces: tuple[bytes, ...]
    status: int = 200
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0
    """Before the first byte."""
    end: Literal["whole", "close", "abort", "hang"] = "whole"
    """`whole` ends the last chunk, `close` the connection in good order, `abort` resets it, `hang` sends no more."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One request of a client."""

    body: dict[str, Any]
    headers: dict[str, str]
    number: int
    """The number of earlier requests with this user message and step."""

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.body["messages"]
        return messages

    @property
    def user(self) -> str:
        """The last user message."""
        return str(self.messages[self._last_user]["content"])

    @property
    def step(self) -> int:
        """The number of replies of this turn so far."""
        return sum(each["role"] == "assistant" for each in self.messages[self._last_user :])

    @property
    def results(self) -> list[str]:
        """The tool results of the latest step."""
        after = [place for place, each in enumerate(self.messages) if each["role"] == "assistant"]
        return [str(each["content"]) for each in self.messages[after[-1] + 1 :]] if after else []

    @property
    def _last_user(self) -> int:
        return max(place for place, each in enumerate(self.messages) if each["role"] == "user")


@dataclass(repr=False)
class StrictProvider:
    """A running server; `answer` makes the reply to each request that is not refused."""

    answer: Callable[[ModelRequest], HttpReply]
    url: str = ""
    requests: list[ModelRequest] = field(default_factory=list)
    refused: list[tuple[str, list[str]]] = field(default_factory=list)
    """User message and violations of each request that OpenAI would refuse."""
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Requests by user message and step."""
    failures: list[str] = field(default_factory=list)
    """Errors of the stub itself."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _open: dict[asyncio.StreamWriter, asyncio.Task[Any] | None] = field(default_factory=dict)
    """Open connections, and the task that answers each."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection."""
        self._open[writer] = asyncio.current_task()
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._exchange(reader, writer):
                pass
        writer.close()
        del self._open[writer]

    async def run(self, ready: threading.Event) -> None:
        """Listens until `stopping` is set, then resets open connections."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=1 << 24)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        ready.set()
        await self.stopping.wait()
        server.close()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.gather(*filter(None, self._open.values()))

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; whether the connection goes on."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        body = json.loads(await reader.readexactly(int(length[1]))) if length else {}
        lines = head.decode("latin-1").split("\r\n")[1:]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
        try:
            reply = self._reply(body, headers)
        except Exception as error:  # noqa: BLE001 - shown by the test
            self.failures.append(f"{type(error).__name__}: {error}")
            return False
        return await self._send(reply, writer)

    def _reply(self, body: dict[str, Any], headers: dict[str, str]) -> HttpReply:
        ask = ModelRequest(body, headers, 0)
        ask = replace(ask, number=self.counts[ask.user, ask.step])
        self.counts[ask.user, ask.step] += 1
        self.requests.append(ask)
        if found := find_violations(body):
            self.refused.append((ask.user, found))
            error = {"message": "Invalid: " + "; ".join(found), "type": "invalid_request_error", "code": None}
            return HttpReply((json.dumps({"error": error}).encode(),), status=400)
        return self.answer(ask)

    async def _send(self, reply: HttpReply, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(reply.delay_s)
        chunked = reply.end != "close"
        framing = ("Transfer-Encoding", "chunked") if chunked else ("Connection", "close")
        fields = [("Content-Type", reply.content_type), framing, *reply.headers]
        head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        writer.write(f"HTTP/1.1 {reply.status} S\r\n{head}\r\n".encode("latin-1"))
        for piece in reply.pieces:
            if piece:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await writer.drain()
                await asyncio.sleep(0)  # a read of the client's for each piece, as far as the system lets it
        if reply.end == "abort":
            await asyncio.sleep(0.02)
            writer.transport.abort()
        if reply.end == "hang":
            await self.stopping.wait()
        if reply.end == "whole":
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        return reply.end == "whole"

    def tries(self, user: str) -> int:
        """Returns the number of requests for the first step of a message."""
        return self.counts[user, 0]


@contextlib.contextmanager
def run_provider(answer: Callable[[ModelRequest], HttpReply]) -> Iterator[StrictProvider]:
    """Runs a provider in its own thread, for the block."""
    provider, ready, loop = StrictProvider(answer), threading.Event(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(provider.run(ready),))
    thread.start()
    assert ready.wait(10)
    try:
        yield provider
    finally:
        loop.call_soon_threadsafe(provider.stopping.set)
        thread.join(10)
        loop.close()
