"""Observations reach Ray together and once, and a node without a metrics page delays no other."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from serve_app.deployments import replica_metrics
from serve_app.deployments.replica_metrics import FLUSH_EVERY_S, RayMetrics
from serve_app.observability.metric_catalogue import STORE_CALLS, STORE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from serve_app.values import Metric

HANGS_S = 0.3


@dataclass
class RecordedInstrument:
    """An instrument with Ray's methods that keeps its calls."""

    calls: list[tuple[float, dict[str, str]]] = field(default_factory=list)

    def inc(self, by: float, labels: dict[str, str]) -> None:
        assert by > 0, "Ray refuses to count nothing"
        self.calls.append((by, labels))

    def observe(self, value: float, labels: dict[str, str]) -> None:
        self.calls.append((value, labels))


class RecordedRayMetrics(RayMetrics):
    """Ray's metrics with recorded instruments and a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(lambda: self.now)
        self.instruments: dict[Metric, RecordedInstrument] = {}

    def _instrument(self, metric: Metric) -> Any:
        return self.instruments.setdefault(metric, RecordedInstrument())


def test_counts_are_added_up_by_their_labels_and_flushed_together() -> None:
    metrics = RecordedRayMetrics()
    for _ in range(3):
        metrics.count(STORE_CALLS, store="redis", outcome="ok")
    metrics.count(STORE_CALLS, store="redis", outcome="error")
    assert not metrics.instruments
    metrics.now += FLUSH_EVERY_S
    metrics.count(STORE_CALLS, store="redis", outcome="ok")
    counted = {labels["outcome"]: by for by, labels in metrics.instruments[STORE_CALLS].calls}
    assert counted == {"ok": 4, "error": 1}
    metrics.flush()
    assert len(metrics.instruments[STORE_CALLS].calls) == 2, "each count is flushed once"


def test_a_flush_passes_on_what_waits_and_leaves_out_a_count_of_nothing() -> None:
    metrics = RecordedRayMetrics()
    metrics.count(STORE_CALLS, 0, store="redis", outcome="ok")
    metrics.count(STORE_CALLS, 2, store="milvus", outcome="ok")
    metrics.flush()
    assert metrics.instruments[STORE_CALLS].calls == [(2, {"store": "milvus", "outcome": "ok"})]


def test_a_histogram_gets_each_value_once() -> None:
    metrics = RecordedRayMetrics()
    metrics.observe(STORE_S, 0.5, store="redis")
    metrics.observe(STORE_S, 0.5, store="redis")
    assert not metrics.instruments
    metrics.now += FLUSH_EVERY_S
    metrics.observe(STORE_S, 0.7, store="milvus")
    expected = [(0.5, {"store": "redis"}), (0.5, {"store": "redis"}), (0.7, {"store": "milvus"})]
    assert metrics.instruments[STORE_S].calls == expected
    metrics.flush()
    assert metrics.instruments[STORE_S].calls == expected


def test_nothing_is_lost_between_threads() -> None:
    metrics = RecordedRayMetrics()

    def work() -> None:
        for number in range(5_000):
            metrics.count(STORE_CALLS, store=f"s{number % 3}", outcome="ok")
            metrics.observe(STORE_S, number, store="redis")
            metrics.now += FLUSH_EVERY_S / 7

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    metrics.flush()
    counted: Counter[str] = Counter()
    for by, labels in metrics.instruments[STORE_CALLS].calls:
        counted[labels["store"]] += int(by)
    assert counted == {"s0": 6668, "s1": 6668, "s2": 6664}
    observed = Counter(value for value, _ in metrics.instruments[STORE_S].calls)
    assert observed == {float(number): 4 for number in range(5_000)}


@asynccontextmanager
async def node(answer: bytes) -> AsyncIterator[str]:
    """The address of a node that answers so; with an empty answer it hangs."""
    over, served = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if not answer:
            await over.wait()
        writer.close()
        await writer.wait_closed()
        served.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        over.set()
        await served.wait()


async def read_page(address: str) -> str | None:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await replica_metrics._read_page(client, address)


def http_response(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


async def test_a_nodes_page_is_its_text_and_none_where_the_response_is_an_error() -> None:
    for response, page in [
        (http_response("200 OK", "ray_up 1\n"), "ray_up 1\n"),
        (http_response("500 Oops", "a secret"), None),
        (b"no HTTP\r\n\r\n", None),
    ]:
        async with node(response) as address:
            assert await read_page(address) == page, response


async def test_a_node_that_hangs_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_metrics, "PAGE_S", HANGS_S)
    async with node(b"") as address:
        begun = time.monotonic()
        assert await read_page(address) is None
    assert time.monotonic() - begun >= HANGS_S


async def test_a_node_that_is_gone_is_left_out() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert await read_page(f"127.0.0.1:{unused.getsockname()[1]}") is None
