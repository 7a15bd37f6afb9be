"""The dependencies of a service, and how each of them fails.

Redis, Milvus, the models, the embedding model and an HTTP tool are each behind a proxy, which may be `well`, `slow` (it
takes what it is sent and gives no answer) or `down` (it refuses connections). How a model or a tool answers is its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import threading
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Literal

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tcp_proxy import Proxy, proxied

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from starlette.requests import Request

Mood = Literal["well", "slow", "down"]
DIMENSION = 64
SECRET = "the tool's own words, with key sk-456"


class Upstream:
    """An embedding model and a tool; `looked_up` counts the requests of the tool."""

    def __init__(self) -> None:
        self.looked_up = 0
        self.garbage = False
        self.slow = False
        """Whether the tool gives no answer; what waits for one gets it when this ends."""
        self.app = Starlette(
            routes=[
                Route("/v1/embeddings", self._embed, methods=["POST"]),
                Route("/orders/{order_id}", self._order),
            ]
        )

    async def _embed(self, request: Request) -> Response:
        given = (await request.json())["input"]
        texts = [given] if isinstance(given, str) else given
        data = [{"object": "embedding", "index": each, "embedding": _hashed(text)} for each, text in enumerate(texts)]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return JSONResponse({"object": "list", "model": "hashing", "data": data, "usage": usage})

    async def _order(self, request: Request) -> Response:
        self.looked_up += 1
        while self.slow and not await request.is_disconnected():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.02)
        if self.garbage:
            return Response(f"{{{SECRET}".encode(), media_type="application/json")
        return JSONResponse({"state": "lost at sea"})


class Dependencies:
    """The proxies by name, set from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, proxies: Mapping[str, Proxy]) -> None:
        self._loop = loop
        self.proxies = proxies

    def port(self, name: str) -> int:
        return self.proxies[name].port

    def are(self, **moods: Mood) -> None:
        """How the named ones are from now on; the others are well."""
        asyncio.run_coroutine_threadsafe(self._set(moods), self._loop).result(timeout=30)

    async def _set(self, moods: Mapping[str, Mood]) -> None:
        for name, proxy in self.proxies.items():
            mood = moods.get(name, "well")
            if mood == "down":
                await proxy.refuse()
            else:
                await proxy.listen()
                proxy.silent = mood == "slow"


@contextmanager
def breakable(urls: Mapping[str, str]) -> Iterator[Dependencies]:
    """A proxy in front of each server; they run in a thread of their own."""
    made: list[Dependencies] = []
    ready, done = threading.Event(), threading.Event()

    async def run() -> None:
        async with AsyncExitStack() as stack:
            proxies = {name: await stack.enter_async_context(proxied(url)) for name, url in urls.items()}
            made.append(Dependencies(asyncio.get_running_loop(), proxies))
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=[run()])
    thread.start()
    try:
        assert ready.wait(10)
        yield made[0]
    finally:
        done.set()
        thread.join(timeout=10)


def _hashed(text: str) -> list[float]:
    """Words hashed into a vector of length 1."""
    vector = [0.01] * DIMENSION
    for word in re.findall(r"\w+", text.casefold()):
        vector[hashlib.sha256(word.encode()).digest()[0] % DIMENSION] += 1
    length = math.hypot(*vector)
    return [each / length for each in vector]
