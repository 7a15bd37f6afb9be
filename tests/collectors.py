"""Collectors of traces on loopback: LangSmith's, an OTLP one, one that never answers, and none at all."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import zstandard
from listening import free_port
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Shape = tuple[str, tuple[Any, ...]]
"""A span's name, and the shapes of those in it in the order in which they began."""
OPERATIONS = ("invoke_agent ", "execute_tool ", "chat ", "retrieval ")


@dataclass
class ReceivedSpan:
    """A span as a collector received it."""

    trace: str
    id: str
    parent: str | None
    name: str
    begun: Any
    ended: Any
    error: str
    fields: dict[str, Any]


@dataclass
class Collector:
    """A server on loopback that keeps what it receives."""

    url: str = ""
    status: int = 200
    bodies: list[bytes] = field(default_factory=list)
    """Uncompressed."""
    headers: list[dict[str, str]] = field(default_factory=list)
    spans: list[ReceivedSpan] = field(default_factory=list)

    def traces(self) -> set[str]:
        return {span.trace for span in self.spans}

    def span_of(self, name: str) -> ReceivedSpan:
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def shape(self) -> Shape:
        """The one tree that all spans make up; no two have the same id."""
        assert len({span.id for span in self.spans}) == len(self.spans)
        ids = {span.id for span in self.spans}
        roots = [span for span in self.spans if span.parent not in ids]
        assert len(roots) == 1, f"orphans: {[(span.name, span.parent) for span in roots]}"
        return self._shape(roots[0])

    def _shape(self, span: ReceivedSpan) -> Shape:
        inside = sorted((each for each in self.spans if each.parent == span.id), key=lambda each: each.begun)
        assert all(span.begun <= each.begun and each.ended <= span.ended for each in inside)
        return span.name, tuple(self._shape(each) for each in inside)


@contextmanager
def langsmith() -> Iterator[Collector]:
    """LangSmith's ingest: `POST /runs/multipart` and `POST /runs/batch`, plain or zstd."""
    with _serving(_runs) as collector:
        yield collector


@contextmanager
def otlp() -> Iterator[Collector]:
    """An OTLP collector: `POST /v1/traces` with protobuf."""
    with _serving(_spans) as collector:
        yield collector


@contextmanager
def silent() -> Iterator[str]:
    """The URL of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def unreachable() -> str:
    return f"http://127.0.0.1:{free_port()}"


@contextmanager
def _serving(read: Callable[[str, dict[str, str], bytes], list[ReceivedSpan]]) -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "zstd":
                body = zstandard.ZstdDecompressor().stream_reader(body).read()
            collector.bodies.append(body)
            collector.headers.append({name.lower(): value for name, value in self.headers.items()})
            if collector.status == 200:
                collector.spans.extend(read(self.path, dict(self.headers), body))
            self.send_response(collector.status)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _runs(path: str, headers: dict[str, str], body: bytes) -> list[ReceivedSpan]:
    if path == "/runs/batch":
        return [_run(each) for each in json.loads(body)["post"]]
    assert path == "/runs/multipart", path
    whole = BytesParser().parsebytes(f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body)
    runs: dict[str, dict[str, Any]] = {}
    for part in whole.get_payload():
        event, run_id, *field_of = str(part.get_param("name", header="content-disposition")).split(".")
        assert event == "post"
        value = json.loads(part.get_payload(decode=True))
        runs.setdefault(run_id, {}).update({field_of[0]: value} if field_of else value)
    return [_run(each) for each in runs.values()]


def _run(run: dict[str, Any]) -> ReceivedSpan:
    order = run["dotted_order"].split(".")
    assert order[-1].endswith(run["id"])
    assert order[0].endswith(run["trace_id"])
    assert (order[-2][-36:] if len(order) > 1 else None) == run.get("parent_run_id")
    return ReceivedSpan(
        trace=run["trace_id"],
        id=run["id"],
        parent=run.get("parent_run_id"),
        name=run["name"],
        begun=run["start_time"],
        ended=run["end_time"],
        error=run.get("error") or "",
        fields=run,
    )


def _spans(path: str, _: dict[str, str], body: bytes) -> list[ReceivedSpan]:
    assert path == "/v1/traces"
    request = ExportTraceServiceRequest.FromString(body)
    return [
        ReceivedSpan(
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex() or None,
            name=next((span.name.removeprefix(each) for each in OPERATIONS if span.name.startswith(each)), span.name),
            begun=span.start_time_unix_nano,
            ended=span.end_time_unix_nano,
            error=span.status.message,
            fields={
                **{each.key: _value(each.value) for each in resource.resource.attributes},
                **{each.key: _value(each.value) for each in span.attributes},
            },
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _value(value: Any) -> Any:
    which = value.WhichOneof("value")
    return [_value(each) for each in value.array_value.values] if which == "array_value" else getattr(value, which)


@dataclass
class DroppedSpans:
    """Counts dropped spans, by sink."""

    counted: Counter[str] = field(default_factory=Counter)

    def __call__(self, sink: str, spans: int) -> None:
        self.counted[sink] += spans
