"""Runs the Milvus Lite server of a folder, with every collection open and loaded.

Run as a program, with the arguments of `milvus-lite`.
"""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, Any

import grpc
from milvus_lite import MilvusLite
from milvus_lite.adapter.grpc import server
from milvus_lite.cmdline import main

if TYPE_CHECKING:
    from collections.abc import Iterable

logger = logging.getLogger(__name__)

ACCEPT_PINGS = (("grpc.http2.max_ping_strikes", 0),)
"""pymilvus pings an idle connection every 10 s. By default a gRPC server takes that for abuse and closes the connection
every half minute, together with the calls on it."""
_server = grpc.server


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


def create_grpc_server(*args: Any, options: Iterable[tuple[str, Any]] = (), **kwargs: Any) -> grpc.Server:
    """Create a gRPC server that accepts frequent pings."""
    return _server(*args, options=[*options, *ACCEPT_PINGS], **kwargs)


if __name__ == "__main__":
    # Milvus Lite closes its files on KeyboardInterrupt only; SIGTERM, which ends every child, becomes one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server.MilvusLite = open_database
    grpc.server = create_grpc_server
    main()
