"""A TCP proxy between a client and its server, for network faults."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from listening import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Proxy:
    """Passes bytes on to a server; while `silent` it takes connections and bytes, and passes none on."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.port = free_port()
        self.received = 0
        """Bytes that clients have sent."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        """Take connections, at the same port as before."""
        if self._listener is None:
            self._listener = await asyncio.start_server(self._took, "127.0.0.1", self.port)

    async def refuse(self) -> None:
        """Break all connections, and take no more."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        listener.close()
        self.silent = False
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        await asyncio.gather(*self._serving)

    @property
    def silent(self) -> bool:
        return not self._open.is_set()

    @silent.setter
    def silent(self, silent: bool) -> None:
        if silent:
            self._open.clear()
        else:
            self._open.set()

    def _took(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, there = await asyncio.open_connection(*self._server)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, there}
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pass(reader, there, sent=True))
            group.create_task(self._pass(answers, writer, sent=False))

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, sent: bool) -> None:
        try:
            while data := await source.read(65536):
                self.received += len(data) if sent else 0
                await self._open.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """A proxy in front of the server at `url`."""
    host, _, port = url.partition("://")[2].partition("/")[0].rpartition(":")
    proxy = Proxy(host, int(port))
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.refuse()
