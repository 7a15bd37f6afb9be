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

TAKES_PINGS = (("grpc.http2.max_ping_strikes", 0),)
"""pymilvus asks an idle connection every 10 s whether it is there; to gRPC's servers that is an abuse, which ends the
connection every half minute, and with it whatever is called at that moment."""
_server = grpc.server


def opened(data_dir: str) -> MilvusLite:
    """The folder's database, each collection open, loaded and flushed.

    Milvus Lite opens a collection at the first call for it, and without a lock: calls that come at once open one each,
    and the last is kept. What is loaded or written in another is gone, and who waits for that load waits in vain.
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


def patient(*given: Any, options: Iterable[tuple[str, Any]] = (), **named: Any) -> grpc.Server:
    """A gRPC server that takes such pings."""
    return _server(*given, options=[*options, *TAKES_PINGS], **named)


if __name__ == "__main__":
    # Milvus Lite closes its files on KeyboardInterrupt only; SIGTERM, which ends every child, becomes one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server.MilvusLite = opened
    grpc.server = patient
    main()
