"""Streams survive behind nginx: for two minutes, and after the death of an upstream.

The two addresses of nginx's upstream are two doors (`tcp_proxy`) to Serve's one port: closing one is what nginx sees of
a node that dies. The ingress' process is killed as well.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from following_client import FollowingClient, frames
from listening import served
from nginx_edge import edge, upstreams
from running_service import beside
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route
from tcp_proxy import Proxy
from two_replicas import kill

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from nginx_edge import Edge
    from running_service import Service
    from starlette.requests import Request
    from two_replicas import Pair

pytestmark = pytest.mark.long

SILENT_S, WORDS, EVERY_S = 80, 20, 2.0
"""First it says nothing for longer than the longest time-out on the way, the 75 s of nginx; then a word every two
seconds."""


@asynccontextmanager
async def _doors(folder: Path, service: Service) -> AsyncIterator[tuple[Edge, list[Proxy]]]:
    port = urlsplit(service.url).port or 0
    doors = [Proxy("127.0.0.1", port) for _ in range(2)]
    for door in doors:
        await door.listen()
    with edge(folder, {"upstreams.conf": upstreams([door.port for door in doors])}) as front:
        try:
            yield front, doors
        finally:
            for door in doors:
                await door.refuse()


@pytest.mark.parametrize("dies", ["door", "ingress"])
async def test_a_stream_whose_backend_dies_is_resumed_without_gap_or_duplicate(
    pair: Pair, tmp_path: Path, dies: str
) -> None:
    async with _doors(tmp_path, pair) as (front, doors), front.client(path="/pair") as http:
        client = FollowingClient(http)
        names = [f"nginx{dies}{number}-1" for number in range(8)]
        turns = [asyncio.create_task(client.turn(name, "slow", f"k-{name}", stream=True)) for name in names]
        await asyncio.sleep(2.5)
        if dies == "door":
            await doors[0].refuse()
        else:
            kill(pair.replicas("Ingress")[0])
        turns_followed = await asyncio.gather(*turns)
    assert [wrong for each in turns_followed for wrong in each.wrong()] == []
    assert any(each.tries for each in turns_followed), "nothing broke: the death was not felt"
    if dies == "ingress":
        await asyncio.to_thread(pair.wait_until_whole)


@contextmanager
def _slow_model() -> Iterator[str]:
    async def words() -> AsyncIterator[str]:
        await asyncio.sleep(SILENT_S)
        for number in range(WORDS):
            yield _chunk({"content": f"w{number} "}, None)
            await asyncio.sleep(EVERY_S)
        yield _chunk({}, "stop")
        yield "data: [DONE]\n\n"

    async def complete(_: Request) -> StreamingResponse:
        return StreamingResponse(words(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
    with served(app) as url:
        yield f"{url}/v1"


def _chunk(delta: dict[str, str], finish: str | None) -> str:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "slow", "choices": choices}
    return f"data: {json.dumps(chunk)}\n\n"


async def test_a_stream_of_two_minutes_survives(service: Service, tmp_path: Path) -> None:
    with _slow_model() as url:
        model = {"name": "openai:slow", "base_url": url, "api_key_env": "STUB_KEY", "timeout_s": 400, "attempts": 1}
        configuration = {"model": model, "agent": {"turn_timeout_s": 400}, "knowledge": {"collection": "slowly"}}
        with beside(service, "slowly", configuration) as slow:
            async with _doors(tmp_path, service) as (front, _), front.client() as http:
                json_body = {"user_input": "hello", "session_id": "s1", "stream": True}
                begun = time.monotonic()
                path = urlsplit(slow.url).path + "/agent/chat"
                async with http.stream("POST", path, json=json_body) as response:
                    assert response.status_code == 200
                    came = [frame async for frame in frames(response)]
    assert time.monotonic() - begun > SILENT_S + WORDS * EVERY_S - 5
    assert [frame.id for frame in came] == [str(number) for number in range(1, len(came) + 1)]
    assert came[-1].event == "answer"
    assert came[-1].data["result"].split() == [f"w{number}" for number in range(WORDS)]
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(came)]
    assert sum(gap > EVERY_S * 3 for gap in gaps) <= 1, "the words came in heaps, but for the silence at first"
