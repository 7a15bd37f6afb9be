"""Free ports and servers in a thread, for tests."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from serve_app.deployments import embedded_stores
from serve_app.deployments.child_process import is_port_free

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp

PORTS = range(embedded_stores.PORTS.stop, 32_768)
"""Above the embedded stores' ports, below Linux's ephemeral ports, any of which may become a connection's."""
WORKERS = 8
"""Each worker of pytest-xdist has ports of its own."""

ONE_REQUEST_PER_CONNECTION = [("connection", "close")]
"""A client with connections of its own may be shared by the tests' event loops."""


def free_port() -> int:
    """A port of loopback that nobody listens on, and that no other test is given soon."""
    return next(filter(is_port_free, _ports))


def _ports_of_this_worker() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = PORTS[worker % WORKERS :: WORKERS]
    start = os.getpid() % len(ports)  # two runs of pytest at once begin at two places
    return itertools.cycle((*ports[start:], *ports[:start]))


_ports = _ports_of_this_worker()


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """The application in a thread of its own; its URL."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=0, headers=ONE_REQUEST_PER_CONNECTION)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
