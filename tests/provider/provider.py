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

from strictness import complaints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reply:
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
class Ask:
    """One request of a client."""

    body: dict[str, Any]
    headers: dict[str, str]
    number: int
    """How many requests with this user message came before, of this step."""

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.body["messages"]
        return messages

    @property
    def user(self) -> str:
        """What the user said last."""
        return str(self.messages[self._last_user]["content"])

    @property
    def step(self) -> int:
        """How many replies of this turn the conversation has."""
        return sum(each["role"] == "assistant" for each in self.messages[self._last_user :])

    @property
    def results(self) -> list[str]:
        """What the tools of the latest step brought."""
        after = [place for place, each in enumerate(self.messages) if each["role"] == "assistant"]
        return [str(each["content"]) for each in self.messages[after[-1] + 1 :]] if after else []

    @property
    def _last_user(self) -> int:
        return max(place for place, each in enumerate(self.messages) if each["role"] == "user")


@dataclass(repr=False)
class Provider:
    """A running server; `answer` makes the reply to each request that is not refused."""

    answer: Callable[[Ask], Reply]
    url: str = ""
    asked: list[Ask] = field(default_factory=list)
    refused: list[tuple[str, list[str]]] = field(default_factory=list)
    """The user's words and the complaints of each request that OpenAI would refuse."""
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By the user's words and the step, how often they were sent."""
    failures: list[str] = field(default_factory=list)
    """Errors of the stub itself."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _open: dict[asyncio.StreamWriter, asyncio.Task[Any] | None] = field(default_factory=dict)
    """Connections that clients hold, and who answers on each."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection."""
        self._open[writer] = asyncio.current_task()
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._exchange(reader, writer):
                pass
        writer.close()
        del self._open[writer]

    async def run(self, ready: threading.Event) -> None:
        """Listens until it is told to stop, and then resets what is open."""
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

    def _reply(self, body: dict[str, Any], headers: dict[str, str]) -> Reply:
        ask = Ask(body, headers, 0)
        ask = replace(ask, number=self.counts[ask.user, ask.step])
        self.counts[ask.user, ask.step] += 1
        self.asked.append(ask)
        if found := complaints(body):
            self.refused.append((ask.user, found))
            error = {"message": "Invalid: " + "; ".join(found), "type": "invalid_request_error", "code": None}
            return Reply((json.dumps({"error": error}).encode(),), status=400)
        return self.answer(ask)

    async def _send(self, reply: Reply, writer: asyncio.StreamWriter) -> bool:
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
        """How often the first step of a message was asked."""
        return self.counts[user, 0]


@contextlib.contextmanager
def provided(answer: Callable[[Ask], Reply]) -> Iterator[Provider]:
    """A provider in a thread of its own, for the block."""
    provider, ready, loop = Provider(answer), threading.Event(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(provider.run(ready),))
    thread.start()
    assert ready.wait(10)
    try:
        yield provider
    finally:
        loop.call_soon_threadsafe(provider.stopping.set)
        thread.join(10)
        loop.close()
