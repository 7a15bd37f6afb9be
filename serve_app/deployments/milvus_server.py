"""Runs the Milvus Lite server of a folder, with every collection open and loaded.

Run as a program: `milvus_server.py FOLDER PORT`. It listens on loopback; SIGTERM closes the database and ends it.

While Milvus Lite flushes a collection, a search misses the rows that move from memory to a file. Here reads wait for a
flush, and a flush for the reads before it.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import grpc
from milvus_lite import MilvusLite
from milvus_lite.adapter.grpc import server
from milvus_lite.engine.collection import Collection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

logger = logging.getLogger(__name__)

ACCEPT_PINGS = (("grpc.http2.max_ping_strikes", 0),)
"""pymilvus pings an idle connection every 10 s. By default a gRPC server takes that for abuse and closes the connection
every half minute, together with the calls on it."""
_server = grpc.server

DRAIN_S = 3.0
"""What calls under way may take after SIGTERM; the parent kills after five seconds."""


def open_database(data_dir: str) -> MilvusLite:
    """Open the folder's database; each collection is open, loaded and flushed.

    Milvus Lite opens a collection at its first call, without a lock: calls at the same moment open one each, and only
    the last one stays. What was loaded or written in another is lost, and a call that waits for that load hangs.
    """
    database = MilvusLite(data_dir)
    for name in database.list_collections():
        try:
            collection = database.get_collection(name)
            collection.load()
            collection.flush()  # unflushed rows are searched by a slow scan
        except Exception:
            logger.exception("collection_not_loaded: %s", name)  # a plain log; calls for it fail with the reason
    return database


class ReadWriteLock:
    """A lock that many readers hold together, or one writer alone.

    A writer that waits lets no new reader in.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._writing = False

    @contextmanager
    def read(self) -> Iterator[None]:
        """Hold the lock as one of its readers."""
        with self._changed:
            self._changed.wait_for(lambda: not self._writing)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def write(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._writing)
            self._writing = True
            self._changed.wait_for(lambda: not self._readers)
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._changed.notify_all()


def lock_flushes() -> None:
    """Let no read of a collection run beside a flush."""
    lock = ReadWriteLock()
    for name in ("search", "query", "get", "_num_entities"):
        setattr(Collection, name, _hold(lock.read, getattr(Collection, name)))
    Collection._trigger_flush = _hold(lock.write, Collection._trigger_flush)  # noqa: SLF001 - no public name


def _hold(lock: Callable[[], AbstractContextManager[None]], method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with lock():
            return method(*args, **kwargs)

    return call


def create_grpc_server(*args: Any, options: Iterable[tuple[str, Any]] = (), **kwargs: Any) -> grpc.Server:
    """Create a gRPC server that accepts frequent pings."""
    return _server(*args, options=[*options, *ACCEPT_PINGS], **kwargs)


def serve(data_dir: str, port: int) -> None:
    """Serve until SIGTERM, then end the calls under way and close the database.

    SIGTERM must be blocked in the main thread. Before the server runs it may still end the process, as a kill does:
    imports start threads that do not block it. Milvus Lite's own server closes its files on KeyboardInterrupt only; a
    signal handler would raise that anywhere, in the middle of taking a lock, too.
    """
    running, database, _ = server.start_server_in_thread(data_dir, port=port)
    signal.sigwait({signal.SIGTERM})
    running.stop(DRAIN_S).wait()
    database.close()
    print("Milvus Lite has closed its files", flush=True)  # noqa: T201 - into its log


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for `sigwait`
    lock_flushes()
    server.MilvusLite = open_database
    grpc.server = create_grpc_server
    serve(sys.argv[1], int(sys.argv[2]))
